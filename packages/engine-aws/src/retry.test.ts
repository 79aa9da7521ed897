import { describe, expect, test } from "vitest";
import { createCaller, defaultPolicy, judge, within } from "./retry.ts";

const named = (name: string, more: object = {}) => Object.assign(new Error(name), { name, ...more });
const reasons = (...codes: string[]) =>
  named("TransactionCanceledException", { CancellationReasons: codes.map((Code) => ({ Code })) });
const policy = { ...defaultPolicy, baseMs: 1, capMs: 2 };
const caller = (more: object = {}, check = () => {}) => createCaller({ ...policy, ...more }, check);

test.each([
  [named("ProvisionedThroughputExceededException"), "throttled"],
  [named("ThrottlingException"), "throttled"],
  [named("SlowDown", { $metadata: { httpStatusCode: 503 } }), "throttled"],
  [named("TransactionConflictException"), "conflict"],
  [named("TransactionInProgressException", { $metadata: { httpStatusCode: 400 } }), "unsure"],
  [reasons("None", "TransactionConflict"), "conflict"],
  [reasons("ThrottlingError", "TransactionConflict"), "throttled"],
  [reasons("ConditionalCheckFailed", "TransactionConflict"), "final"],
  [reasons("ValidationError"), "final"],
  [named("InternalServerError", { $metadata: { httpStatusCode: 500 } }), "unsure"],
  [named("TimeoutError"), "unsure"],
  [named("AbortError"), "unsure"],
  [named("Error", { code: "ECONNRESET" }), "unsure"],
  [named("ConditionalCheckFailedException", { $metadata: { httpStatusCode: 400 } }), "final"],
  [named("ValidationException"), "final"],
])("takes %s for %s", (error, verdict) => {
  expect(judge(error)).toBe(verdict);
});

describe("a call", () => {
  test("is tried until it works, and knows when an earlier try may have been done", async () => {
    const failures = [named("ThrottlingException"), named("TimeoutError"), named("ThrottlingException")];
    const unsure: boolean[] = [];
    const answer = await caller().call("store", async (each) => {
      unsure.push(each.unsure);
      const failure = failures.shift();
      if (failure) throw failure;
      return "done";
    });
    expect([answer, unsure]).toEqual(["done", [false, false, true, true]]);
  });

  test("gives up with its budget, typed, saying when to come again", async () => {
    let tries = 0;
    const call = caller({ budgetMs: 400 }).call("queue", async () => {
      tries++;
      throw named("ThrottlingException");
    });
    await expect(call).rejects.toMatchObject({ code: "queue.unavailable", extra: { retryAfterSeconds: 1 } });
    expect(tries).toBeGreaterThan(2);
  });

  test("gives up with the invocation, though its own budget is larger", async () => {
    const call = () =>
      caller().call("bus", async () => {
        throw named("TimeoutError");
      });
    await expect(within(30, call)).rejects.toMatchObject({ code: "bus.unavailable" });
    await expect(within(-1, call)).rejects.toMatchObject({ code: "bus.unavailable" });
  });

  test("ends a try that hangs", async () => {
    let tries = 0;
    const answer = await caller({ attemptMs: 20 }).call("store", async ({ signal }) => {
      if (++tries === 2) return "done";
      return await new Promise<string>((_, reject) => {
        signal.addEventListener("abort", () => reject(named("AbortError")));
      });
    });
    expect([answer, tries]).toEqual(["done", 2]);
  });

  test("throws what is wrong with the request as it is, and what is wrong with the deployment as unavailable", async () => {
    const wrong = named("ValidationException");
    const thrown = (error: Error) =>
      caller().call("store", async () => {
        throw error;
      });
    await expect(thrown(wrong)).rejects.toBe(wrong);
    await expect(thrown(named("ResourceNotFoundException"))).rejects.toMatchObject({ code: "store.unavailable" });
    await expect(thrown(named("AccessDeniedException"))).rejects.toMatchObject({ code: "store.unavailable" });
  });

  test("is not tried again once the engine is closed", async () => {
    let closed = false;
    const check = () => {
      if (closed) throw named("closed");
    };
    const call = caller({}, check).call("store", async () => {
      closed = true;
      throw named("ThrottlingException");
    });
    await expect(call).rejects.toMatchObject({ name: "closed" });
  });
});

describe("a call that takes its entries in part", () => {
  test("is repeated for the rest alone, until all are taken", async () => {
    const given: number[][] = [];
    await caller().callRest("store", [1, 2, 3, 4, 5], async (rest) => {
      given.push([...rest]);
      if (given.length === 2) throw named("ThrottlingException");
      return { rest: rest.slice(2) };
    });
    expect(given).toEqual([[1, 2, 3, 4, 5], [3, 4, 5], [3, 4, 5], [5]]);
  });

  test("gives up, saying what the service said", async () => {
    const call = caller({ budgetMs: 20 }).callRest("bus", [1], async (rest) => ({ rest, cause: new Error("busy") }));
    await expect(call).rejects.toMatchObject({ code: "bus.unavailable", message: expect.stringContaining("busy") });
  });
});
