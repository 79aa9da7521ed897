import * as AgentRow from "../agent/row.ts";
import { type Status, statuses } from "../agent/schema.ts";

export interface Counted {
  status: Status;
  role: string;
  slots: number;
  used: number;
}

/** What is counted of an agent. */
interface Countable {
  readonly row: AgentRow.Row;
  readonly maxConcurrency: number;
  readonly used: number;
  /** As it stands in the tally; undefined when it does not. */
  counted: Counted | undefined;
}

/** Agents by status and role, and their slots: kept as they change, so that telling costs the same with any number of them. */
export interface Tally {
  readonly byStatus: Record<Status, number>;
  readonly byRole: Map<string, number>;
  slots: number;
  used: number;
}

export const createTally = (): Tally => ({
  byStatus: Object.fromEntries(statuses.map((status) => [status, 0])) as Record<Status, number>,
  byRole: new Map(),
  slots: 0,
  used: 0,
});

/** Call after any change of the agent. */
export function recount(tally: Tally, agent: Countable): void {
  const status = AgentRow.statusOf(agent.row, agent.used);
  const role = agent.row.role ?? "none";
  const { counted } = agent;
  if (counted?.status === status && counted.role === role) {
    tally.slots += agent.maxConcurrency - counted.slots;
    tally.used += agent.used - counted.used;
    counted.slots = agent.maxConcurrency;
    counted.used = agent.used;
    return;
  }
  uncount(tally, agent);
  agent.counted = { status, role, slots: agent.maxConcurrency, used: agent.used };
  add(tally, agent.counted, 1);
}

/** Call when the agent has gone. */
export function uncount(tally: Tally, agent: Countable): void {
  if (agent.counted) add(tally, agent.counted, -1);
  agent.counted = undefined;
}

function add(tally: Tally, { status, role, slots, used }: Counted, sign: 1 | -1): void {
  tally.byStatus[status] += sign;
  const left = (tally.byRole.get(role) ?? 0) + sign;
  if (left > 0) tally.byRole.set(role, left);
  else tally.byRole.delete(role);
  tally.slots += sign * slots;
  tally.used += sign * used;
}
