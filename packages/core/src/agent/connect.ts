import { open, setConnection } from "../match/directory.ts";
import { agentChannel, serveAgent, toAssignment } from "../match/dispatch.ts";
import type { Scope } from "../scope.ts";
import { takeBack } from "../task/end.ts";
import type { Assignment } from "../task/schema.ts";
import { commands, heldTasks } from "./commands.ts";
import { stopped } from "./error.ts";
import { seen } from "./liveness.ts";
import { read } from "./manage.ts";
import { toInfo } from "./row.ts";
import type { Commands, Info } from "./schema.ts";

export type AgentMessage =
  | { readonly assign: Assignment[] }
  | { readonly cancel: string[] }
  | { readonly pause: boolean }
  | { readonly drain: boolean }
  | { readonly revoked: string[] }
  | { readonly stop: true; readonly reason: string };

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
  await seen(scope, id);
  const directory = await open(scope.ports, scope.tenant);
  const row = await read(scope, id);
  const member = directory.members.get(id);
  if (!member || row.state === "stopped") throw stopped(`agent ${row.name} is stopped; register it again`);
  const { live } = scope.ports;
  const channel = agentChannel(scope.tenant, id);
  const replaced = `${channel}/connection`;
  const holds = new Map((options.holding ?? []).map(({ taskId, fence }) => [taskId, fence]));
  await takeBack(
    scope,
    id,
    "lost",
    "its agent came back without it",
    (task) => holds.get(task.id) === task.fence || task.status === "assigned",
  );

  let open_ = true;
  const off = live.subscribe(channel, (message: AgentMessage) => options.push(message));
  const offReplaced = live.subscribe(replaced, (message: { connectionId: string }) => {
    if (message.connectionId === options.connectionId) return;
    close();
    options.push({ stop: true, reason: "the agent connected anew" });
  });
  const close = () => {
    if (!open_) return false;
    open_ = false;
    off();
    offReplaced();
    return true;
  };
  live.publish(replaced, { connectionId: options.connectionId });
  await setConnection(scope.ports, scope.tenant, id, options.connectionId, true);
  const again = (await heldTasks(scope, id)).filter(
    (task) => task.status === "assigned" && holds.get(task.id) !== task.fence,
  );
  if (again.length > 0)
    options.push({ assign: await Promise.all(again.map((task) => toAssignment(scope, task, member))) });
  const told = await commands(scope, id);
  await serveAgent(scope, id);
  return {
    agent: toInfo(member.row),
    commands: told,
    async disconnect() {
      if (close()) await setConnection(scope.ports, scope.tenant, id, options.connectionId, false);
    },
  };
}
