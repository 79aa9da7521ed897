import type { Ports, Write } from "../port/index.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "../task/row.ts";
import { assigned } from "./assign.ts";
import { openSample } from "./cache.ts";
import { type Choice, pick, pickShared } from "./choice.ts";
import { assign, serveLane, tries } from "./dispatch.ts";
import * as Gate from "./gate.ts";
import { peek } from "./lane.ts";
import type { Member } from "./member.ts";
import { open } from "./open.ts";
import { type Fresh, parkInLane } from "./park.ts";
import { push } from "./push.ts";
import { needOf } from "./requirement.ts";
import * as Shared from "./shared.ts";
import { hold, learnFromRefusal, reserve, takeHeld, unhold } from "./slots.ts";

/**
 * Stores a new task, ready to be done, together with what comes of it: its agent, or its place among the waiting. One
 * transaction, and so no message is needed: a crash leaves both or neither.
 * @param others go along; a condition of theirs may refuse it all
 * @returns undefined when too much changes meanwhile for it to be stored so
 */
export async function admit(
  scope: Scope,
  row: Row,
  others: readonly Write[] = [],
): Promise<"stored" | "refused" | undefined> {
  if (scope.ports.shared) return others.length > 0 ? undefined : admitShared(scope, row);
  const directory = await open(scope.ports, scope.tenant);
  const lane = directory.lane(row.lane, needOf(row));
  const fresh: Fresh = { others };
  for (let attempt = 0; attempt < tries && !fresh.refused; attempt++) {
    const choice =
      (await peek(scope.ports, scope.tenant, lane)) === null ? await pick(scope, directory, row) : undefined;
    if (choice) {
      const next = await assign(scope, directory, row, choice, { fresh });
      if (!next) continue;
      await push(scope, choice.member, [next]);
      return "stored";
    }
    if ((await parkInLane(scope, directory, row, lane, fresh)) === undefined) continue;
    await serveLane(scope, directory, directory.lane(row.lane, needOf(row)));
    return "stored";
  }
  return fresh.refused && "refused";
}

/** `admit` where others take too. It gives the task to somebody who is free, and leaves all else to `dispatch`. */
async function admitShared(scope: Scope, row: Row): Promise<"stored" | "refused" | undefined> {
  const directory = await openSample(scope.ports, scope.tenant);
  if (await Shared.isWaitedIn(scope, directory, row.lane)) return undefined;
  const fresh: Fresh = { others: [] };
  for (let attempt = 0; attempt < admitTries; attempt++) {
    const choice = await pickShared(scope, directory, row);
    if (!choice) return undefined;
    const next = await assign(scope, directory, row, choice, {
      fresh,
      connectionId: choice.member.row.connectionId,
    });
    if (fresh.refused) return "refused";
    if (!next) continue;
    await push(scope, choice.member, [next]);
    return "stored";
  }
  return undefined;
}

/** Somebody waits for the answer meanwhile, and `dispatch` has more patience. */
const admitTries = 3;

/**
 * `admit` of many new tasks whose ids nobody else has, on a shared store: an agent is given all that are its in one write.
 * @returns those that are still to be stored
 */
export async function admitEach(scope: Scope, rows: readonly Row[]): Promise<readonly Row[]> {
  if (!rows.some((row) => admissible(scope.ports, row))) return rows;
  const directory = await openSample(scope.ports, scope.tenant);
  const left: Row[] = [];
  const given = new Map<Member, { row: Row; choice: Choice }[]>();
  /** Lanes whose tasks have to wait. */
  const full = new Map<string, boolean>();
  try {
    for (const row of rows) {
      if (!full.has(row.lane)) full.set(row.lane, await Shared.isWaitedIn(scope, directory, row.lane));
      if (full.get(row.lane) || !admissible(scope.ports, row)) {
        left.push(row);
        continue;
      }
      const choice = await pickShared(scope, directory, row);
      if (choice) {
        hold(directory, choice.member, row.slots);
        given.set(choice.member, [...(given.get(choice.member) ?? []), { row, choice }]);
      } else {
        full.set(row.lane, true);
        left.push(row);
      }
    }
  } catch (error) {
    for (const [member, all] of given) for (const { row } of all) unhold(directory, member, row.slots, false);
    throw error;
  }
  const groups = [...given].flatMap(([member, all]) => chunks(all).map((group) => ({ member, group })));
  const stored = await Promise.all(
    groups.map(async ({ member, group }) => {
      const tasks = group.map(({ row, choice }) => assigned(scope, row, choice).next);
      const slots = await takeHeld(directory, member, tasks, () =>
        reserve(scope, member, tasks, member.row.connectionId),
      );
      if (slots.ok) {
        if (slots.item) directory.set(slots.item as unknown as Member["row"]);
        return { member, tasks };
      }
      learnFromRefusal(directory, member, slots);
      left.push(...group.map(({ row }) => row));
      return { member, tasks: [] };
    }),
  );
  await scope.ports.store.batchWrite(
    stored.flatMap(({ tasks }) => tasks.map((put) => ({ put, if: { exists: false } }))),
  );
  for (const { member, tasks } of stored) await push(scope, member, tasks);
  return left;
}

/** Tasks one write takes the slots for: its expressions have a limit. */
const reservedAtOnce = 25;
const chunks = <T>(list: readonly T[]): T[][] =>
  Array.from({ length: Math.ceil(list.length / reservedAtOnce) }, (_, i) =>
    list.slice(i * reservedAtOnce, (i + 1) * reservedAtOnce),
  );

/**
 * Not with limits, which have to be asked first. On a shared store neither with a key to stick to, which would make it a
 * transaction.
 */
export const admissible = (ports: Ports, row: Row): boolean =>
  row.status === "queued" && !Gate.gated(row) && !(ports.shared && row.stickyKey !== undefined);
