import {
  Agent,
  type Change,
  type ChangeFeed,
  consumers,
  dispatch,
  fire,
  intake,
  type Message,
  outboxKinds,
  type Ports,
  project,
  type Reconciled,
  readDispatch,
  reconcile,
  relay,
  Status,
  sweep,
  systemScope,
  tenantOf,
} from "@waggle/core";
import { type OnError, toLog } from "./log.ts";

export { deliverHandler } from "./deliver.ts";
export type { OnError } from "./log.ts";
export { type SocketAnswer, type SocketEvent, socketHandler } from "./socket.ts";

export interface BatchOutcome {
  /** Ids of the messages to deliver again. */
  readonly failed: readonly string[];
}

/** Each message by itself: one that fails is delivered again, the others are done. */
async function each(
  messages: readonly Message[],
  component: string,
  onError: OnError,
  handle: (message: Message) => Promise<boolean>,
): Promise<BatchOutcome> {
  const failed: string[] = [];
  for (const message of messages) {
    try {
      if (!(await handle(message))) failed.push(message.id);
    } catch (error) {
      onError(component, error);
      failed.push(message.id);
    }
  }
  return { failed };
}

/** Where it is sent first, a message may come before its change so many times; a change that never came needs none. */
const earlySeconds = [0, 0, 1, 5, 30] as const;

/** Handler of the dispatch queue: finds an agent for each task. A task that is not there yet comes again. */
export const dispatchHandler = (ports: Ports, onError: OnError) => {
  Agent.watchConnections(ports);
  return (messages: readonly Message[]) =>
    each(messages, "dispatch", onError, async ({ body }) => {
      const order = readDispatch(body);
      const scope = systemScope(ports, order.tenant, "dispatch");
      if ("agentId" in order) await Agent.serve(scope, order.agentId);
      else if (!(await dispatch(scope, order.id, order.rev)) && ports.shared) {
        // A message that failed is hidden as long as its handler may take; the task is there in a moment.
        const delaySeconds = earlySeconds[order.early];
        if (delaySeconds !== undefined)
          await ports.queues.dispatch.send([
            { body: { tenant: order.tenant, id: order.id, rev: order.rev, early: order.early + 1 }, delaySeconds },
          ]);
      }
      return true;
    });
};

/** Handler of the timers queue: does what is due. */
export const timersHandler = (ports: Ports, onError: OnError) => {
  Agent.watchConnections(ports);
  return (messages: readonly Message[]) =>
    each(messages, "timers", onError, async ({ body }) => {
      await fire(ports, body);
      return true;
    });
};

/**
 * Handler of the intake queue: submits the tasks that rules of EventBridge make of events. What cannot be one goes to the
 * dead letters, and the reason to the log.
 */
export const intakeHandler = (ports: Ports, onError: OnError) => (messages: readonly Message[]) =>
  each(messages, "intake", onError, async ({ body, id }) => {
    await intake(ports, body, id);
    return true;
  });

/** Handler of the change stream: deadlines, dependants, watchers. A throw gives the whole batch again. */
export const outboxHandler = (ports: Ports) => {
  Agent.watchConnections(ports);
  return (changes: readonly Change[]) => relay(ports, changes);
};

/** Projection of the change stream: the event log, lists, counters. */
export const projection = (ports: Ports) => (changes: readonly Change[]) => project(ports, changes);

/** Keeps lists, events and counters as an engine's changes come. @returns ends it */
export const projectChanges = (changes: ChangeFeed, ports: Ports) =>
  changes.project(consumers.views, outboxKinds, tenantOf, projection(ports));

/** Hands an engine's changes to the outbox and its projection. @returns each ends one */
export const followChanges = (changes: ChangeFeed, ports: Ports) => [
  changes.consume(consumers.outbox, outboxKinds, outboxHandler(ports)),
  projectChanges(changes, ports),
];

/** What the minute brought: rows of timers turned into messages, and what was put right. */
export type Minute = { readonly timers: number } & Partial<Reconciled>;

/** Runs each minute: timers of minutes that come near, and what a crash or a lost message left undone. */
export const minuteHandler = (
  ports: Ports,
  onError: OnError = toLog,
  log: (minute: Minute) => void = () => {},
): (() => Promise<Minute>) => {
  Agent.watchConnections(ports);
  return async () => {
    const timers = await sweep(ports);
    const healed = ports.shared ? await reconcile(ports, (error) => onError("reconciler", error)) : {};
    const minute = { timers, ...healed };
    log(minute);
    return minute;
  };
};

/** What scaling goes by: how much waits and for how long, and how many slots there are for it. */
export type Load = Awaited<ReturnType<typeof Status.load>>[number];

/** Runs each minute: says of every tenant what waits and what could serve it, for alarms and for who scales a fleet. */
export const scalingHandler =
  (ports: Ports, log: (load: Load) => void = () => {}) =>
  async (): Promise<readonly Load[]> => {
    const loads = await Status.load(ports);
    for (const load of loads) log(load);
    return loads;
  };
