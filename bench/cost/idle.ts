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

/** How long a beat of the connected agent is: `longestSilenceMs` of the agent in packages/sdk. */
const beatSeconds = (leaseSeconds: number): number => Math.min(leaseSeconds / 3, 240);
/** How old the agents as a process remembers them may be, in s: `maxAgeMs` of core/match/directory.ts, in whole minutes. */
const readEachSeconds = (agents: number): number => Math.ceil(Math.min(300, Math.max(10, agents * 0.1)) / 60) * 60;

/** What agents that have nothing to do cost in a month. */
export async function measureIdle(kind: RigKind): Promise<Fleet[]> {
  const { none, perAgent } = await ofMinutes(kind);
  const fleets: Fleet[] = [{ name: "idle, nobody", what: "a deployment at rest", agents: 0, units: none }];
  for (const agents of sizes) {
    // One scheduled function reads the agents when what it remembers is too old.
    const known = times(perAgent, agents * (secondsPerMonth / readEachSeconds(agents)));
    fleets.push({ name: "idle, called", what: "webhook, function or queue", agents, units: known });
    for (const leaseSeconds of [60, 900]) {
      // Lambda asks a shard of the stream four times a second.
      const changes = agents / beatSeconds(leaseSeconds);
      const streamBatch = Math.max(1, Math.min(100, Math.floor(changes / assumed.streamPollsPerSecond)));
      const alive = times(await ofConnected(kind, leaseSeconds, streamBatch), agents);
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

/** One connected agent's month. */
async function ofConnected(kind: RigKind, leaseSeconds: number, streamBatch: number): Promise<Units> {
  const on = await deploy(kind, {});
  try {
    for (let i = 0; i < sample; i++) {
      const agent = { name: `agent-${i}`, capabilities: [{ name: "review" }], leaseSeconds };
      const { token } = await on.call("POST", "/v1/agents", on.key, agent);
      await on.connect(`connection-${i}`, token);
    }
    const step = beatSeconds(leaseSeconds);
    const beats = 30;
    let pending = await on.changes();
    const beat = async () => {
      on.clock.advance(step * 1000);
      for (let i = 0; i < sample; i++) await on.say(`connection-${i}`, { op: "heartbeat", re: 1 });
      pending = [...pending, ...(await on.changes())];
      while (pending.length >= streamBatch) {
        await on.follow(pending.slice(0, streamBatch), streamBatch);
        pending = pending.slice(streamBatch);
      }
      await on.drain("timers", 10);
    };
    for (let i = 0; i < 6; i++) await beat();
    const each = await on.count(sample * beats, async () => {
      for (let i = 0; i < beats; i++) await beat();
    });
    return { ...times(each, secondsPerMonth / step), socketMinutes: secondsPerMonth / 60 };
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
