import { en } from "zod/locales";
import type { z } from "zod/mini";
import { isError, requestErrors, type WaggleError } from "./error.ts";
import { withoutSecrets } from "./secret.ts";

/** An error as callers meet it, over HTTP and in frames alike (RFC 9457). */
export interface Problem {
  readonly status: number;
  readonly text: string;
  readonly retryAfterSeconds?: number;
}

export const problemType = "application/problem+json";

/** Anything thrown, as the one error it is shown as: what we do not know is an internal error without details. */
const toError = (thrown: unknown): WaggleError =>
  isError(thrown) ? thrown : requestErrors.internal("something went wrong inside; try again", { cause: thrown });

const shown = ({ path, message }: { readonly path: string; readonly message: string }) => ({
  path: withoutSecrets(path),
  message: withoutSecrets(message),
});

/** @param requestId of the call; left out in answers that several calls share */
export function toProblem(thrown: unknown, requestId: string | undefined): Problem {
  const error = toError(thrown);
  const { kind, extra } = error;
  const text = JSON.stringify({
    ...extra.data,
    type: `urn:waggle:error:${kind.code}`,
    title: kind.title,
    status: kind.status,
    code: kind.code,
    detail: withoutSecrets(error.message),
    ...(extra.errors && { errors: extra.errors.map(shown) }),
    requestId,
  });
  const later = kind.status === 429 || kind.status === 503 ? (extra.retryAfterSeconds ?? 1) : extra.retryAfterSeconds;
  return {
    status: kind.status,
    text,
    ...(later !== undefined && { retryAfterSeconds: Math.max(1, Math.ceil(later)) }),
  };
}

/**
 * What a schema makes of a value.
 * @throws `request.invalid`
 */
export function parse<T>(schema: z.ZodMiniType<T>, value: unknown): T {
  const result = tryParse(schema, value);
  if (result.problem) throw result.problem;
  return result.data;
}

/**
 * As `parse`, for one value among several: what is wrong with it is returned. Only when it is refused is it looked at again with
 * the input in hand, which tells a missing field from a wrong one: keeping the input costs zod 7 µs a task.
 */
export function tryParse<T>(
  schema: z.ZodMiniType<T>,
  value: unknown,
): { readonly data: T; readonly problem?: undefined } | { readonly data?: undefined; readonly problem: WaggleError } {
  const result = schema.safeParse(value);
  if (result.success) return { data: result.data };
  // zod/mini brings no words of its own.
  const told = schema.safeParse(value, { reportInput: true, error: en().localeError });
  return { problem: invalid(told.error?.issues ?? result.error.issues) };
}

/** At most this many wrong fields are named in one answer. */
const errorsShown = 20;

/** What zod found, one entry a wrong field: where it is and what was expected there. */
function invalid(issues: readonly z.core.$ZodIssue[]): WaggleError {
  const errors = issues.flatMap(describe).slice(0, errorsShown);
  const detail = errors.map(({ path, message }) => (path === "" ? message : `${path}: ${message}`)).join("; ");
  return requestErrors.invalid(detail.length > 2048 ? `${detail.slice(0, 2047)}…` : detail, { errors });
}

function describe(issue: z.core.$ZodIssue): { path: string; message: string }[] {
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({ path: path === "" ? key : `${path}.${key}`, message: "unknown field" }));
  if (issue.code === "invalid_key")
    return issue.issues.flatMap(describe).map(({ message }) => ({ path, message: `its name: ${message}` }));
  if (issue.code === "invalid_union" && issue.errors.length > 0) return [{ path, message: alternatives(issue.errors) }];
  if (issue.code === "invalid_type" && issue.input === undefined)
    return [{ path, message: `required: expected ${issue.expected}` }];
  return [{ path, message: issue.message.replace(/^Invalid input: /, "") }];
}

/** Of a union: what any of its members wanted at this place. */
function alternatives(branches: readonly (readonly z.core.$ZodIssue[])[]): string {
  const expected = branches.flatMap((issues) =>
    issues.flatMap((issue) => (issue.path.length === 0 && issue.code === "invalid_type" ? [issue.expected] : [])),
  );
  if (expected.length === branches.length) return `expected ${[...new Set(expected)].join(" or ")}`;
  const fitting = branches.filter((issues) => !issues.some((i) => i.path.length === 0 && i.code === "invalid_type"));
  const first = (fitting[0] ?? branches[0])?.[0];
  return first === undefined ? "does not fit" : (describe(first)[0]?.message ?? "does not fit");
}
