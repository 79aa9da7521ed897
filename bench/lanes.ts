import { type Client, payload } from "./systems/system.ts";

/** Makes the calls 0 to `count` - 1, so many at a time; begins none once `seconds` have passed. */
export async function inLanes(
  count: number,
  lanes: number,
  call: (n: number) => Promise<unknown>,
  seconds = Number.POSITIVE_INFINITY,
): Promise<void> {
  const end = performance.now() + seconds * 1000;
  let next = 0;
  const lane = async () => {
    while (next < count && performance.now() < end) await call(next++);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

interface Batch {
  /** The number of the first task. Default 0. */
  readonly from?: number;
  /** Submits no more after that. */
  readonly seconds?: number;
  readonly fairKey?: string;
}

/** Submits `count` tasks with so many calls in flight and answers their ids. */
export async function submitMany(
  client: Client,
  count: number,
  inFlight: number,
  { from = 0, seconds, fairKey }: Batch = {},
): Promise<string[]> {
  const ids: string[] = [];
  const one = async (n: number) => {
    ids[n] = await client.submit(payload(from + n), fairKey);
  };
  await inLanes(count, inFlight, one, seconds);
  return ids;
}
