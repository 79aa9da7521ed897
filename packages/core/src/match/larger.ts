import { fairKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import { type Directory, probeLimit } from "./directory.ts";
import { type Lane, mayWait, peek } from "./lane.ts";
import { freeSlots, type Member } from "./member.ts";
import { parkedKey } from "./place.ts";
import { refusal } from "./requirement.ts";

/*
 * A task that needs several slots is waited for: an agent keeps those it has free until they are enough, rather than give them to what
 * comes later. Where processes share the store only an agent that takes does so; who gives knows nothing of other lanes there.
 */

/** Where the task would wait, if it came to now. Its pass is one higher than the last of its fair key, or than the virtual time. */
export async function placeInOrder({ ports, tenant }: Scope, directory: Directory, row: Row) {
  const name = row.fairKey ?? "";
  let last = directory.passes.get(name);
  if (last === undefined) last = ((await ports.store.get(fairKey(tenant, name)))?.pass as number | undefined) ?? 0;
  const pass = Math.max(last, directory.virtualTime) + 1;
  return { name, pass, key: parkedKey(row.priority, pass, row.id) };
}

/** Lanes of larger tasks whose first comes before this task. */
export async function largerAhead(scope: Scope, directory: Directory, row: Row): Promise<readonly Lane[]> {
  // Nearly always: told without a list made for it, at each submit.
  if (scope.ports.shared || !anyWaits(directory.larger)) return [];
  return largerBefore(scope, directory, row.parked ?? (await placeInOrder(scope, directory, row)).key);
}

function anyWaits(lanes: Iterable<Lane>): boolean {
  for (const lane of lanes) if (mayWait(lane)) return true;
  return false;
}

/** Lanes of larger tasks whose first comes before this place in the order. */
export async function largerBefore(scope: Scope, directory: Directory, key: string): Promise<readonly Lane[]> {
  const ahead: Lane[] = [];
  for (const lane of directory.larger) {
    if (!mayWait(lane)) continue;
    const head = await peek(scope.ports, scope.tenant, lane);
    if (head !== null && head < key) ahead.push(lane);
  }
  return ahead;
}

/** Whether the agent keeps its free slots for the first task of one of these lanes. */
export const keepsSlots = (member: Member, ahead: readonly Lane[]): boolean =>
  ahead.some(({ need }) => need.slots > freeSlots(member) && refusal(need, member) === undefined);

/** The agents to choose from where these tasks come first; undefined: all. */
export const notKept = (ahead: readonly Lane[]): ((member: Member) => boolean) | undefined =>
  ahead.length === 0 ? undefined : (member) => !keepsSlots(member, ahead);

/** The first task of a lane has gone: if it was a larger one, agents that kept slots for it look again, apart from this call. */
export async function lookAgain({ ports, tenant }: Scope, directory: Directory, lane: Lane): Promise<void> {
  const { need } = lane;
  if (need.slots === 1) return;
  const next = await peek(ports, tenant, lane);
  let passed = false;
  for (const other of directory.lanes.values()) {
    if (other === lane || !mayWait(other)) continue;
    const head = other.heads[0] ?? (await peek(ports, tenant, other));
    passed ||= head !== null && (next === null || head < next);
  }
  // Where the next of its lane comes first of all, they keep them for that one.
  if (!passed) return;
  const wanted = (member: Member) => findsWork(directory, member);
  const { found } = directory.candidates({ ...need, slots: 1 }, { wanted, most: probeLimit });
  if (found.length > 0)
    await ports.queues.dispatch.send(found.map(({ id: agentId }) => ({ body: { tenant, agentId } })));
}

/** Without a read: the first task of all it may serve may fit into its free slots. */
function findsWork(directory: Directory, member: Member): boolean {
  let best: Lane | undefined;
  for (const lane of directory.lanesOf(member)) {
    const [head] = lane.heads;
    if (head === undefined) return true;
    if (best === undefined || head < (best.heads[0] as string)) best = lane;
  }
  return best !== undefined && best.need.slots <= freeSlots(member);
}
