import fc from "fast-check";
import { expect, test } from "vitest";
import { retryAfter, toApiError, WaggleApiError, WaggleConnectionError } from "./error.ts";
import { backoffMs, defaultRetry, mayRetry, withRetry } from "./retry.ts";

const api = (status: number, code = `http.${status}`, after?: number) => new WaggleApiError({ status, code }, after);
const reset = new WaggleConnectionError("client.unreachable", "reset", { code: "ECONNRESET" });
const refused = new WaggleConnectionError("client.unreachable", "refused", { code: "ECONNREFUSED" });

/** Runs a call that fails with these in turn, then succeeds; the waits are noted, not waited. */
function trial(failures: unknown[], options: { repeatable?: boolean; random?: number } = {}) {
  const waits: number[] = [];
  let calls = 0;
  let now = 0;
  const outcome = withRetry(
    async () => {
      const failure = failures[calls++];
      if (failure) throw failure;
      return "done";
    },
    {
      policy: defaultRetry,
      repeatable: options.repeatable ?? true,
      random: () => options.random ?? 0.5,
      sleep: async (ms) => {
        waits.push(ms);
        now += ms;
      },
      now: () => now,
    },
  );
  return outcome.then(
    (value) => ({ value, waits, calls }),
    (error) => ({ error, waits, calls }),
  );
}

test("tries again on 429, 502, 503, 504 and network errors", async () => {
  expect(await trial([api(429), api(502), api(503), api(504), reset, refused])).toMatchObject({
    value: "done",
    calls: 7,
  });
});

test("does not try again what cannot get better", async () => {
  for (const status of [400, 401, 403, 404, 409, 413, 422, 500]) {
    expect(await trial([api(status)])).toMatchObject({ error: { status }, calls: 1 });
  }
});

test("gives up after its time, lucky or not, with the last error", async () => {
  for (const random of [0.01, 0.5, 0.99]) {
    const { error, waits } = (await trial(
      Array.from({ length: 10_000 }, () => api(503)),
      { random },
    )) as { error: WaggleApiError; waits: number[] };
    expect(error).toMatchObject({ status: 503 });
    const waited = waits.reduce((sum, ms) => sum + ms, 0);
    expect(waited).toBeLessThanOrEqual(defaultRetry.forMs);
    expect(waited).toBeGreaterThan(defaultRetry.forMs - defaultRetry.maxMs);
  }
});

test("does not wait for a server that asks for more time than there is", async () => {
  expect(await trial([api(429, "request.rate_limited", 3600)])).toMatchObject({ error: { status: 429 }, calls: 1 });
});

test("waits at least as long as the server asks", async () => {
  expect((await trial([api(429, "request.rate_limited", 3)], { random: 0 })).waits).toEqual([3000]);
});

test("repeats a call that is not repeatable only where it surely had no effect", async () => {
  expect(mayRetry(refused, false)).toBe(true);
  expect(mayRetry(api(503), false)).toBe(true);
  expect(mayRetry(reset, false)).toBe(false);
  expect(mayRetry(api(504), false)).toBe(false);
});

test("comes back when the first call with its idempotency key is still running", () => {
  expect(mayRetry(api(409, "idempotency.in_progress"), true)).toBe(true);
});

test("waits anything from nothing to the step, which doubles up to the most", () => {
  fc.assert(
    fc.property(fc.nat(40), fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), (tried, unit) => {
      const wait = backoffMs(tried, defaultRetry, () => unit);
      expect(wait).toBeGreaterThanOrEqual(0);
      expect(wait).toBeLessThanOrEqual(Math.min(defaultRetry.maxMs, defaultRetry.initialMs * 2 ** tried));
    }),
  );
});

test("stops waiting when the caller aborts, with the caller's reason", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const outcome = withRetry(
    async () => {
      controller.abort(reason);
      throw api(503);
    },
    {
      policy: defaultRetry,
      repeatable: true,
      signal: controller.signal,
      random: Math.random,
      sleep: async () => {},
      now: () => 0,
    },
  );
  await expect(outcome).rejects.toBe(reason);
});

test("reads Retry-After as seconds or as a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  expect(retryAfter("7", now)).toBe(7);
  expect(retryAfter("Thu, 01 Jan 2026 00:00:09 GMT", now)).toBe(9);
  expect(retryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now)).toBe(0);
  expect(retryAfter("soon", now)).toBeUndefined();
});

test("tells which fields of a request were wrong", () => {
  const text = JSON.stringify({
    status: 400,
    code: "request.invalid",
    detail: "the body is invalid",
    errors: [{ path: "priority", message: "too big" }],
    requestId: "req_1",
  });
  expect(toApiError(400, text, () => null)).toMatchObject({
    code: "request.invalid",
    requestId: "req_1",
    errors: [{ path: "priority", message: "too big" }],
    message: "the body is invalid (priority: too big)",
  });
});

test("makes an error of a page that is no problem of ours", () => {
  expect(toApiError(502, "<html>Bad gateway</html>", () => null)).toMatchObject({ status: 502, code: "http.502" });
});
