import { setTimeout as sleep } from "node:timers/promises";

interface Options {
  readonly seconds?: number;
  readonly everyMs?: number;
}

/**
 * Asks again until `look` answers something that is not false, undefined or an exception, and gives that back.
 * @throws after `seconds` (default 10), with what the last look said
 */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | false | undefined> | T | false | undefined,
  { seconds = 10, everyMs = 25 }: Options = {},
): Promise<T> {
  const end = performance.now() + seconds * 1000;
  let last: unknown;
  for (;;) {
    try {
      const seen = await look();
      if (seen !== false && seen !== undefined) return seen;
      last = seen;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= end) break;
    await sleep(everyMs);
  }
  const said = last instanceof Error ? last.message : String(last);
  throw new Error(`not within ${seconds} s: ${what} (last: ${said})`, { cause: last });
}

/** Asks again until `check` throws no more, and gives back what it answers. @throws after 8 s, with what it threw last */
export async function untilPasses<T>(check: () => T | Promise<T>): Promise<T> {
  const look = async () => ({ passed: await check() });
  return (await eventually("the check passes", look, { seconds: 8, everyMs: 10 })).passed;
}
