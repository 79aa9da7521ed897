import { policyOf } from "../policy.ts";
import type { Scope } from "../scope.ts";
import { makeRoom, takeOfRate } from "./room.ts";
import { type Amounts, counted } from "./schema.ts";

export type Need = Partial<Amounts> & { readonly submits?: number };

/** Room that was made for something new. */
export interface Room {
  /** It is stored. */
  taken(): void;
  /** Gives back what was not taken. */
  release(): void;
}
const boundless: Room = { taken() {}, release() {} };

/**
 * Makes room for what is about to be stored. In one process no quota is ever exceeded by it and none is refused that fits, but what takes room
 * without asking counts a second later; where others share the store it may be exceeded by what they all store within about two seconds.
 * @param needOf asked only where there is a quota: most tenants have none, and to count bytes takes its time
 * @throws `quota.exceeded`, `quota.throttled`; nothing is changed then
 */
export async function reserve(scope: Scope, needOf: () => Need): Promise<Room> {
  const { quotas } = await policyOf(scope.ports, scope.tenant);
  if (Object.keys(quotas).length === 0) return boundless;
  const need = needOf();
  const names = counted.filter((name) => quotas[name] !== undefined && need[name]);
  const rate = need.submits ? quotas.submits : undefined;
  if (names.length === 0 && rate === undefined) return boundless;
  const room = names.length === 0 ? boundless : await makeRoom(scope, quotas, names, need);
  if (rate === undefined) return room;
  try {
    await takeOfRate(scope, rate, need.submits as number);
  } catch (error) {
    room.release();
    throw error;
  }
  return room;
}
