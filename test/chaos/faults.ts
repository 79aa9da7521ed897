import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { auditFolder } from "@waggle/local";
import { eventually } from "../support/eventually.ts";
import { freePort, launchScript, type Process } from "../support/process.ts";
import { pick } from "../support/random.ts";
import { adminKey } from "../support/server.ts";
import type { Disturbance } from "./history.ts";
import { type Fault, faultOf } from "./plan.ts";
import { type FaultProxy, fair, foul, openProxy } from "./proxy.ts";
import type { Order } from "./server.ts";

/** How each agent gets its work. */
const transports = ["socket", "socket", "poll", "webhook"] as const;
/** One in so many dead servers has its folder read before the next one starts. */
const autopsyEvery = 8;
/** The server's clock is set at most so far from ours. */
const clockRangeMs = 20_000;

interface AgentSlot {
  process: Process;
  name: string;
  /** Lives so far. */
  lives: number;
  readonly how: (typeof transports)[number];
  readonly port: number;
}

export interface World {
  /** Past the proxy: for whoever opens the books. */
  readonly url: string;
  readonly proxy: FaultProxy;
  readonly key: string;
  readonly counts: Record<Fault, number>;
  /** When the server was away, out of step or without its disk, by its clock. */
  readonly disturbed: Disturbance[];
  /** What was found wrong in the folders of servers that had been killed, and with those that ended without. */
  readonly autopsies: { count: number; readonly faults: string[] };
  /** Does harm, and returns once what was harmed is there again. */
  inflict(fault: Fault): Promise<void>;
  draw(allowed: readonly Fault[]): Fault;
  /** The weather clears; all that was stopped goes on. */
  calm(): Promise<void>;
  output(): string;
  stop(): Promise<void>;
}

/** A server and its agents in processes of their own, behind a network of our making. */
export async function openWorld(dataDir: string, random: () => number): Promise<World> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const proxy = await openProxy(port, random);
  const agents: AgentSlot[] = [];
  const counts = {
    killAgent: 0,
    killServer: 0,
    torn: 0,
    stopAgent: 0,
    stopServer: 0,
    cut: 0,
    storm: 0,
    clock: 0,
    diskFull: 0,
    diskError: 0,
  };
  const disturbed: Disturbance[] = [];
  const autopsies = { count: 0, faults: [] as string[] };
  let clockMs = 0;
  let server = await startServer();
  const key = adminKey(dataDir);

  async function startServer(): Promise<Process> {
    const args = [dataDir, String(port), String(clockMs), String(Math.floor(random() * 2 ** 31))];
    const started = launchScript("test/chaos/server.ts", args, { ipc: true });
    await eventually(
      "the server is up",
      async () => {
        if (!started.running) throw new Error(`the server ended: ${started.output()}`);
        const answer = await fetch(`${url}/health`);
        await answer.body?.cancel();
        return answer.ok;
      },
      { seconds: 60, everyMs: 10 },
    );
    return started;
  }
  function startAgent(slot: Omit<AgentSlot, "process">): AgentSlot {
    const args = [proxy.url, key, slot.name, slot.how, String(slot.port)];
    return { ...slot, process: launchScript("test/chaos/agents.ts", args, { ipc: true }) };
  }
  for (const [index, how] of transports.entries())
    agents.push(startAgent({ name: `chaos-${index}`, lives: 1, how, port: await freePort() }));

  const tell = (order: Order) => void (server.child.connected && server.child.send(order));

  async function afterDeath(): Promise<void> {
    if (random() * autopsyEvery < 1) {
      autopsies.count++;
      const { findings } = await auditFolder(dataDir);
      autopsies.faults.push(
        ...findings.map(
          ({ code, subject, problem }) => `dead server ${autopsies.count}: ${code} ${subject} ${problem}`,
        ),
      );
    }
    server = await startServer();
  }

  /** A server that nobody killed has to be there: one that comes back with the next kill would not be missed. */
  async function missed(): Promise<void> {
    if (server.running) return;
    autopsies.faults.push(`the server ended by itself:\n${server.output().slice(-4_000)}`);
    await afterDeath();
  }

  const harm: Record<Fault, () => Promise<void>> = {
    async killServer() {
      await server.end("SIGKILL");
      await afterDeath();
    },
    async torn() {
      tell({ disk: "torn" });
      // It dies at its next write; there is one within moments, as leases are renewed.
      await eventually("the server died of a torn write", () => !server.running, { seconds: 10, everyMs: 5 }).catch(
        () => server.end("SIGKILL"),
      );
      await afterDeath();
    },
    async killAgent() {
      const index = Math.floor(random() * agents.length);
      const slot = agents[index] as AgentSlot;
      await slot.process.end("SIGKILL");
      await sleep(random() * 300);
      // Under its name it takes its own place at once; under another, the lease of the first must run out.
      const lives = slot.lives + 1;
      const name = random() < 0.5 ? slot.name : `chaos-${index}-${lives}`;
      agents[index] = startAgent({ ...slot, name, lives });
    },
    async stopAgent() {
      const { process } = pick(random, agents);
      process.child.kill("SIGSTOP");
      // Past its lease of 3 s: what it does when it wakes, others have been given meanwhile.
      await sleep(3_500 + random() * 1_500);
      process.child.kill("SIGCONT");
    },
    async stopServer() {
      const { child } = server;
      child.kill("SIGSTOP");
      await sleep(1_000 + random() * 3_000);
      child.kill("SIGCONT");
    },
    async cut() {
      proxy.cutAll();
    },
    async storm() {
      proxy.weather = foul;
      await sleep(500 + random() * 1_500);
      proxy.weather = fair;
    },
    async clock() {
      clockMs = Math.round((random() * 2 - 1) * clockRangeMs);
      tell({ clockMs });
    },
    async diskFull() {
      tell({ disk: "full" });
      await sleep(200 + random() * 800);
      tell({ disk: "fine" });
    },
    async diskError() {
      tell({ disk: "failing" });
      await sleep(200 + random() * 800);
      tell({ disk: "fine" });
    },
  };
  const now = () => Date.now() + clockMs;

  return {
    url,
    proxy,
    key,
    counts,
    disturbed,
    autopsies,
    draw: (allowed) => faultOf(random, allowed),
    async inflict(fault) {
      await missed();
      counts[fault]++;
      const from = now();
      await harm[fault]();
      disturbed.push([from, now() + 1_000]);
    },
    async calm() {
      await missed();
      proxy.weather = fair;
      // Never back, so that what waits for a time is not kept waiting for the step.
      clockMs = Math.max(clockMs, 0);
      tell({ disk: "fine" });
    },
    output: () => server.output(),
    async stop() {
      proxy.close();
      for (const { process } of agents) await process.end("SIGKILL");
      await server.end("SIGKILL");
    },
  };
}

export const outputFile = (dataDir: string) => join(dataDir, "server-output.txt");
