import type { Progress, TaskProblem, Usage } from "../types.ts";

/** How an attempt ended. */
export interface Outcome {
  readonly op: "complete" | "fail" | "release";
  /** The members beside the fence, as JSON text: `"result":1`. */
  readonly members: string;
}

/** The largest message the server takes is 1 MiB; the rest of the frame needs a little. */
const maxOutcomeBytes = 1024 * 1024 - 4096;
const maxDetailsBytes = 64 * 1024;
const maxProgressChars = 1024;
/** Below the 64 levels that the server reads of a frame, which is one of them itself. */
const maxDepth = 62;

export const completeOutcome = (result: unknown, usage: Usage | undefined): Outcome => {
  let text: string | undefined;
  let wrong: string | undefined;
  try {
    text = JSON.stringify(result);
    wrong = text && unreadable(text);
  } catch (error) {
    wrong = `no JSON: ${messageOf(error)}`;
  }
  const failed = (code: string, message: string) => failOutcome({ code, message, retryable: false }, usage);
  if (wrong) return failed("result.invalid", `the result is ${wrong}`);
  const large = text && tooLarge(text, maxOutcomeBytes);
  if (large) return failed("result.too_large", `the result is ${large}`);
  const members = text === undefined ? "" : `"result":${text}`;
  return { op: "complete", members: usage ? join(members, usageMember(usage)) : members };
};
export const failOutcome = (error: TaskProblem, usage: Usage | undefined): Outcome => {
  const members = `"error":${proseJson(error)}`;
  return { op: "fail", members: usage ? join(members, usageMember(usage)) : members };
};
/** Gives the task back. */
export const releaseOutcome = (reason: string): Outcome => ({
  op: "release",
  members: `"reason":${proseJson(reason.slice(0, 1024))}`,
});
const usageMember = (usage: Usage) => `"usage":${JSON.stringify(usage)}`;
const join = (first: string, second: string) => (first === "" ? second : `${first},${second}`);

/** In the JSON that `JSON.stringify` makes: half of a character, of which it writes the escape. */
const halves = /((?<!\\)(?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g;

/** As JSON, for people to read: a text that was cut within a character ends with U+FFFD. */
const proseJson = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text.includes("\\ud") ? text.replace(halves, "$1\\ufffd") : text;
};
/** As it travels. What is no JSON throws here, in the handler that says it, and not where its frame is made. */
export const plain = <Value>(value: Value): Value => JSON.parse(proseJson(value)) as Value;

/**
 * Why the server would read no message that holds this payload, whatever else is in it: it would answer none of those
 * frames. Undefined when it would.
 */
function unreadable(json: string): string | undefined {
  if (json.includes("\\ud") && json.search(halves) >= 0)
    return "no JSON: half of a character is in it (a lone surrogate, as of a text that was cut)";
  return isDeep(json) ? `nested deeper than ${maxDepth} levels` : undefined;
}

/** Why the server would not take this progress; undefined when it would. @param details as JSON */
export function refusedProgress(progress: Progress | undefined, details: string | undefined): string | undefined {
  const { message = "" } = progress ?? {};
  if (message.length > maxProgressChars)
    return `progress was not taken: its message has at most ${maxProgressChars} characters`;
  const wrong = details && (unreadable(details) ?? tooLarge(details, maxDetailsBytes));
  return wrong ? `progress was not taken: its details are ${wrong}` : undefined;
}

function isDeep(json: string): boolean {
  if (json.length < 2 * maxDepth) return false;
  let open = 0;
  let quoted = false;
  for (let at = 0; at < json.length; at++) {
    const char = json[at];
    if (char === '"') quoted = !quoted;
    else if (quoted) at += char === "\\" ? 1 : 0;
    else if (char === "{" || char === "[") open++;
    else if (char === "}" || char === "]") open--;
    if (open > maxDepth) return true;
  }
  return false;
}

function tooLarge(json: string, most: number): string | undefined {
  // Three bytes a UTF-16 unit at most: only what is near the limit is counted.
  if (json.length * 3 <= most) return undefined;
  const bytes = Buffer.byteLength(json);
  return bytes > most ? `${bytes} bytes; at most ${most} fit` : undefined;
}

/** Of whatever was thrown: an Error, an object like one, or something of which no text can be made. */
export function messageOf(error: unknown): string {
  try {
    const said = typeof error === "object" && error !== null ? (error as { message?: unknown }).message : undefined;
    return (typeof said === "string" ? said : String(error)).slice(0, 16_000);
  } catch {
    return "the handler threw something without a text";
  }
}

/** What a thrown value says about the failure; a code the server would not take becomes `error`. */
export function toProblem(error: unknown): TaskProblem {
  const { code, name, retryable } = (typeof error === "object" && error !== null ? error : {}) as Record<
    string,
    unknown
  >;
  const wish = typeof code === "string" ? code : typeof name === "string" && name !== "Error" ? name : "error";
  return {
    code: /^[^\p{C}\p{Z}]+( [^\p{C}\p{Z}]+)*$/u.test(wish) && wish.length <= 128 ? wish : "error",
    message: messageOf(error),
    ...(typeof retryable === "boolean" && { retryable }),
  };
}
