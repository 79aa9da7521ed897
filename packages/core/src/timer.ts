import * as Agent from "./agent/liveness.ts";
import { serveGate } from "./match/dispatch.ts";
import { woken } from "./match/gate.ts";
import { type Item, type Ports, queueLimits, type Value } from "./port/index.ts";
import { step, type Walk } from "./retention/retention.ts";
import { timerCursorKey, timerKey, timerPartition, timerShards } from "./rows.ts";
import { systemScope } from "./scope.ts";
import { timeUp } from "./task/end.ts";

/** `[tenant, kind, id, at]`: look at this task or agent at this time. */
export type TimerEntry = readonly [string, "task" | "agent", string, number];

/** Timers due within this many milliseconds of one another share a message. */
export const timerGrainMs = 100;
const horizonMs = queueLimits.delaySeconds * 1000;
const entriesPerMessage = 100;
const minuteMs = 60_000;
/** Empty minutes that are passed in one go, and without a note: after a long standstill there are very many. */
const minutesAtOnce = 500;

/** Sees to it that each is looked at when it is due: by a delayed message, or by a row of its minute when that is far off. */
export async function arm(ports: Ports, timers: readonly TimerEntry[]): Promise<void> {
  const now = ports.clock.now();
  const near = new Map<number, TimerEntry[]>();
  const far = new Map<number, TimerEntry[]>();
  for (const timer of timers) {
    const slot = timer[3] - now <= horizonMs ? Math.ceil(timer[3] / timerGrainMs) * timerGrainMs : timer[3];
    const buckets = timer[3] - now <= horizonMs ? near : far;
    const key = buckets === near ? slot : Math.floor(timer[3] / minuteMs);
    buckets.get(key)?.push(timer) ?? buckets.set(key, [timer]);
  }
  const messages = [...near].flatMap(([at, entries]) =>
    chunks(entries).map((timers) => ({
      body: { timers } as unknown as Value,
      delaySeconds: Math.max(0, Math.min(queueLimits.delaySeconds, (at - now) / 1000)),
    })),
  );
  if (messages.length > 0) await ports.queues.timers.send(messages);
  const rows = [...far].flatMap(([minute, entries]) =>
    chunks(entries).map((timers): { put: Item } => ({
      put: {
        ...timerKey(minute, ports.random(16)),
        kind: "timers",
        timers: timers as unknown as Value,
      },
    })),
  );
  if (rows.length > 0) await ports.store.batchWrite(rows);
}

const chunks = <T>(list: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(list.length / entriesPerMessage) }, (_, i) =>
    list.slice(i * entriesPerMessage, (i + 1) * entriesPerMessage),
  );

/** `[tenant, key, at]`: look at this limit; `at` where its room was waited for. */
type GateEntry = readonly [string, string, number?];

/** Does what one timer message says is due. One that fails holds up none of the others: it comes again without them. */
export async function fire(ports: Ports, body: Value): Promise<void> {
  const {
    timers = [],
    gates = [],
    retention,
  } = body as unknown as { timers?: TimerEntry[]; gates?: GateEntry[]; retention?: Walk };
  const again: TimerEntry[] = [];
  const failed: { timers: TimerEntry[]; gates: GateEntry[] } = { timers: [], gates: [] };
  let problem: unknown;
  for (const timer of timers) {
    const [tenant, kind, id, at] = timer;
    if (at > ports.clock.now() + timerGrainMs) {
      again.push(timer);
      continue;
    }
    const scope = systemScope(ports, tenant, "timers");
    try {
      const next = kind === "task" ? await timeUp(scope, id) : await Agent.timeUp(scope, id);
      if (next !== undefined) again.push([tenant, kind, id, next]);
    } catch (error) {
      problem = error;
      failed.timers.push(timer);
    }
  }
  for (const gate of gates) {
    const [tenant, key, at] = gate;
    woken(ports, tenant, key, at);
    try {
      await serveGate(systemScope(ports, tenant, "timers"), key);
    } catch (error) {
      problem = error;
      failed.gates.push(gate);
    }
  }
  if (again.length > 0) await arm(ports, again);
  if (retention) await step(systemScope(ports, retention.tenant, "retention"), retention);
  const left = failed.timers.length + failed.gates.length;
  if (left === 0) return;
  // The whole message comes again only where nothing in it was done: what was armed anew would be so once more each time, for as long as it lives.
  if (left === timers.length + gates.length) throw problem;
  await ports.queues.timers.send([{ body: failed as unknown as Value }]);
}

/**
 * Turns the rows of minutes that come near into messages. Runs each minute; after a standstill it catches up with all it missed.
 * @returns how many rows it turned
 */
export async function sweep(ports: Ports): Promise<number> {
  const { store, clock } = ports;
  const until = Math.floor((clock.now() + horizonMs - 2 * minuteMs) / minuteMs);
  const cursor = await store.get(timerCursorKey);
  const passed = cursor?.minute as number | undefined;
  // Ahead of what is near it comes from a clock that was set back since: minutes that it passed are still to come, and may have got rows.
  const from = passed !== undefined && passed <= until ? passed + 1 : Math.floor(clock.now() / minuteMs) - 1;
  let turned = 0;
  for (let minute = from; minute <= until; minute++) {
    const before = turned;
    for (let shard = 0; shard < timerShards; shard++) {
      const pk = timerPartition(minute, shard);
      for (;;) {
        const page = await store.query({ pk, limit: 100 });
        if (page.items.length === 0) break;
        // The messages first: a crash between repeats them, and a repeated timer is harmless.
        await arm(
          ports,
          page.items.flatMap((item) => item.timers as unknown as TimerEntry[]),
        );
        await store.batchWrite(page.items.map((item) => ({ delete: { pk, sk: item.sk } })));
        turned += page.items.length;
      }
    }
    const pause = minute % minutesAtOnce === 0;
    if (turned > before || pause || minute === until)
      await store.write({ put: { ...timerCursorKey, kind: "cursor", minute } });
    // A store that answers from memory would keep all others waiting.
    if (pause) await new Promise((resolve) => setImmediate(resolve));
  }
  return turned;
}
