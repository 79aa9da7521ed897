import type { Clock, Engine, Item, Ports, Queue, Store, Value } from "@waggle/core";
import { type AwsConfig, createResources, deleteResources, type OpenAwsOptions, openAws } from "@waggle/engine-aws";
import { describe, vi } from "vitest";
import { emulators, emulatorsLack } from "./emulator.ts";
import { eventually } from "./eventually.ts";
import { type Base, mode, processOn } from "./system.ts";

/** Rows that go through the stream to say how far it was read. */
const kind = "mark";
const isMark = ({ new: next }: { readonly new?: Item }) => next?.kind === kind;
let opened = 0;
/** Rises over restarts: a mark that comes again is an old one. */
let marks = 0;

interface OnAws {
  /** Load suites of test/domain. */
  readonly suites: readonly (() => Promise<unknown>)[];
  /** Of the engine. */
  readonly options?: () => OpenAwsOptions;
  /** Stands for DynamoDB, where it is another that stands for the rest. */
  readonly dynamo?: () => Promise<{ readonly endpoint: string }>;
  /** Why that cannot run here. */
  readonly lack?: string | undefined;
}

/**
 * Has suites of the domain run on the engine on AWS, under a clock in hand. Store, stream, queues and blobs are an emulator's; only
 * the delays of messages, which SQS would count in real seconds, are counted by the clock.
 */
export async function onAws({
  suites,
  options = () => ({}),
  dynamo = emulators.ministack,
  lack,
}: OnAws): Promise<void> {
  const lacks = emulatorsLack.ministack() ?? lack;
  if (lacks !== undefined && process.env.CI === "true") throw new Error(lacks);
  if (lacks !== undefined) console.warn(`skipped: domain on aws: ${lacks}`);
  // The SDK wants some; an emulator takes any.
  process.env.AWS_ACCESS_KEY_ID ??= "test";
  process.env.AWS_SECRET_ACCESS_KEY ??= "test";
  // Each step of the clock is many calls of an emulator, which a busy machine makes take their time.
  vi.setConfig({ testTimeout: 300_000, hookTimeout: 120_000 });
  mode.shared = true;
  mode.brief = process.env.WAGGLE_AWS_ALL !== "1";
  mode.open = async ({ clock, outbound }) => {
    const [{ endpoint }, { endpoint: storeEndpoint }] = await Promise.all([emulators.ministack(), dynamo()]);
    const prefix = `domain-${process.pid}-${++opened}`;
    const config = await createResources({ prefix, endpoint, storeEndpoint, queues: { visibilitySeconds: 2 } });
    return await open(config, () => ({ ...options(), clock, streamIdleMs: 15, ...(outbound && { outbound }) }));
  };
  // One by one: what a suite does before each of its tests is not for those of the others.
  for (const load of suites)
    describe.skipIf(lacks !== undefined)("on the engine of AWS", async () => void (await load()));
}

async function open(config: AwsConfig, options: () => OpenAwsOptions & { readonly clock: Clock }): Promise<Base> {
  const { clock, ...rest } = options();
  const engine = await openAws(config, { ...rest, clock });
  const { store, queues } = engine.ports;
  /** Up to which mark each consumer of the stream has come. */
  const reached = new Map<string, number>();
  /**
   * Calls of the store and the queues so far: whatever makes some is not at its end. A message that is on its way is in no queue, so
   * that one which was begun before a look at the queues has to be seen to end.
   */
  let begun = 0;
  let ended = 0;
  /** How many there were when nothing was left to do. */
  let calm = -1;
  const counted =
    <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      begun++;
      try {
        return await call(...args);
      } finally {
        ended++;
      }
    };

  async function through(consumers: Iterable<string>): Promise<void> {
    const n = ++marks;
    const end = [...consumers];
    await store.write({ put: { pk: "marks", sk: "mark", kind, tenant: "marks", n } });
    await eventually("the stream was read", () => end.every((name) => (reached.get(name) ?? 0) >= n), {
      seconds: 60,
      everyMs: 2,
    });
  }
  const note = (name: string, changes: readonly { readonly new?: Item }[]) => {
    for (const change of changes)
      if (isMark(change)) reached.set(name, Math.max(reached.get(name) ?? 0, change.new?.n as number));
  };
  const views = new Set<string>();
  const projected = async () => {
    // A projection is asked before its rows are written: they are once it is asked for the next.
    for (let i = 0; i < 2; i++) await through(views);
  };
  /** Delayed messages whose time has come: SQS has had them all along, so no end of a process can take them back. */
  const due = new Set<Promise<void>>();
  const queue = (own: Queue): Queue => {
    const send = counted(own.send);
    const deliver = (body: Value) => {
      const sent = send([{ body }]).finally(() => due.delete(sent));
      due.add(sent);
    };
    return {
      ...own,
      async send(messages) {
        const now = messages.filter(({ delaySeconds = 0 }) => delaySeconds <= 0);
        for (const { body, delaySeconds = 0 } of messages) {
          if (delaySeconds <= 0) continue;
          clock.after(delaySeconds * 1000, () => deliver(body));
        }
        if (now.length > 0) await send(now);
      },
    };
  };
  const counting: Store = {
    ...store,
    get: counted(store.get),
    batchGet: counted(store.batchGet),
    query: counted(store.query),
    write: counted(store.write),
    transact: counted(store.transact),
    batchWrite: counted(store.batchWrite),
    // Lists follow a moment later there, and nobody waits for them. A test does.
    projected: () => projected(),
  };
  const ports: Ports = processOn(engine.ports, {
    store: counting,
    queues: {
      dispatch: queue(queues.dispatch),
      timers: queue(queues.timers),
      deliver: queue(queues.deliver),
      intake: queue(queues.intake),
    },
  });
  const marked: Engine = {
    ...engine,
    ports,
    changes: {
      consume(name, kinds, handler) {
        reached.set(name, 0);
        return engine.changes.consume(name, [...kinds, kind], async (changes) => {
          const own = changes.filter((change) => !isMark(change));
          if (own.length > 0) await handler(own);
          note(name, changes);
        });
      },
      project(name, kinds, groupOf, derive) {
        reached.set(name, 0);
        views.add(name);
        return engine.changes.project(name, [...kinds, kind], groupOf, async (changes) => {
          note(name, changes);
          return await derive(changes.filter((change) => !isMark(change)));
        });
      },
    },
  };
  return {
    engine: marked,
    ports,
    real: true,
    async quiet() {
      // What a timer has woken begins with a call.
      for (let turns = 0; turns < 3; turns++) await new Promise((resolve) => setImmediate(resolve));
      if (begun === calm) return;
      for (let before = -1; before !== ended || begun !== ended; ) {
        before = ended;
        await eventually(
          "the queues are empty",
          async () => {
            const depths = await Promise.all(Object.values(queues).map((each) => each.depth()));
            return depths.every(({ waiting, inFlight }) => waiting + inFlight === 0);
          },
          // Thousands of messages take a while; whoever waits for ever is stopped by the time its test has.
          { seconds: 300, everyMs: 15 },
        );
        await through(reached.keys());
        await through(views);
      }
      calm = begun;
    },
    async again() {
      await Promise.all(due);
      await engine.close();
      return await open(config, options);
    },
    async remove() {
      await engine.close();
      await deleteResources(config);
    },
  };
}
