import { agentKey, stickyKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import { learnRow } from "./cache.ts";
import type { Directory } from "./directory.ts";
import { largerAhead, notKept } from "./larger.ts";
import { freeSlots, type Member } from "./member.ts";
import { needOf, refusal } from "./requirement.ts";
import * as Shared from "./shared.ts";
import { choose, score } from "./strategy.ts";

/** The agent for a task, and why it. */
export interface Choice {
  readonly member: Member;
  readonly decision: NonNullable<Row["decision"]>;
  readonly stickyAgentId?: string | undefined;
}

/** The agent that served the task's sticky key last. */
export const stickyAgentOf = async ({ ports, tenant }: Scope, row: Row): Promise<string | undefined> =>
  row.stickyKey === undefined
    ? undefined
    : ((await ports.store.get(stickyKey(tenant, row.stickyKey)))?.agentId as string | undefined);

/** The best of the agents that are free for a task, by its strategy. */
export async function pick(scope: Scope, directory: Directory, row: Row): Promise<Choice | undefined> {
  const wanted = notKept(await largerAhead(scope, directory, row));
  const { found, free } = directory.candidates(needOf(row), { wanted });
  if (found.length === 0) return undefined;
  let stickyAgentId: string | undefined;
  if (row.stickyKey !== undefined) {
    stickyAgentId = await stickyAgentOf(scope, row);
    let known = stickyAgentId === undefined ? undefined : directory.members.get(stickyAgentId);
    if (scope.ports.shared && stickyAgentId !== undefined && (!known || freeSlots(known) < row.slots)) {
      learnRow(directory, stickyAgentId, await scope.ports.store.get(agentKey(scope.tenant, stickyAgentId)));
      known = directory.members.get(stickyAgentId);
    }
    if (
      known &&
      !found.includes(known) &&
      freeSlots(known) >= row.slots &&
      refusal(needOf(row), known) === undefined &&
      (wanted?.(known) ?? true)
    )
      found.push(known);
  }
  const best = choose(row.strategy, { ...wishOf(row), stickyAgentId }, found, Math.random);
  if (!best) return undefined;
  const member = best.agent as Member;
  const reason = member.id === stickyAgentId ? "it served this sticky key before" : "";
  return {
    member,
    stickyAgentId,
    decision: [
      row.strategy,
      shown(best.score),
      found.length,
      Math.max(free, found.length),
      member.used,
      member.maxConcurrency,
      reason,
    ],
  };
}

/** An agent that came to have room, and took what waited: no other was looked at. */
export const cameFree = (row: Row, member: Member): Choice => ({
  member,
  decision: [
    row.strategy,
    shown(score[row.strategy](wishOf(row), member)),
    1,
    1,
    member.used,
    member.maxConcurrency,
    "it came free while the task waited",
  ],
});

const wishOf = ({ requires = [], labels = [] }: Row) => ({ requires, labels });
const shown = (score: number): number => Math.round(score * 1000) / 1000;

/** `pick` where others change the agents: first among those known to be free, then among those that may be by now. */
export async function pickShared(scope: Scope, directory: Directory, row: Row): Promise<Choice | undefined> {
  const lane = directory.lane(row.lane, needOf(row));
  await Shared.meetNewcomers(scope, directory);
  await Shared.freshenFew(scope, directory, lane);
  const known = await pick(scope, directory, row);
  const now = scope.ports.clock.now();
  if (known || lane.noneAt + Shared.knownMs >= now) return known;
  const since = Shared.sampledSince(directory);
  await Shared.freshen(scope, directory, lane.need, Shared.agentsRead.before, { since });
  const found = await pick(scope, directory, row);
  if (!found) lane.noneAt = now;
  return found;
}
