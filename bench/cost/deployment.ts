import { createApp } from "@waggle/api";
import {
  base32,
  type Change,
  type Clock,
  consumers,
  Key,
  type Live,
  type Message,
  type Outbound,
  type Ports,
  type Random,
  systemScope,
  tenantOf,
} from "@waggle/core";
import {
  deliverHandler,
  dispatchHandler,
  minuteHandler,
  outboxHandler,
  projection,
  scalingHandler,
  socketHandler,
  timersHandler,
} from "@waggle/edge";
import { applyProjection } from "@waggle/engine-aws";
import { type FunctionName, functions } from "../../infra/manifest.ts";
import { manualClock, processOn } from "../../test/support/system.ts";
import { assumed } from "../prices.ts";
import { openRig, type RigKind } from "./rig.ts";
import { difference, noUnits, times, type Units } from "./units.ts";

const socketMessageBytes = 32 * 1024;
type Queue = "dispatch" | "timers" | "deliver";

/** The same ids in each run, and so the same partitions. */
function repeatable(): Random {
  let state = 1;
  const next = () => {
    // Source of the constants: Numerical Recipes, ranqd1.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return base32[state >>> 27];
  };
  return (length) => Array.from({ length }, next).join("");
}

/** A deployment in small: each function a process of its own on one store, driven as AWS does, each call of it counted. */
export type Deployment = Awaited<ReturnType<typeof deploy>>;

/** @param answer what agents that are called answer */
export async function deploy(kind: RigKind, answer: unknown) {
  const clock = manualClock();
  const rig = await openRig(kind, clock as Clock);
  const errors: unknown[] = [];
  const onError = (_: string, error: unknown) => void errors.push(error);
  const counted = noUnits();
  const live: Live = {
    pollMs: 1000,
    publish(channel, message) {
      if (channel.startsWith("connection/"))
        counted.socketMessages += Math.ceil(Buffer.byteLength(message as string) / socketMessageBytes);
    },
    subscribe: () => () => {},
  };
  const body = JSON.stringify(answer);
  const outbound: Outbound = {
    publicUrl: () => "https://waggle.example.com",
    secretKey: () => undefined,
    check: async () => undefined,
    http: async () => ({ status: 200, body }),
    invoke: async () => ({ payload: body, error: false }),
    send: async () => {},
  };
  const random = repeatable();
  const portsOf = (): Ports =>
    processOn(rig.ports, { live, outbound, random, store: { ...rig.ports.store, projected: () => Promise.resolve() } });
  // Who ends a task knows nothing of what who took it remembers: two instances, by turns.
  const apps = [portsOf(), portsOf()].map((ports) =>
    createApp({ ports, version: "0.0.0", onError: (error) => onError("api", error) }),
  );
  let turn = 0;
  const socket = socketHandler(portsOf(), onError);
  const handlers = {
    dispatch: dispatchHandler(portsOf(), onError),
    timers: timersHandler(portsOf(), onError),
    deliver: deliverHandler(portsOf(), onError),
  };
  const outbox = portsOf();
  const [relay, derive] = [outboxHandler(outbox), projection(outbox)];
  const minute = minuteHandler(portsOf(), onError);
  const scaling = scalingHandler(portsOf());

  const ran = (name: FunctionName, ms: number) => {
    counted.lambdaCalls++;
    counted.lambdaGbSeconds += ((functions[name].memoryMiB / 1024) * ms) / 1000;
  };
  let numbered = 0;
  let hides = 0;
  const total = (): Units => {
    const { writeUnits, readUnits, storeCalls, queueRequests, busEvents } = rig.meter();
    return { ...counted, writeUnits, readUnits, storeCalls, queueRequests: queueRequests + hides, busEvents };
  };
  const { key } = await Key.create(systemScope(portsOf(), "cost", "cost"), { role: "admin" });

  const deployment = {
    clock,
    /** The admin's. */
    key,
    changes: () => rig.changes(),
    /** 1, 2, … */
    number: () => ++numbered,
    /** One request to the API. */
    async call(method: string, path: string, bearer: string, body?: unknown, headers: Record<string, string> = {}) {
      ran("api", method === "POST" && /^\/v1\/tasks(\/batch)?$/.test(path) ? assumed.submitMs : assumed.requestMs);
      const { hono } = apps[turn++ % apps.length] as (typeof apps)[0];
      const request = {
        method,
        headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json", ...headers },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      };
      const response = await hono.request(path, request, { remoteAddress: "192.0.2.1" });
      const text = await response.text();
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text} ${errors.join()}`);
      return text === "" ? undefined : JSON.parse(text);
    },
    /** One message of an agent over its WebSocket. */
    async say(connectionId: string, frame: unknown) {
      counted.socketMessages++;
      ran("socket", assumed.requestMs);
      await socket({ requestContext: { eventType: "MESSAGE", connectionId }, body: JSON.stringify(frame) });
    },
    async connect(connectionId: string, token: string) {
      ran("socket", assumed.requestMs);
      const headers = { "Sec-WebSocket-Protocol": `waggle.v1, bearer.${token}` };
      await socket({ requestContext: { eventType: "CONNECT", connectionId }, headers });
      await deployment.say(connectionId, { op: "hello", re: 1 });
    },
    /** The gateway answers it by itself. */
    ping(): void {
      counted.socketMessages++;
    },
    async disconnect(connectionId: string) {
      ran("socket", assumed.requestMs);
      await socket({ requestContext: { eventType: "DISCONNECT", connectionId } });
    },
    /** What a queue's event source mapping does, until nothing is due. */
    async drain(name: Queue, batch: number): Promise<void> {
      const queue = rig.ports.queues[name];
      for (;;) {
        const messages: Message[] = [];
        // SQS gives fewer than there are, now and then; a mapping with a window asks again.
        while (messages.length < batch && (await queue.depth()).waiting > 0) {
          const more = await queue.receive({ max: batch - messages.length });
          if (more.length === 0) break;
          messages.push(...more);
        }
        if (messages.length === 0) return;
        const { messageMs, agentAnswerMs } = assumed;
        ran(name, name === "deliver" ? agentAnswerMs + messageMs : messageMs * messages.length);
        // `functions/deliver.ts` says that it is still at work.
        if (name === "deliver") hides++;
        const { failed } = await handlers[name](messages);
        if (failed.length > 0) throw new Error(`${name}: ${errors.join()}`);
        await queue.ack(messages.map(({ receipt }) => receipt));
      }
    },
    /** What the stream's event source mapping does with these. */
    async follow(changes: readonly Change[], batch: number = functions.outbox.trigger.batch): Promise<void> {
      for (let i = 0; i < changes.length; i += batch) {
        const part = changes.slice(i, i + batch);
        ran("outbox", assumed.batchMs + assumed.changeMs * part.length);
        await relay(part);
        await applyProjection(outbox.store, consumers.views, tenantOf, derive, part);
      }
    },
    /** What runs each minute. */
    async minute(): Promise<void> {
      ran("minute", assumed.scheduledMs);
      await minute();
      ran("scaling", assumed.scheduledMs);
      await scaling();
    },
    /** What `run` takes, a part of `of`. */
    async count(of: number, run: () => Promise<unknown>): Promise<Units> {
      const before = total();
      await run();
      if (errors.length > 0) throw errors[0];
      return times(difference(total(), before), 1 / of);
    },
    close: () => rig.close(),
  };
  return deployment;
}
