import { Agent } from "@waggle/core";
import { assumed } from "../prices.ts";
import { deploy } from "./deployment.ts";
import type { RigKind } from "./rig.ts";
import { mean, noUnits, sum, times, type Units } from "./units.ts";

export interface Fleet {
  readonly name: string;
  readonly what: string;
  readonly agents: number;
  /** Of the whole fleet in a month. */
  readonly units: Units;
}

const secondsPerMonth = assumed.daysPerMonth * 86_400;
const sizes = [1_000, 100_000] as const;
/** As many are really run; the rest is multiplied. */
const sample = 10;
const registered = 200;

/** API Gateway ends a connection after two hours, which agents come back from; what it costs repeats with that. */
const connectionMinutes = 120;
/** Of the agent's row: its connection ends, it has another. */
const changesOfReconnect = 2;
/** How often an agent pings, in s: at the last of its beats that is not past `pingSeconds`. See the agent in packages/sdk. */
function pingEachSeconds(leaseSeconds: number): number {
  const beat = Math.min(leaseSeconds / 3, 240);
  return Math.floor(Agent.pingSeconds / beat) * beat;
}
/** How old the agents as a process remembers them may be, in s: `maxAgeMs` of core/match/cache.ts, in whole minutes. */
const readEachSeconds = (agents: number): number => Math.ceil(Math.min(300, Math.max(10, agents * 0.1)) / 60) * 60;

/** What agents that have nothing to do cost in a month. */
export async function measureIdle(kind: RigKind): Promise<Fleet[]> {
  const { none, perAgent } = await ofMinutes(kind);
  const nobody = await ofConnection(kind, 60, 1, 0);
  const fleets: Fleet[] = [{ name: "idle, nobody", what: "a deployment at rest", agents: 0, units: none }];
  for (const agents of sizes) {
    // One scheduled function reads the agents when what it remembers is too old.
    const known = times(perAgent, agents * (secondsPerMonth / readEachSeconds(agents)));
    fleets.push({ name: "idle, called", what: "webhook, function or queue", agents, units: known });
    for (const leaseSeconds of [60, 900]) {
      // Lambda asks a shard of the stream four times a second.
      const changes = (agents * changesOfReconnect) / (connectionMinutes * 60);
      const streamBatch = Math.max(1, Math.min(100, Math.floor(changes / assumed.streamPollsPerSecond)));
      const alive = times(await ofConnected(kind, leaseSeconds, streamBatch, nobody), agents);
      fleets.push({
        name: "idle, connected",
        what: `WebSocket, lease ${leaseSeconds} s`,
        agents,
        units: sum(known, alive),
      });
    }
  }
  return fleets;
}

/** One connected agent's month. @param nobody what its two hours take without it */
async function ofConnected(kind: RigKind, leaseSeconds: number, streamBatch: number, nobody: Units): Promise<Units> {
  const some = await ofConnection(kind, leaseSeconds, streamBatch, sample);
  const each = times(sum(some, times(nobody, -1)), 1 / sample);
  return {
    ...times(each, secondsPerMonth / (connectionMinutes * 60)),
    socketMinutes: secondsPerMonth / 60,
  };
}

/** From one reconnect of so many agents to the next, with the scheduled functions. */
async function ofConnection(kind: RigKind, leaseSeconds: number, streamBatch: number, agents: number): Promise<Units> {
  const on = await deploy(kind, {});
  try {
    const tokens: string[] = [];
    for (let i = 0; i < agents; i++) {
      const agent = { name: `agent-${i}`, capabilities: [{ name: "review" }], leaseSeconds };
      tokens.push((await on.call("POST", "/v1/agents", on.key, agent)).token);
    }
    const follow = async () => {
      await on.follow(await on.changes(), streamBatch);
      await on.drain("timers", 10);
    };
    const connectAll = async (round: number) => {
      for (const [i, token] of tokens.entries()) {
        if (round > 0) await on.disconnect(`connection-${i}-${round - 1}`);
        await on.connect(`connection-${i}-${round}`, token);
      }
      await follow();
    };
    const stay = async () => {
      for (let minute = 0, pinged = 0; minute < connectionMinutes; minute++) {
        on.clock.advance(60_000);
        for (; pinged + pingEachSeconds(leaseSeconds) <= minute * 60; pinged += pingEachSeconds(leaseSeconds))
          for (let i = 0; i < agents; i++) on.ping();
        await on.minute();
        await follow();
      }
    };
    await connectAll(0);
    await stay();
    return await on.count(1, async () => {
      await connectAll(1);
      await stay();
    });
  } finally {
    await on.close();
  }
}

/** A month of the scheduled functions and of empty queues; and what one reading of one agent adds. */
async function ofMinutes(kind: RigKind): Promise<{ none: Units; perAgent: Units }> {
  const minutes = async (agents: number): Promise<Units> => {
    const on = await deploy(kind, {});
    try {
      for (let i = 0; i < agents; i++) {
        const delivery = { type: "webhook", url: `https://agent-${i}.example.com/work` };
        await on.call("POST", "/v1/agents", on.key, {
          name: `agent-${i}`,
          capabilities: [{ name: "review" }],
          delivery,
        });
      }
      await on.follow(await on.changes());
      await on.drain("timers", 10);
      const all: Units[] = [];
      for (let i = 0; i < 5; i++) {
        on.clock.advance(60_000);
        all.push(await on.count(1, on.minute));
      }
      return mean(all.slice(1));
    } finally {
      await on.close();
    }
  };
  const [empty, some] = [await minutes(0), await minutes(registered)];
  const perAgent = times(sum(some, times(empty, -1)), 1 / registered);
  const polls = assumed.queues * assumed.pollersPerQueue * (secondsPerMonth / assumed.pollSeconds);
  const none = sum(times(empty, secondsPerMonth / 60), { ...noUnits(), queueRequests: polls });
  return { none, perAgent };
}
