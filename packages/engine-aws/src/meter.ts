import type { Meter } from "@waggle/core";

/** `writeUnits` and `readUnits` are what DynamoDB reported; `modelled` what our own count of the same calls says. */
export interface AwsMeter extends Meter {
  readonly modelled: { readonly writeUnits: number; readonly readUnits: number };
}

export type Counts = ReturnType<typeof createCounts>;

export const createCounts = () => ({
  writeUnits: 0,
  readUnits: 0,
  storeCalls: 0,
  queueRequests: 0,
  busEvents: 0,
  blobRequests: 0,
  modelled: { writeUnits: 0, readUnits: 0 },
});

interface Capacity {
  readonly CapacityUnits?: number | undefined;
}

/** Counts a call by what DynamoDB said it cost, or by our own count where it said nothing, as with a refusal. */
export function charge(
  counts: Counts,
  kind: "writeUnits" | "readUnits",
  modelled: number,
  reported?: Capacity | readonly Capacity[],
): void {
  const list = reported === undefined ? [] : Array.isArray(reported) ? reported : [reported as Capacity];
  const told = list.reduce((sum, each) => sum + (each.CapacityUnits ?? 0), 0);
  counts.storeCalls++;
  counts.modelled[kind] += modelled;
  counts[kind] += told > 0 ? told : modelled;
}
