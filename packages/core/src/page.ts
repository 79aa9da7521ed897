import { requestErrors } from "./error.ts";
import type { Item } from "./port/index.ts";
import type { Scope } from "./scope.ts";

/** The newest rows of several partitions whose sort keys are ids. */
export async function newest(
  scope: Scope,
  partitions: readonly string[],
  limit: number,
  after?: string,
): Promise<Item[]> {
  const pages = await Promise.all(
    partitions.map((pk) =>
      scope.ports.store.query({ pk, reverse: true, limit, ...(after !== undefined && { after }) }),
    ),
  );
  return pages
    .flatMap((page) => page.items)
    .sort((a, b) => (a.sk < b.sk ? 1 : -1))
    .slice(0, limit);
}

type List = "agents" | "tasks" | "dead-letters" | "limits" | "keys" | "export";

/**
 * Cursors are opaque to callers: what is inside may change. They name their list, as a place in one is none in another. Sort keys
 * may hold names people chose, so any character.
 */
export const encodeCursor = (list: List, last: string): string =>
  btoa(`${list}:${encodeURIComponent(last)}`).replaceAll("=", "");

/** @throws `request.invalid` for a text that this list did not give */
export function decodeCursor(list: List, cursor: string): string {
  try {
    const text = atob(cursor);
    if (text.startsWith(`${list}:`) && /^[\x21-\x7e]+$/.test(text))
      return decodeURIComponent(text.slice(list.length + 1));
  } catch {}
  throw requestErrors.invalid("the cursor is not one this list gave", {
    errors: [{ path: "cursor", message: "pass nextCursor of the last page" }],
  });
}
