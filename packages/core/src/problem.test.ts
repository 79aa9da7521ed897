import { expect, test } from "vitest";
import * as z from "zod/mini";
import { errorKinds, requestErrors } from "./index.ts";
import { parse, toProblem } from "./problem.ts";

test("every declared error is shown by its own status, code and title", () => {
  expect(errorKinds.size).toBeGreaterThan(20);
  for (const kind of errorKinds.values()) {
    const { status, text, retryAfterSeconds } = toProblem(kind("what happened"), "req_1");
    expect(JSON.parse(text)).toEqual({
      type: `urn:waggle:error:${kind.code}`,
      title: kind.title,
      status: kind.status,
      code: kind.code,
      detail: "what happened",
      requestId: "req_1",
    });
    expect(status).toBe(kind.status);
    expect(retryAfterSeconds !== undefined).toBe(status === 429 || status === 503);
  }
});

test("what an error carries is shown beside the problem's members, never over them", () => {
  const error = requestErrors.tooMany("slow down", {
    retryAfterSeconds: 1.2,
    errors: [{ path: "rate", message: "over" }],
    data: { status: "mine", task: { id: "tsk_1" } },
    cause: new Error("secret"),
  });
  const { text, retryAfterSeconds } = toProblem(error, undefined);
  expect(JSON.parse(text)).toMatchObject({ status: 429, task: { id: "tsk_1" }, errors: [{ path: "rate" }] });
  expect(text).not.toContain("secret");
  expect(retryAfterSeconds).toBe(2);
});

test("an internal error says nothing of the inside", () => {
  const { text, status } = toProblem(new Error("ENOENT /var/lib/waggle/data.mdb"), "req_1");
  expect(status).toBe(500);
  expect(text).not.toContain("waggle/data");
});

test.each([
  ["a missing field", z.object({ a: z.string() }), {}, "a", "required: expected string"],
  ["null for a field", z.object({ a: z.string() }), { a: null }, "a", "expected string, received null"],
  [
    "a name among values",
    z.record(z.string().check(z.minLength(1)), z.number()),
    { "": 1 },
    "",
    /^its name: Too small/,
  ],
  ["a union of types", z.object({ a: z.union([z.string(), z.number()]) }), { a: [] }, "a", "expected string or number"],
  [
    "the branch of a union that fits best",
    z.union([z.string().check(z.maxLength(2)), z.number()]),
    "long",
    "",
    "Too big: expected string to have <=2 characters",
  ],
])("names %s", (_, schema: z.ZodMiniType, value, path, message) => {
  expect(() => parse(schema, value)).toThrow(
    expect.objectContaining({
      extra: { errors: [{ path, message: expect.stringMatching(message) }] },
    }),
  );
});

test("names at most twenty wrong fields", () => {
  const many = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`x${i}`, i]));
  expect(() => parse(z.strictObject({}), many)).toThrow(
    expect.objectContaining({ extra: { errors: expect.objectContaining({ length: 20 }) } }),
  );
});
