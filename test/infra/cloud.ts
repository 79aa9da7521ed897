import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type App, createApp } from "@waggle/api";
import {
  type Change,
  type Clock,
  deliveryErrors,
  Key,
  type Live,
  type Message,
  type Outbound,
  outboxKinds,
  type Ports,
  type QueueName,
  tenantOf,
  type Value,
} from "@waggle/core";
import {
  deliverHandler,
  dispatchHandler,
  intakeHandler,
  minuteHandler,
  outboxHandler,
  projection,
  type SocketAnswer,
  scalingHandler,
  socketHandler,
  timersHandler,
} from "@waggle/edge";
import { projectRecords, type StreamRecord } from "@waggle/engine-aws";
import { openEmbedded } from "@waggle/engine-embedded";
import { type FunctionName, functions } from "../../infra/manifest.ts";
import { toRow } from "../../packages/engine-aws/src/marshal.ts";
import { manualClock, processOn } from "../support/system.ts";
import { type Call, observed } from "./calls.ts";

type Made = {
  readonly ports: Ports;
  readonly api: () => App;
  readonly socket: ReturnType<typeof socketHandler>;
  readonly queue: (messages: readonly Message[]) => Promise<{ failed: readonly string[] }>;
  readonly outbox: (changes: readonly Change[]) => Promise<void>;
  readonly minute: () => Promise<unknown>;
  readonly scaling: () => Promise<unknown>;
};

type Reply = { readonly status: number; readonly body?: string } | "down";
/** What agents that are called answer, by where they are; those not named take what they get. */
type World = Map<string, Reply | (() => Promise<Reply>)>;

const handlers = {
  dispatch: dispatchHandler,
  timers: timersHandler,
  deliver: deliverHandler,
  intake: intakeHandler,
} as const;
const names = Object.keys(functions) as FunctionName[];
export const adminKey = "wgk_0123456789abcdefghijklmnopq";

