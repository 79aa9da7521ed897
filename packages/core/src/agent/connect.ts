import { delivered } from "../delivery/error.ts";
import { isCalled } from "../delivery/schema.ts";
import { requestErrors } from "../error.ts";
import { hasConnection } from "../match/connection.ts";
import { serveAgent } from "../match/dispatch.ts";
import { endConnection, open, setConnection } from "../match/open.ts";
import { toAssignment } from "../match/push.ts";
import type { Scope } from "../scope.ts";
import { takeBack } from "../task/end.ts";
import type { Assignment } from "../task/schema.ts";
import { commands, heldTasks } from "./commands.ts";
import { refuseStopped, stopped } from "./error.ts";
import { seen } from "./liveness.ts";
import { change, read } from "./manage.ts";
import { type AgentMessage, agentChannel, send } from "./message.ts";
import { back, isCarried, leaseUntil, toInfo } from "./row.ts";
import type { Commands, Info } from "./schema.ts";

export interface Connection {
  readonly agent: Info;
  readonly commands: Commands;
  /** Ends it; the agent keeps its leases until they run out. */
  disconnect(): Promise<void>;
}

/**
 * A live connection of an agent: work and commands are pushed, once durable. A second connection replaces the first.
 * Tasks the agent does not name in `holding` are given to others if they had begun, and pushed again if not.
 */
export async function connect(
  scope: Scope,
  id: string,
  options: {
    readonly connectionId: string;
    readonly holding?: readonly { readonly taskId: string; readonly fence: number }[] | undefined;
    push(message: AgentMessage): void;
  },
): Promise<Connection> {
  if (scope.ports.shared) return connectShared(scope, id, options);
  await seen(scope, id);
  const directory = await open(scope.ports, scope.tenant);
  const row = await read(scope, id);
  const member = directory.members.get(id);
  if (!member || row.state === "stopped") throw stopped(`agent ${row.name} is stopped; register it again`);
  if (isCalled(row)) throw delivered(row);
  const { live } = scope.ports;
  const channel = agentChannel(scope.tenant, id);
  const replaced = `${channel}/connection`;
  const holds = await takeBackForgotten(scope, id, options.holding);

  let open_ = true;
  const off = live.subscribe(channel, (message: AgentMessage) => options.push(message));
  const offReplaced = live.subscribe(replaced, () => {
    // Of two that came together each hears of the other: the last of them stays.
    if (hasConnection(scope.ports, scope.tenant, id, options.connectionId)) return;
    close();
    options.push({ stop: true, reason: replacedReason });
  });
  const close = () => {
    if (!open_) return false;
    open_ = false;
    off();
    offReplaced();
    return true;
  };
  const disconnect = async () => {
    if (close()) await endConnection(scope.ports, scope.tenant, id, options.connectionId);
  };
  try {
    await setConnection(scope.ports, scope.tenant, id, options.connectionId);
    live.publish(replaced, {});
    const again = (await heldTasks(scope, id)).filter(
      (task) => task.status === "assigned" && holds.get(task.id) !== task.fence,
    );
    if (again.length > 0)
      options.push({ assign: await Promise.all(again.map((task) => toAssignment(scope, task, member))) });
    const told = await commands(scope, id);
    await serveAgent(scope, id);
    return { agent: toInfo(member.row), commands: told, disconnect };
  } catch (error) {
    // Nobody else knows of it: work would go to a connection that does not stand.
    await disconnect().catch(() => {});
    throw error;
  }
}

const replacedReason = "the agent connected anew";
export const tokenVoid = "the token is no longer valid";

/**
 * The agent's connection, on a shared store: noted on its row, so that any process reaches it by `tell`. The one it had
 * before is told to stop.
 * @returns what it was given before and has not begun, beside what it holds: to be pushed again
 * @throws `agent.not_found`, `agent.stopped`, `auth.required`
 */
