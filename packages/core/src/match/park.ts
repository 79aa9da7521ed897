import type { Item, Put, Refusal, RowKey, Write } from "../port/index.ts";
import { fairKey, gateKey, gatePartition, laneKey, lanePartition } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { advance, type Row } from "../task/row.ts";
import { type Directory, probeLimit } from "./directory.ts";
import * as Gate from "./gate.ts";
import { arrived, type Lane } from "./lane.ts";
import { placeInOrder } from "./larger.ts";
import { refusal } from "./requirement.ts";
import * as Shared from "./shared.ts";

/** What else goes into the transaction that stores a task that is new. */
export interface Fresh {
  readonly others: readonly Write[];
  /** It can be stored no more: it is there already, or one of `others` was refused. */
  refused?: true;
}

/** The task is there already, or one of the others was refused: no further try can help. */
export function noteRefusal(fresh: Fresh, reasons: readonly (Refusal | undefined)[]): void {
  const others = reasons.slice(reasons.length - fresh.others.length);
  if (reasons[0] || others.some((reason) => reason !== undefined)) fresh.refused = true;
}

/** @returns where it waits, or nothing when others changed the task meanwhile */
export async function parkInLane(
  scope: Scope,
  directory: Directory,
  row: Row,
  lane: Lane,
  fresh?: Fresh,
  head?: string,
): Promise<string | undefined> {
  const { store, clock, shared } = scope.ports;
  if (shared) await Shared.registerLane(scope, lane);
  else if (!lane.registered) {
    await store.write({ put: { ...laneKey(scope.tenant, lane.id), kind: "lane", need: lane.need as never } });
    lane.registered = true;
  }
  const { key, write: passWrite } = await passFor(scope, directory, row, head);
  const now = clock.now();
  const { next, write } = advance(row, {
    parked: key,
    gate: undefined,
    waitingReason: waitingReason(directory, lane, now),
    waitingSince: row.waitingSince ?? now,
  });
  const parked: Item = { pk: lanePartition(scope.tenant, lane.id), sk: key, kind: "parked", taskId: row.id };
  const writes: Write[] = [
    fresh ? { put: next, if: { exists: false } } : write,
    { put: parked },
    ...unpark(scope, row),
  ];
  if (passWrite) writes.push(passWrite);
  if (fresh) writes.push(...fresh.others);
  const result = await store.transact(writes);
  if (!result.ok) {
    if (fresh) noteRefusal(fresh, result.reasons);
    return undefined;
  }
  if (shared) scope.ports.live.publish(Shared.parkedChannel(scope.tenant), {});
  // Empty ones may have been dropped since it was looked up: agents know of those alone that the directory has.
  else arrived(directory.lane(lane.id, lane.need), key);
  return key;
}

/** @returns whether it waits there now: others may have changed the task meanwhile */
export async function parkAtGate(
  scope: Scope,
  directory: Directory,
  row: Row,
  blocked: Gate.Blocked,
): Promise<boolean> {
  const { store, clock } = scope.ports;
  const { key, write: passWrite } = await passFor(scope, directory, row);
  const now = clock.now();
  const gate = gateKey(scope.tenant, blocked.key);
  const { write } = advance(row, {
    parked: key,
    gate: blocked.key,
    waitingReason: blocked.reason,
    waitingSince: row.waitingSince ?? now,
  });
  const parked: Item = { pk: gatePartition(scope.tenant, blocked.key), sk: key, kind: "parked", taskId: row.id };
  const result = await store.transact([
    write,
    { put: parked },
    Gate.waitingWrite(gate, blocked.key, 1),
    ...(passWrite ? [passWrite] : []),
    ...unpark(scope, row),
  ]);
  return result.ok;
}

/** The row by which a task waits: at a limit, or in its lane. */
export const placeOf = (tenant: string, { gate, lane }: Row, parked: string): RowKey => ({
  pk: gate === undefined ? lanePartition(tenant, lane) : gatePartition(tenant, gate),
  sk: parked,
});

/** The writes by which a task waits no more where it did. */
export function unpark({ tenant }: Scope, row: Row): Write[] {
  if (row.parked === undefined) return [];
  return [
    { delete: placeOf(tenant, row, row.parked) },
    ...(row.gate === undefined ? [] : [Gate.waitingWrite(gateKey(tenant, row.gate), row.gate, -1)]),
  ];
}

async function passFor(
  scope: Scope,
  directory: Directory,
  row: Row,
  head?: string,
): Promise<{ key: string; write?: Put }> {
  if (row.parked !== undefined) return { key: row.parked };
  if (scope.ports.shared) return { key: await Shared.passFor(scope, row, head) };
  const { name, pass, key } = await placeInOrder(scope, directory, row);
  directory.setPass(name, pass);
  return {
    key,
    write: { put: { ...fairKey(scope.tenant, name), kind: "fair", pass } },
  };
}

function waitingReason(directory: Directory, lane: Lane, now: number): string {
  if (lane.reason && now - lane.reason.at < 1000) return lane.reason.text;
  let eligible = 0;
  let near: string | undefined;
  let looked = 0;
  for (const member of directory.members.values()) {
    if (++looked > probeLimit) break;
    if (member.row.state === "lost") continue;
    const why = refusal(lane.need, member);
    if (why === undefined) eligible++;
    else near ??= `${member.row.name} ${why}`;
  }
  const text =
    eligible > 0
      ? `${eligible} eligible agent${eligible === 1 ? " is" : "s are"} busy or away`
      : directory.members.size === 0
        ? "no agent is registered"
        : `no eligible agent${near ? `: ${near}` : ""}`;
  lane.reason = { text, at: now };
  return text;
}
