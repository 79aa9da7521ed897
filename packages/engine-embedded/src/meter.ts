import type { Meter } from "@waggle/core";

export type Counts = { -readonly [Name in keyof Meter]: number };

export const createCounts = (): Counts => ({
  writeUnits: 0,
  readUnits: 0,
  storeCalls: 0,
  queueRequests: 0,
  busEvents: 0,
  blobRequests: 0,
});