export async function attach(
  scope: Scope,
  id: string,
  options: {
    readonly connectionId: string;
    /** A gateway carries it, and ends it then at the latest. */
    readonly carriedUntil?: number | undefined;
    /** Of the token it was opened with, which may have been replaced since. */
    readonly tokenHash?: string | undefined;
    readonly holding?: readonly { readonly taskId: string; readonly fence: number }[] | undefined;
  },
): Promise<{ readonly agent: Info; readonly commands: Commands; readonly again: Assignment[] }> {
  const { connectionId, carriedUntil, tokenHash } = options;
  let before: string | undefined;
  const row = await change(scope, id, (row, now) => {
    if (tokenHash !== undefined && row.tokenHash !== tokenHash) throw requestErrors.unauthenticated(tokenVoid);
    refuseStopped(row);
    if (isCalled(row)) throw delivered(row);
    before = row.connectionId;
    return {
      connectionId,
      carriedUntil,
      lastSeenAt: now,
      expiresAt: leaseUntil(row, now, carriedUntil),
      ...back(row, now),
    };
  });
  if (before !== undefined && before !== connectionId)
    send(scope.ports, before, { stop: true, reason: replacedReason });
  const holds = await takeBackForgotten(scope, id, options.holding);
  const again = (await heldTasks(scope, id)).filter(
    (task) => task.status === "assigned" && holds.get(task.id) !== task.fence,
  );
  return {
    agent: toInfo(row),
    commands: await commands(scope, id),
    again: await Promise.all(again.map((task) => toAssignment(scope, task, { row }))),
  };
}

/**
 * The connection has ended. `gone`: something sent to it did not arrive, so what was assigned and has not begun is given to
 * others, or sent again when the agent has another connection by now. What it runs it keeps until its lease runs out.
 */
export async function detach(scope: Scope, id: string, connectionId: string, { gone = false } = {}): Promise<void> {
  const row = await change(scope, id, (row, now) =>
    row.connectionId === connectionId
      ? {
          connectionId: undefined,
          carriedUntil: undefined,
          ...(isCarried(row, now) && { expiresAt: now + row.leaseSeconds * 1000 }),
        }
      : undefined,
  );
  if (!gone) return;
  if (row.connectionId === undefined) {
    await takeBack(scope, id, "released", "its connection is gone", (task) => task.status !== "assigned");
    return;
  }
  const unsure = (await heldTasks(scope, id)).filter((task) => task.status === "assigned");
  if (unsure.length > 0)
    send(scope.ports, row.connectionId, {
      assign: await Promise.all(unsure.map((task) => toAssignment(scope, task, { row }))),
    });
}

/** A connection that this process holds itself, on a shared store. */
async function connectShared(scope: Scope, id: string, options: Parameters<typeof connect>[2]): Promise<Connection> {
  const { connectionId, push } = options;
  const { live } = scope.ports;
  const channel = agentChannel(scope.tenant, id);
  const replaced = `${channel}/connection`;
  let over = false;
  const off = live.subscribe(channel, push);
  let offReplaced = () => {};
  const close = () => {
    if (over) return false;
    over = true;
    off();
    offReplaced();
    return true;
  };
  const look = async () => {
    if ((await read(scope, id)).connectionId !== connectionId && close()) push({ stop: true, reason: replacedReason });
  };
  try {
    const { agent, commands, again } = await attach(scope, id, options);
    // Of two that came together each hears of the other: the one that the row names stays.
    offReplaced = live.subscribe(replaced, () => void look().catch(() => {}));
    live.publish(replaced, {});
    if (again.length > 0) push({ assign: again });
    await serveAgent(scope, id);
    return {
      agent,
      commands,
      async disconnect() {
        if (close()) await detach(scope, id, connectionId);
      },
    };
  } catch (error) {
    close();
    // Its row may name it by now.
    await detach(scope, id, connectionId).catch(() => {});
    throw error;
  }
}

/** An agent came back: what it had begun and does not name is given to others. @returns what it holds: fences by task */
async function takeBackForgotten(
  scope: Scope,
  id: string,
  holding: readonly { readonly taskId: string; readonly fence: number }[] = [],
): Promise<ReadonlyMap<string, number>> {
  const holds = new Map(holding.map(({ taskId, fence }) => [taskId, fence]));
  await takeBack(
    scope,
    id,
    "lost",
    "its agent came back without it",
    (task) => holds.get(task.id) === task.fence || task.status === "assigned",
  );
  return holds;
}
