/** An error a caller can meet: declared once, feeding code, HTTP, OpenAPI and docs. */
export interface ErrorKind<Code extends string = string> {
  readonly code: Code;
  readonly status: number;
  readonly title: string;
  /** Whether the same call can succeed later as it is. */
  readonly retry: "never" | "later";
  (detail: string, extra?: ErrorExtra): WaggleError;
}

export interface ErrorExtra {
  /** One entry a wrong field; `path` is a JSON path without `$`, e.g. `tasks.0.priority`. */
  readonly errors?: readonly { readonly path: string; readonly message: string }[];
  readonly retryAfterSeconds?: number;
  /** Shown to the caller beside the problem's own members. */
  readonly data?: Readonly<Record<string, unknown>>;
  readonly cause?: unknown;
}

export class WaggleError extends Error {
  override readonly name = "WaggleError";
  readonly kind: ErrorKind;
  readonly extra: ErrorExtra;
  constructor(kind: ErrorKind, detail: string, extra: ErrorExtra) {
    super(detail, extra.cause === undefined ? undefined : { cause: extra.cause });
    this.kind = kind;
    this.extra = extra;
  }
  get code(): string {
    return this.kind.code;
  }
}

/** Every declared error by its code. */
export const errorKinds = new Map<string, ErrorKind>();

/**
 * Declares an error.
 * @example const notFound = defineError("task.not_found", { status: 404, title: "Task not found", retry: "never" })
 */
export function defineError<Code extends string>(
  code: Code,
  options: { status: number; title: string; retry: "never" | "later" },
): ErrorKind<Code> {
  const kind = Object.assign((detail: string, extra: ErrorExtra = {}) => new WaggleError(kind, detail, extra), {
    code,
    ...options,
  }) as ErrorKind<Code>;
  if (errorKinds.has(code)) throw new Error(`error ${code} is declared twice`);
  errorKinds.set(code, kind);
  return kind;
}

export const isError = (value: unknown, kind?: ErrorKind): value is WaggleError =>
  value instanceof WaggleError && (kind === undefined || value.kind === kind);

export const requestErrors = {
  invalid: defineError("request.invalid", { status: 400, title: "Invalid request", retry: "never" }),
  tooLarge: defineError("request.too_large", { status: 413, title: "Request too large", retry: "never" }),
  unsupportedMediaType: defineError("request.unsupported_media_type", {
    status: 415,
    title: "Unsupported media type",
    retry: "never",
  }),
  upgradeRequired: defineError("request.upgrade_required", { status: 426, title: "Upgrade required", retry: "never" }),
  unauthenticated: defineError("auth.required", { status: 401, title: "Authentication required", retry: "never" }),
  forbidden: defineError("auth.forbidden", { status: 403, title: "Not allowed for this key", retry: "never" }),
  notFound: defineError("route.not_found", { status: 404, title: "No such route", retry: "never" }),
  methodNotAllowed: defineError("route.method_not_allowed", {
    status: 405,
    title: "Method not allowed",
    retry: "never",
  }),
  idempotencyMismatch: defineError("idempotency.mismatch", {
    status: 422,
    title: "Idempotency key used for another request",
    retry: "never",
  }),
  idempotencyBusy: defineError("idempotency.in_progress", {
    status: 409,
    title: "The first request with this key is still running",
    retry: "later",
  }),
  tooMany: defineError("request.rate_limited", { status: 429, title: "Too many requests", retry: "later" }),
  notReady: defineError("server.not_ready", { status: 503, title: "Not ready", retry: "later" }),
  internal: defineError("server.internal", { status: 500, title: "Internal error", retry: "later" }),
} as const;

export const storeErrors = {
  itemTooLarge: defineError("store.item_too_large", { status: 413, title: "Row too large", retry: "never" }),
  transactionTooLarge: defineError("store.transaction_too_large", {
    status: 413,
    title: "Transaction too large",
    retry: "never",
  }),
  keyInvalid: defineError("store.key_invalid", { status: 400, title: "Invalid key", retry: "never" }),
  unavailable: defineError("store.unavailable", { status: 503, title: "Storage unavailable", retry: "later" }),
  locked: defineError("store.locked", { status: 503, title: "Data folder in use", retry: "never" }),
  newerFormat: defineError("store.newer_format", {
    status: 503,
    title: "Data written by a newer version",
    retry: "never",
  }),
  queueUnavailable: defineError("queue.unavailable", { status: 503, title: "Queue unavailable", retry: "later" }),
  messageInvalid: defineError("queue.message_invalid", { status: 400, title: "Invalid queue message", retry: "never" }),
  busUnavailable: defineError("bus.unavailable", { status: 503, title: "Event bus unavailable", retry: "later" }),
  patternInvalid: defineError("bus.pattern_invalid", { status: 400, title: "Invalid event pattern", retry: "never" }),
} as const;
