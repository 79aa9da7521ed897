import type { Task } from "./types.ts";

export interface Problem {
  status: number;
  code: string;
  title?: string;
  detail?: string;
  errors?: { path: string; message: string }[];
  requestId?: string;
}

/** The server answered with a problem (RFC 9457). */
export class WaggleApiError extends Error {
  override readonly name = "WaggleApiError";
  readonly status: number;
  /** One of the declared errors, e.g. `task.not_found`. */
  readonly code: string;
  readonly detail: string;
  /** One entry a wrong field. */
  readonly errors: readonly { path: string; message: string }[];
  readonly requestId: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  /** The whole problem, with what this error alone carries. */
  readonly problem: Readonly<Record<string, unknown>>;
  constructor(problem: Problem, retryAfterSeconds?: number) {
    const fields = (problem.errors ?? []).map((error) => `${error.path || "body"}: ${error.message}`).join("; ");
    const detail = problem.detail ?? problem.title ?? problem.code;
    super(fields && !detail.includes(fields) ? `${detail} (${fields})` : detail);
    this.status = problem.status;
    this.code = problem.code;
    this.detail = detail;
    this.errors = problem.errors ?? [];
    this.requestId = problem.requestId;
    this.retryAfterSeconds = retryAfterSeconds;
    this.problem = { ...problem };
  }
}

type ConnectionCode = "client.unreachable" | "client.timeout" | "client.bad_address";

/** No answer: the server cannot be reached, did not answer in time, or its address is none. */
export class WaggleConnectionError extends Error {
  override readonly name = "WaggleConnectionError";
  readonly code: ConnectionCode;
  constructor(code: ConnectionCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** The task ended otherwise than `completed`; `code` and `message` are what the agent or Waggle recorded. */
export class WaggleTaskError extends Error {
  override readonly name = "WaggleTaskError";
  readonly code: string;
  readonly task: Task;
  constructor(task: Task) {
    super(task.error?.message || `task ${task.id} ended ${task.status}`);
    this.code = task.error?.code ?? `task.${task.status}`;
    this.task = task;
  }
}

/** Thrown by a handler to end its task at once, without another attempt. */
export class NonRetryableError extends Error {
  override readonly name = "NonRetryableError";
  readonly code: string;
  readonly retryable = false;
  constructor(message: string, options: { code?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = options.code ?? "non_retryable";
  }
}

/** Says nothing of the call: the same one may be taken later. */
export const isPassing = ({ status = 500, code }: { readonly status?: number; readonly code?: string }): boolean =>
  status >= 500 || status === 429 || code === "task.conflict" || code === "agent.conflict";

/** Said by Waggle itself, and not by something in between, as a proxy. */
export const isOwnWord = ({ code }: { readonly code: string }): boolean => !/^(http|client)\./.test(code);

/** Reads a problem+json answer; anything else (a proxy's page) becomes a problem of the same status. */
export function toApiError(
  status: number,
  text: string,
  header: (name: string) => string | null | undefined,
): WaggleApiError {
  const after = header("retry-after");
  const retryAfterSeconds = after ? retryAfter(after, Date.now()) : undefined;
  let problem: Problem | undefined;
  try {
    const parsed = JSON.parse(text) as Partial<Problem> | null;
    if (parsed && typeof parsed === "object" && typeof parsed.code === "string")
      problem = { ...parsed, code: parsed.code, status };
  } catch {
    // not JSON: answered by something in between
  }
  const requestId = header("x-request-id");
  problem ??= {
    status,
    code: `http.${status}`,
    detail: `the server answered ${status}${text ? `: ${said(text)}` : ""}`,
    ...(requestId ? { requestId } : {}),
  };
  return new WaggleApiError(problem, retryAfterSeconds);
}

/** The words of a page, as far as they fit into a message. */
const said = (text: string): string =>
  text
    .slice(0, 10_000)
    .replace(/<(style|script|title)\b[\s\S]*?<\/\1>|<[^>]*>/gi, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, 200);

/** `Retry-After` as seconds from now: a number or an HTTP date (RFC 9110, 10.2.3). */
export function retryAfter(value: string, now: number): number | undefined {
  const seconds = /^\s*\d+(\.\d+)?\s*$/.test(value) ? Number(value) : (Date.parse(value) - now) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}
