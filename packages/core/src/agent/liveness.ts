import type { z } from "zod/mini";
import { backSince } from "../away.ts";
import { isCalled } from "../delivery/schema.ts";
import { isError } from "../error.ts";
import { serveAgent } from "../match/dispatch.ts";
import type { Member } from "../match/member.ts";
import { openFor } from "../match/open.ts";
import type { Scope } from "../scope.ts";
import { takeBack } from "../task/end.ts";
import { deliverySeconds } from "../task/row.ts";
import { commands, unnamed } from "./commands.ts";
import { notFound, refuseStopped } from "./error.ts";
import { change, finish, read } from "./manage.ts";
import { heard, leaseUntil, type Row } from "./row.ts";
import type { Commands, Heartbeat } from "./schema.ts";

/**
 * A sign of life. Costs no write until a third of the lease has passed, two thirds where no other process has to see it; brings a lost
 * agent back.
 * @throws `agent.not_found`
 */
export async function seen(scope: Scope, id: string): Promise<void> {
  const { clock, shared } = scope.ports;
  const now = clock.now();
  const directory = await openFor(scope.ports, scope.tenant, id, (row) => heardLately(row, now, shared));
  const member = directory.members.get(id);
  const down = member?.row.state === "lost" || member?.row.probing === true;
  if (member) {
    member.lastSeenAt = now;
    if (!down && heardLately(member.row, now, shared)) return;
  }
  const row = await change(scope, id, (row, at) => (row.state === "stopped" ? undefined : heard(row, at)));
  if (row.state === "active" && (isCalled(row) ? down : member?.connected)) await serveAgent(scope, id);
}

/** As its row says. */
export function heardLately(row: Row, now: number, shared: boolean): boolean {
  const leaseMs = row.leaseSeconds * 1000;
  if (isCalled(row)) return !row.probing && row.state !== "lost" && (row.lastSeenAt ?? 0) > now - leaseMs / 3;
  // One that has taken another's place has a lease before anybody has heard of it.
  if (row.lastSeenAt === undefined || row.expiresAt === undefined) return false;
  return row.expiresAt - now > (leaseMs * (shared ? 2 : 1)) / 3;
}

/** Keeps the agent and its leases alive; answers what it is to do. With `holding`, work it no longer has is given to others. */
export async function heartbeat(scope: Scope, id: string, input: z.output<typeof Heartbeat>): Promise<Commands> {
  await seen(scope, id);
  const row = await read(scope, id);
  refuseStopped(row);
  if (input.holding) {
    // An assignment made less than a lease ago may still be on its way to the agent.
    const recent = scope.ports.clock.now() - row.leaseSeconds * 1000;
    const gone = new Map<string, number>();
    for (const task of await unnamed(scope, row, input.holding))
      if ((task.assignedAt ?? 0) <= recent) gone.set(task.id, task.fence);
    if (gone.size > 0)
      await takeBack(scope, id, "lost", "its agent no longer has it", (task) => gone.get(task.id) !== task.fence);
  }
  return commands(scope, id);
}

/**
 * Does what is due on an agent: one not heard of for a lease is lost, one being removed is stopped.
 * @returns when to look again
 */
export async function timeUp(scope: Scope, id: string): Promise<number | undefined> {
  try {
    return await doDue(scope, id);
  } catch (error) {
    if (isError(error, notFound)) return undefined;
    throw error;
  }
}

async function doDue(scope: Scope, id: string): Promise<number | undefined> {
  const directory = await openFor(scope.ports, scope.tenant, id);
  const member = directory.members.get(id);
  const row = await read(scope, id);
  const now = scope.ports.clock.now();
  if (row.state === "stopped") return undefined;
  if (row.stopAt !== undefined && row.stopAt <= now) {
    await finish(scope, directory, id);
    return undefined;
  }
  // Whoever found it lost may have died before all was taken back. What a called one accepted it keeps.
  if (row.state === "lost" && row.used > 0 && !isCalled(row)) await takeBack(scope, id, "lost", lostReason(row));
  if (row.state === "lost" && row.probeAt !== undefined && row.probeAt <= now) return probe(scope, id);
  if (member && !member.connected && !isCalled(row) && member.lookedAt + unbegunLookMs <= now) {
    member.lookedAt = now;
    if (member.used > 0) await takeBackUnbegun(scope, row);
  }
  if (row.state === "lost" || row.expiresAt === undefined || row.expiresAt > now) return row.deadlineAt;
  return leaseOver(scope, member, row, row.expiresAt);
}

/** A lost agent that is called is tried anew: its next task tells whether it is back. */
async function probe(scope: Scope, id: string): Promise<number | undefined> {
  const tried = await change(scope, id, (current) =>
    current.state === "lost" ? { state: "active", probing: true, probeAt: undefined } : undefined,
  );
  await serveAgent(scope, id);
  return tried.deadlineAt;
}

/** Its lease is over by its row: it is lost, unless it lives by its connection or was heard of since the row was written. */
async function leaseOver(
  scope: Scope,
  member: Member | undefined,
  row: Row,
  expiresAt: number,
): Promise<number | undefined> {
  const { shared, clock } = scope.ports;
  const now = clock.now();
  if (row.used === 0 && row.carriedUntil !== undefined && row.carriedUntil > now) {
    const carried = await change(scope, row.id, (current, at) =>
      current.used === 0 && current.carriedUntil !== undefined
        ? { expiresAt: leaseUntil(current, at, current.carriedUntil) }
        : undefined,
    );
    return carried.deadlineAt;
  }
  if (member && member.waiters.size > 0) member.lastSeenAt = now;
  // Signs of life are written when a third of the lease has passed, and elsewhere nothing is known of the others.
  const sparedUntil = expiresAt + (row.leaseSeconds * 1000) / 3;
  if (shared && sparedUntil > now) return sparedUntil;
  // Heard of since the lease was last written; or nobody could be heard of, because the server was away.
  const heardUntil = Math.max(member?.lastSeenAt ?? 0, backSince(scope.ports)) + row.leaseSeconds * 1000;
  if (!shared && heardUntil > now) {
    const renewed = await change(scope, row.id, (current) => ({
      expiresAt: Math.max(heardUntil, current.expiresAt ?? 0),
    }));
    return renewed.deadlineAt;
  }
  const lost = await change(scope, row.id, (current) =>
    current.expiresAt !== undefined && current.expiresAt <= now && current.state !== "stopped"
      ? { state: "lost" }
      : undefined,
  );
  if (lost.state === "lost") await takeBack(scope, row.id, "lost", lostReason(row));
  return lost.deadlineAt;
}

/** A look reads a list. */
const unbegunLookMs = (deliverySeconds / 3) * 1000;

/**
 * What an agent that asks for work was given and did not begin in this time, nobody may have told it: the answer may have been
 * lost, and not every agent says what it holds.
 */
async function takeBackUnbegun(scope: Scope, { id, leaseSeconds }: Row): Promise<void> {
  const until = scope.ports.clock.now() - Math.max(leaseSeconds, deliverySeconds) * 1000;
  await takeBack(
    scope,
    id,
    "released",
    "its agent did not begin it",
    ({ status, assignedAt }) => status !== "assigned" || Math.max(assignedAt ?? 0, backSince(scope.ports)) > until,
  );
}

const lostReason = ({ name, leaseSeconds }: Row) => `agent ${name} was not heard of for ${leaseSeconds} s`;
