import { requestErrors } from "./error.ts";
import { checkKey, type Item, type RowKey, type Store, storeLimits } from "./port/index.ts";
import type { Scope } from "./scope.ts";

/** Every row of a partition, a page at a time. */
export async function* pages(store: Store, pk: string, limit: number): AsyncGenerator<readonly Item[]> {
  for (let after: string | undefined; ; ) {
    const page = await store.query({ pk, limit, ...(after !== undefined && { after }) });
    if (page.items.length > 0) yield page.items;
    if (page.last === undefined) return;
    after = page.last;
  }
}

/** Any number of rows, in the order of their keys. */
export async function getAll(store: Store, keys: readonly RowKey[]): Promise<(Item | undefined)[]> {
  const { batchGetKeys } = storeLimits;
  const items: (Item | undefined)[] = [];
  for (let i = 0; i < keys.length; i += batchGetKeys)
    items.push(...(await store.batchGet(keys.slice(i, i + batchGetKeys))));
  return items;
}

/** The newest rows of several partitions whose sort keys are ids. */
export async function newest(
  scope: Scope,
  partitions: readonly string[],
  limit: number,
  after?: string,
): Promise<Item[]> {
  const found = await Promise.all(
    partitions.map((pk) =>
      scope.ports.store.query({ pk, reverse: true, limit, ...(after !== undefined && { after }) }),
    ),
  );
  return found
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

/** The longest of them names a key of 256 characters, of which each takes nine before it is written in base 64. */
export const cursorCharacters = 4096;

/** @throws `request.invalid` for a text that this list did not give */
export function decodeCursor(list: List, cursor: string): string {
  try {
    const text = atob(cursor);
    if (text.startsWith(`${list}:`) && /^[\x21-\x7e]+$/.test(text)) {
      const sk = decodeURIComponent(text.slice(list.length + 1));
      // DynamoDB does not begin at what cannot be a key.
      checkKey({ pk: "-", sk });
      return sk;
    }
  } catch {}
  throw badCursor();
}

export const badCursor = () =>
  requestErrors.invalid("the cursor is not one this list gave", {
    errors: [{ path: "cursor", message: "pass nextCursor of the last page" }],
  });
