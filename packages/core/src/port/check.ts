import { requestErrors, storeErrors } from "../error.ts";
import { type Outgoing, queueLimits } from "./queue.ts";
import { type RowKey as Key, type Query, storeLimits, type Update, type Write } from "./store.ts";

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

/** The row that a write is about. */
export const rowKeyOf = (write: Write): Key =>
  "put" in write ? write.put : "update" in write ? write.update : "delete" in write ? write.delete : write.check;

/**
 * @param bytes of a row, as far as they are known
 * @throws `store.item_too_large`
 */
export function checkItemBytes(bytes: number): void {
  if (bytes > storeLimits.itemBytes)
    throw storeErrors.itemTooLarge(`the row is ${bytes} bytes; at most ${storeLimits.itemBytes}`);
}

/** @throws `store.transaction_too_large` */
export function checkTransactItems(count: number): void {
  if (count === 0 || count > storeLimits.transactItems)
    throw storeErrors.transactionTooLarge(`a transaction takes 1–${storeLimits.transactItems} writes, not ${count}`);
}

/** @throws `store.transaction_too_large` */
export function checkTransactBytes(bytes: number): void {
  if (bytes > storeLimits.transactBytes)
    throw storeErrors.transactionTooLarge(`the transaction is ${bytes} bytes; at most ${storeLimits.transactBytes}`);
}

/** @throws `store.key_invalid` `request.invalid` */
export function checkBatchGet(keys: readonly Key[]): void {
  if (keys.length > storeLimits.batchGetKeys)
    throw requestErrors.invalid(`a batch get takes at most ${storeLimits.batchGetKeys} keys`);
  keys.forEach(checkKey);
}

/** @throws `store.key_invalid` `request.invalid` */
export function checkQuery({ pk, from, to, prefix, limit }: Query): void {
  checkKey({ pk, sk: "-" });
  if (!(limit >= 1 && limit <= storeLimits.queryItems))
    throw requestErrors.invalid(`a query's limit is 1–${storeLimits.queryItems}`);
  if (prefix !== undefined && (from !== undefined || to !== undefined))
    throw requestErrors.invalid("a query takes a prefix or from and to, not both");
}

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
