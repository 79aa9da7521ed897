import { isError, requestErrors } from "../error.ts";
import { type JsonText, jsonLimits, readJson } from "../json.ts";
import type { OutboundAnswer } from "../port/index.ts";
import * as task from "../task/schema.ts";
import { deliveryOutcome } from "./error.ts";

type Problem = { readonly code: string; readonly message: string; readonly retryable?: boolean | undefined };
type Usage = Readonly<Record<string, number>>;

/** What came of one delivery. */
export type Outcome =
  | { readonly kind: "completed"; readonly result?: JsonText; readonly usage?: Usage }
  | { readonly kind: "failed"; readonly error: Problem; readonly usage?: Usage }
  /** It has the task and will say later what came of it. */
  | { readonly kind: "accepted" }
  /** It will not take the task now. */
  | { readonly kind: "refused"; readonly reason: string }
  /** It may not have it at all. */
  | { readonly kind: "missed"; readonly reason: string; readonly retryAfterSeconds?: number };

const badAnswer = (message: string): Outcome => ({
  kind: "failed",
  error: { code: deliveryOutcome.badAnswer, message: message.slice(0, 1000) },
});

/** What an HTTP answer says: see docs/delivery.md. */
export function fromHttp({ status, body, retryAfterSeconds }: OutboundAnswer): Outcome {
  if (status === 409 || status === 410) return { kind: "refused", reason: `refused by its agent (HTTP ${status})` };
  // Others it may well take: it was reached.
  if (status === 413) return badAnswer("the task is too large for its agent (HTTP 413)");
  if (status < 200 || status > 299) {
    const redirect = status >= 300 && status <= 399 ? "; redirects are not followed" : "";
    return {
      kind: "missed",
      reason: `answered HTTP ${status}${redirect}`,
      ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    };
  }
  if (status === 202 || !isJson(body)) return { kind: "accepted" };
  return judge(body, () => ({ kind: "accepted" }));
}

/** What a function returned: `{result}`, `{error}`, `{accepted: true}`, or any other value, which then is the result. */
export function fromFunction({ payload, error }: { payload: string; error: boolean }): Outcome {
  if (error) return { kind: "failed", error: { code: deliveryOutcome.functionError, message: messageOf(payload) } };
  const text = payload === "" ? "null" : payload;
  if (new TextEncoder().encode(text).length > jsonLimits.bodyBytes)
    return badAnswer(`the function's answer is larger than ${jsonLimits.bodyBytes} bytes`);
  return judge(text, (members) =>
    members?.accepted === true ? { kind: "accepted" } : { kind: "completed", result: text as JsonText },
  );
}

type Members = Readonly<Record<string, unknown>>;

function judge(text: string, otherwise: (members: Members | undefined) => Outcome): Outcome {
  try {
    const value = readJson(text, ["result"]);
    const members = typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Members) : {};
    const usage = members.usage === undefined ? undefined : task.Usage.safeParse(members.usage).data;
    if (members.error !== undefined && members.error !== null) {
      const { code, message, retryable } = members.error as Members;
      // What else the error says is not kept.
      const said = typeof members.error === "object" ? { code, message, retryable } : members.error;
      const problem = task.Problem.safeParse(said);
      if (!problem.success) return badAnswer("its error is not {code, message, retryable?}");
      return { kind: "failed", error: problem.data, ...(usage && { usage }) };
    }
    if (!Object.hasOwn(members, "result")) return otherwise(members);
    return { kind: "completed", result: members.result as JsonText, ...(usage && { usage }) };
  } catch (error) {
    if (isError(error, requestErrors.invalid)) return badAnswer(`its answer cannot be kept: ${error.message}`);
    throw error;
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function messageOf(payload: string): string {
  try {
    const { errorType, errorMessage } = JSON.parse(payload) as Members;
    const parts = [errorType, errorMessage].filter((part) => typeof part === "string" && part !== "");
    if (parts.length > 0) return parts.join(": ").slice(0, 16_000);
  } catch {
    // Not as Lambda writes it: shown as it is.
  }
  return payload.slice(0, 16_000);
}
