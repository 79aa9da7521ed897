import { storeErrors } from "../error.ts";
import { type Outgoing, queueLimits } from "./queue.ts";
import { type RowKey as Key, storeLimits, type Update, type Write } from "./store.ts";

const beyondBasic = /[\ud800-\uffff]/;

/** @throws `store.key_invalid` */
export function checkKey(key: Key): void {
  checkPart(key.pk, "partition", storeLimits.partitionKeyBytes);
  checkPart(key.sk, "sort", storeLimits.sortKeyBytes);
}

function checkPart(text: string, name: string, limit: number): void {
  if (typeof text !== "string" || text.length === 0) throw storeErrors.keyInvalid(`the ${name} key is empty`);
  if (text.length * 3 > limit && Buffer.byteLength(text) > limit) {
    throw storeErrors.keyInvalid(`the ${name} key is longer than ${limit} bytes`);
  }
  if (text.includes("\0")) throw storeErrors.keyInvalid(`the ${name} key has a NUL character`);
  if (beyondBasic.test(text) && !wellFormed(text)) {
    throw storeErrors.keyInvalid(`the ${name} key has half a surrogate pair`);
  }
}

const loneSurrogate = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
const wellFormed = (text: string): boolean => !loneSurrogate.test(text);

/**
 * Whether DynamoDB can do a write only as a transaction, at twice the price: a check, a sum (added twice it would be wrong for
 * ever, and only a transaction knows its second try), a delete with a condition (which leaves nothing to know it by). A sum
 * that makes its own condition false cannot be added twice.
 */
export const isTransactional = (write: Write): boolean =>
  "check" in write ||
  ("delete" in write && write.if !== undefined) ||
  ("update" in write && Object.keys(write.add ?? {}).length > 0 && !isOnce(write));

/** Its condition asks that an attribute is not there and it sets it, or that one has a value and it removes it. */
const isOnce = ({ if: condition, set, remove }: Update): boolean =>
  (condition?.missing?.some((name) => set?.[name] !== undefined) ?? false) ||
  (remove?.some((name) => condition?.equals?.[name] !== undefined) ?? false);

const blobKey = /^[A-Za-z0-9_/-]{1,200}$/;

/** @throws `store.key_invalid` */
export function checkBlobKey(key: string): void {
  if (!blobKey.test(key)) throw storeErrors.keyInvalid("a blob's key is 1–200 characters of A–Z a–z 0–9 _ / -");
}

/**
 * @returns its size in bytes as JSON
 * @throws `queue.message_invalid`
 */
export function checkOutgoing({ body, delaySeconds }: Outgoing): number {
  if (delaySeconds !== undefined && !(delaySeconds >= 0 && delaySeconds <= queueLimits.delaySeconds)) {
    throw storeErrors.messageInvalid(`the delay must be 0–${queueLimits.delaySeconds} seconds`);
  }
  if (body === undefined) throw storeErrors.messageInvalid("the message has no body");
  const bytes = Buffer.byteLength(JSON.stringify(body));
  if (bytes > queueLimits.messageBytes) {
    throw storeErrors.messageInvalid(`the message is ${bytes} bytes; at most ${queueLimits.messageBytes}`);
  }
  return bytes;
}