/** Every function of a stage on one embedded engine, each with ports of its own that tell what it asks of AWS. */
export async function openCloud(
  envOf: (name: FunctionName) => Readonly<Record<string, string>>,
  note: (name: FunctionName, call: Call) => void,
) {
  const dataDir = mkdtempSync(join(tmpdir(), "waggle-cloud-"));
  const clock = manualClock();
  const world: World = new Map();
  const errors: unknown[] = [];
  const sent: { connectionId: string; text: string }[] = [];
  const gone = new Set<string>();
  const pending: Promise<unknown>[] = [];
  const answerOf = async (target: string) => {
    const said = world.get(target) ?? { status: 202 };
    const answer = typeof said === "function" ? await said() : said;
    if (answer === "down") throw deliveryErrors.failed("the connection was refused");
    return { body: "", ...answer };
  };
  const outbound: Outbound = {
    publicUrl: () => "https://waggle.example.com",
    secretKey: () => "a-secret-that-encrypts-secrets",
    check: async () => undefined,
    http: async ({ url }) => answerOf(url),
    invoke: async (arn) => ({ payload: (await answerOf(arn)).body, error: false }),
    send: async (url) => void (await answerOf(url)),
  };
  const engine = await openEmbedded({ dataDir, clock: clock as Clock, outbound });
  const onError = (_: string, error: unknown) => void errors.push(error);

  const live = (): Live => {
    const listeners: ((connectionId: string) => Promise<void>)[] = [];
    return {
      pollMs: 250,
      publish(channel, message) {
        if (!channel.startsWith("connection/")) return;
        const connectionId = channel.slice("connection/".length);
        // It is hung up on, which sends nothing.
        if (message === null) return;
        if (!gone.has(connectionId)) sent.push({ connectionId, text: message as string });
        else for (const each of listeners) pending.push(each(connectionId).catch((error) => errors.push(error)));
      },
      subscribe: () => () => {},
      onGone(listener) {
        listeners.push(listener);
        return () => {};
      },
    };
  };

  function make(name: FunctionName): Made {
    // There is no looking at all rows there.
    const { inspect: _, ...there } = engine.ports;
    const base = processOn(there, {
      live: live(),
      store: { ...engine.ports.store, projected: () => Promise.resolve() },
    });
    const ports = observed(base, envOf(name), (call) => note(name, call));
    const once = <T>(build: () => T) => {
      let value: { of: T } | undefined;
      return () => {
        value ??= { of: build() };
        return value.of;
      };
    };
    const queue = once(() => handlers[name as QueueName](ports, onError));
    const socket = once(() => socketHandler(ports, onError));
    const relay = once(() => outboxHandler(ports));
    const minute = once(() => minuteHandler(ports, onError));
    const views = once(() => projectRecords({ ports }, "views", tenantOf, projection(ports)));
    return {
      ports,
      api: once(() => createApp({ ports, version: "1.0.0", onError: (error) => void errors.push(error) })),
      socket: (event) => socket()(event),
      queue: (messages) => queue()(messages),
      async outbox(changes) {
        await Promise.all([relay()(changes), views()(changes.map(toRecord))]);
      },
      minute: () => minute()(),
      scaling: () => scalingHandler(ports)(),
    };
  }
  let made = {} as Record<FunctionName, Made>;
  /** Functions whose processes begin anew, knowing nothing; all unless named. */
  const cold = (...which: FunctionName[]) => {
    made = { ...made };
    for (const name of which.length > 0 ? which : names) made[name] = make(name);
  };
  cold();

  /** As `functions/support/lambda.ts` does: what failed comes again soon. */
  const onQueue = (name: QueueName) => async (messages: readonly Message[]) => {
    const { ports, queue } = made[name];
    const { failed } = await queue(messages);
    const again = messages.filter(({ id }) => failed.includes(id)).map(({ receipt }) => receipt);
    if (again.length > 0) await ports.queues[name].retry(again, 1);
    return { failed };
  };
  const changes: Change[] = [];
  const feeds = [
    engine.changes.consume("outbox", outboxKinds, async (batch) => {
      changes.push(...batch);
      await made.outbox.outbox(batch);
    }),
    ...(Object.keys(handlers) as QueueName[]).map((name) =>
      engine.queueFeed.consume(name, { batch: 10, concurrency: 1 }, onQueue(name)),
    ),
  ];
  const quiet = async () => {
    const { store, queues } = engine.ports;
    for (let calm = 0; calm < 4; ) {
      await new Promise((resolve) => setImmediate(resolve));
      await store.settled();
      await store.projected();
      await Promise.all(pending.splice(0));
      const depths = await Promise.all(Object.values(queues).map((each) => each.depth()));
      calm = depths.some(({ waiting, inFlight }) => waiting + inFlight > 0) ? 0 : calm + 1;
    }
  };

  return {
    engine,
    clock,
    world,
    errors,
    sent,
    gone,
    cold,
    quiet,
    async pass(seconds: number, stepSeconds = 1) {
      for (let left = seconds; left > 1e-9; left -= stepSeconds) {
        clock.advance(Math.min(stepSeconds, left) * 1000);
        await quiet();
      }
    },
    routes: () => made.api.api().shared.routes,
    adopt: () => Key.adopt(made.api.ports, Key.hashOf(adminKey)),
    async request(method: string, path: string, content: unknown, key: string, headers: Record<string, string> = {}) {
      const request = new Request(`https://waggle.example.com${path}`, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(content !== undefined && { "content-type": "application/json" }),
          ...headers,
        },
        body: content === undefined ? null : JSON.stringify(content),
      });
      return made.api.api().hono.fetch(request, { remoteAddress: "192.0.2.1" });
    },
    socket: (event: Parameters<Made["socket"]>[0]): Promise<SocketAnswer> => made.socket.socket(event),
    async minute() {
      await made.minute.minute();
      await quiet();
    },
    scaling: () => made.scaling.scaling(),
    /** The latest changes once more, as a stream gives them whose reader had died. */
    again: () => made.outbox.outbox(changes.slice(-500)),
    /** A message taken by a queue's function before any other does something. */
    take: (name: QueueName, body: Value) => made[name].queue([{ id: "1", body, receives: 1, receipt: "1" }]),
    async close() {
      for (const end of feeds) await end();
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
export type Cloud = Awaited<ReturnType<typeof openCloud>>;

const toRecord = ({ position, key, old, new: next }: Change): StreamRecord => ({
  dynamodb: {
    Keys: { pk: { S: key.pk }, sk: { S: key.sk } },
    SequenceNumber: position,
    ...(old && { OldImage: toRow(old) }),
    ...(next && { NewImage: toRow(next) }),
  },
});
