import type { RowKey as Key } from "@waggle/core";

const beyondBasic = /[\ud800-\uffff]/;

/**
 * A text whose order by UTF-16 units (what `<` compares) is the order of the original's UTF-8 bytes.
 * They differ only between surrogates and U+E000–U+FFFF, so those two ranges change places.
 */
export function sortForm(text: string): string {
  if (!beyondBasic.test(text)) return text;
  let moved = "";
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    moved += String.fromCharCode(unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800);
  }
  return moved;
}

/** The text behind a sort form. */
export function unsorted(order: string): string {
  if (!beyondBasic.test(order)) return order;
  let text = "";
  for (let i = 0; i < order.length; i++) {
    const unit = order.charCodeAt(i);
    text += String.fromCharCode(unit < 0xd800 ? unit : unit < 0xf800 ? unit + 0x800 : unit - 0x2000);
  }
  return text;
}

/** Writes UTF-8 of a key part where LMDB wants it; short plain text without a native call. */
function writeText(text: string, target: Buffer, at: number): number {
  const length = text.length;
  if (length < 64) {
    let i = 0;
    for (; i < length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 127) break;
      target[at + i] = unit;
    }
    if (i === length) return at + length;
  }
  return at + target.write(text, at, "utf8");
}

/** `tail`: one more byte, to name a place beside a row: 0 right after it, 0xff after all that begin so. */
export interface Place extends Key {
  readonly tail?: number;
}

/** Rows lie in LMDB under pk 0x00 sk: the order of the bytes is the order of the keys. */
export const rowKeys = {
  writeKey(key: Place, target: Buffer, at: number): number {
    const middle = writeText(key.pk, target, at);
    target[middle] = 0;
    const end = writeText(key.sk, target, middle + 1);
    if (key.tail === undefined) return end;
    target[end] = key.tail;
    return end + 1;
  },
  /** The sort key only: a query knows its partition. */
  readKey(source: Buffer, start: number, end: number): string {
    let at = start;
    while (source[at] !== 0) at++;
    return source.toString("utf8", at + 1, end);
  },
};
