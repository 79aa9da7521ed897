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

/** Cursors are opaque to callers: what is inside may change. Sort keys may hold names people chose, so any character. */
export const encodeCursor = (last: string): string => btoa(`1:${encodeURIComponent(last)}`).replaceAll("=", "");

/** @throws `request.invalid` for a text that no list gave */
export function decodeCursor(cursor: string): string {
  try {
    const text = atob(cursor);
    if (text.startsWith("1:") && /^[\x21-\x7e]+$/.test(text)) return decodeURIComponent(text.slice(2));
  } catch {}
  throw requestErrors.invalid("the cursor is not one this list gave", {
    errors: [{ path: "cursor", message: "pass nextCursor of the last page" }],
  });
}
