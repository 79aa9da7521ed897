import { requestErrors } from "../error.ts";
import { type JsonText, readJson } from "../json.ts";

const value: readonly string[] = ["value"];

/** @throws `request.invalid` unless the text is one JSON value that a task could have been given */
export function toPayload(text: string): JsonText {
  try {
    // By itself, because `1,2` would fit between brackets too.
    JSON.parse(text);
  } catch (cause) {
    throw requestErrors.invalid(`not JSON: ${(cause as Error).message}`);
  }
  readJson(`{"value":${text}}`, value);
  return text as JsonText;
}
