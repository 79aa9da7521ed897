import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  type CancellationReason,
  DeleteItemCommand,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  type TransactWriteItem,
  TransactWriteItemsCommand,
  UpdateItemCommand,
  type WriteRequest,
} from "@aws-sdk/client-dynamodb";
import {
  checkBatchGet,
  checkItemBytes,
  checkKey,
  checkQuery,
  checkTransactBytes,
  checkTransactItems,
  type Delete,
  type Item,
  isTransactional,
  itemBytes,
  nameBytes,
  type Page,
  type Put,
  type Query,
  type Refusal,
  type RowKey,
  readUnits,
  rowKeyOf,
  type Store,
  storeErrors,
  storeLimits,
  systemRandom,
  type TransactResult,
  type Update,
  valueBytes,
  type Write,
  type WriteResult,
  writeUnits,
} from "@waggle/core";
import type { Clients } from "./clients.ts";
import { both, conditionText, createExpression, notYet, updateText } from "./expression.ts";
import { type Attributes, fromRow, toRow, writeMark } from "./marshal.ts";
import { type Counts, charge } from "./meter.ts";
import type { Caller } from "./retry.ts";

export interface StoreParts {
  readonly table: string;
  readonly clients: Clients;
  readonly caller: Caller;
  readonly counts: Counts;
  readonly check: () => void;
}

const reported = { ReturnConsumedCapacity: "TOTAL" } as const;
const winnerToo = { ReturnValuesOnConditionCheckFailure: "ALL_OLD" } as const;
/** What `~` and its value add to a row. */
const markBytes = 7;
const batchWrites = 25;
const parallelBatches = 8;

const attributeKey = ({ pk, sk }: RowKey): Attributes => ({ pk: { S: pk }, sk: { S: sk } });
const isFresh = (write: Put | Delete): write is Put => "put" in write && write.if !== undefined;
const batchRequest = (write: Put | Delete): WriteRequest =>
  "put" in write ? { PutRequest: { Item: toRow(write.put) } } : { DeleteRequest: { Key: attributeKey(write.delete) } };
const refusalFrom = ({ code, winner }: Refusal): Refusal => (winner === undefined ? { code } : { code, winner });
const idOf = ({ pk, sk }: RowKey): string => `${pk}\0${sk}`;
const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b));
const refusalOf = (row: Attributes | undefined): Refusal =>
  row === undefined || Object.keys(row).length === 0
    ? { code: "condition" }
    : { code: "condition", winner: fromRow(row) };

/**
 * The store on one DynamoDB table.
 *
 * A reply that is lost leaves open whether the write was done. Transactions carry a token, by which DynamoDB knows a second
 * try for ten minutes. Plain writes leave a mark of six characters in the row (`~`, hidden from readers): a second try whose
 * condition fails on a row with its own mark was done by the first. What was overwritten by another plain write between
 * the two tries is judged by the row as it stands, as if both had come after one another. Where that is not good enough a
 * write goes as a transaction at twice the price: a sum, which must be added to once, and a delete with a condition,
 * which leaves no row to carry a mark. Transactions leave the mark of an update's row as it is.
 */
export function createStore({ table, clients, caller, counts, check }: StoreParts): Store {
  const named = { TableName: table };

  async function get(key: RowKey): Promise<Item | undefined> {
    const command = new GetItemCommand({ ...named, ...reported, Key: attributeKey(key), ConsistentRead: true });
    const { Item, ConsumedCapacity } = await caller.call("store", ({ signal }) =>
      clients.dynamo().send(command, { abortSignal: signal }),
    );
    const item = Item === undefined ? undefined : fromRow(Item);
    charge(counts, "readUnits", item === undefined ? 1 : readUnits(itemBytes(item)), ConsumedCapacity);
    return item;
  }

  async function put({ put: item, if: condition }: Put): Promise<WriteResult> {
    const bytes = checkSize(item);
    const mark = bytes + markBytes <= storeLimits.itemBytes ? systemRandom(6) : undefined;
    const expression = createExpression();
    const text = conditionText(condition, expression);
    const command = new PutItemCommand({
      ...named,
      ...reported,
      Item: toRow(item, mark),
      ...(text !== undefined && { ConditionExpression: text, ...winnerToo }),
      ...expression.parts(),
    });
    const modelled = writeUnits(bytes);
    return decided(modelled, mark, item, async (signal) => {
      const { ConsumedCapacity } = await clients.dynamo().send(command, { abortSignal: signal });
      charge(counts, "writeUnits", modelled, ConsumedCapacity);
      return { ok: true, item };
    });
  }

  async function update(write: Update): Promise<WriteResult> {
    if (isTransactional(write)) return added(write);
    const key = attributeKey(write.update);
    const modelled = writeUnits(changeBytes(write));
    const send = (mark: string | undefined) =>
      decided(modelled, mark, undefined, async (signal, unsure) => {
        const expression = createExpression();
        const condition = conditionText(write.if, expression);
        // Done already, it must not be done again over what another did between.
        const text = both(condition, unsure && mark !== undefined ? notYet(mark, expression) : undefined);
        const command = new UpdateItemCommand({
          ...named,
          ...reported,
          Key: key,
          UpdateExpression: updateText(write, write.kind, mark, expression),
          ...(text !== undefined && { ConditionExpression: text, ...winnerToo }),
          ...expression.parts(),
          ReturnValues: "ALL_NEW",
        });
        const { Attributes, ConsumedCapacity } = await clients.dynamo().send(command, { abortSignal: signal });
        charge(counts, "writeUnits", modelled, ConsumedCapacity);
        return { ok: true, item: fromRow(Attributes as Attributes) };
      });
    try {
      return await send(systemRandom(6));
    } catch (error) {
      // A row that is full has no room for the mark.
      if (!isTooLarge(error)) throw mapped(error);
      return await send(undefined).catch((again) => {
        throw mapped(again);
      });
    }
  }

  async function remove({ delete: key, if: condition }: Delete): Promise<WriteResult> {
    if (condition !== undefined) return alone({ delete: key, if: condition });
    const command = new DeleteItemCommand({ ...named, ...reported, Key: attributeKey(key), ReturnValues: "ALL_OLD" });
    return decided(1, undefined, undefined, async (signal) => {
      const { Attributes, ConsumedCapacity } = await clients.dynamo().send(command, { abortSignal: signal });
      const bytes = Attributes === undefined ? 0 : itemBytes(fromRow(Attributes));
      charge(counts, "writeUnits", writeUnits(bytes), ConsumedCapacity);
      return { ok: true };
    });
  }

  /** One plain write, with the refusal that is none: the condition failed because an earlier try was done. */
  async function decided(
    modelled: number,
    mark: string | undefined,
    written: Item | undefined,
    send: (signal: AbortSignal, unsure: boolean) => Promise<WriteResult>,
  ): Promise<WriteResult> {
    let conflict: WriteResult | undefined;
    try {
      return await caller.call(
        "store",
        async ({ signal, unsure }) => {
          try {
            return await send(signal, unsure);
          } catch (error) {
            if ((error as Error).name !== "ConditionalCheckFailedException") throw error;
            charge(counts, "writeUnits", modelled);
            const row = (error as { Item?: Attributes }).Item;
            if (unsure && mark !== undefined && row?.[writeMark]?.S === mark) {
              return { ok: true, item: written ?? fromRow(row) };
            }
            return { ok: false, ...refusalOf(row) };
          }
        },
        {
          onConflict(error) {
            conflict = { ok: false, code: "conflict" };
            throw error;
          },
        },
      );
    } catch (error) {
      if (conflict !== undefined) return conflict;
      throw error;
    }
  }

  /** A sum that is added to twice is wrong for ever: it needs the token of a transaction. The row is read after it. */
  async function added(write: Update): Promise<WriteResult> {
    const result = await alone(write);
    if (!result.ok) return result;
    const item = await get(write.update);
    return { ok: true, ...(item !== undefined && { item }) };
  }

  /** A write that needs the token of a transaction. */
  async function alone(write: Write): Promise<WriteResult> {
    const result = await transactNow([write]);
    if (result.ok) return { ok: true };
    return { ok: false, ...(result.reasons[0] as Refusal) };
  }

  async function transact(writes: readonly Write[]): Promise<TransactResult> {
    const [only] = writes;
    if (writes.length !== 1 || only === undefined || isTransactional(only)) return transactNow(writes);
    const result = await writeNow(only);
    return result.ok ? { ok: true } : { ok: false, reasons: [refusalFrom(result)] };
  }

  async function writeNow(write: Write): Promise<WriteResult> {
    checkKey(rowKeyOf(write));
    if ("put" in write) return put(write);
    if ("update" in write) return update(write);
    return "delete" in write ? remove(write) : alone(write);
  }

  async function transactNow(writes: readonly Write[]): Promise<TransactResult> {
    checkTransactItems(writes.length);
    let bytes = 0;
    let modelled = 0;
    const rows = new Set<string>();
    for (const write of writes) {
      const key = rowKeyOf(write);
      checkKey(key);
      rows.add(idOf(key));
      const size = "put" in write ? checkSize(write.put) : "update" in write ? changeBytes(write) : 0;
      bytes += size;
      modelled += 2 * writeUnits(size);
    }
    if (rows.size < writes.length) throw storeErrors.keyInvalid("a transaction has two writes to one row");
    checkTransactBytes(bytes);
    const command = new TransactWriteItemsCommand({
      ...reported,
      TransactItems: writes.map(transactItem),
      ClientRequestToken: systemRandom(26),
    });
    let conflict: TransactResult | undefined;
    try {
      return await caller.call(
        "store",
        async ({ signal }) => {
          try {
            const { ConsumedCapacity } = await clients.dynamo().send(command, { abortSignal: signal });
            charge(counts, "writeUnits", modelled, ConsumedCapacity);
            return { ok: true };
          } catch (error) {
            const reasons = reasonsOf(error);
            if (!reasons.some((reason) => reason?.code === "condition")) throw error;
            charge(counts, "writeUnits", modelled);
            return { ok: false, reasons };
          }
        },
        {
          onConflict(error) {
            const reasons = reasonsOf(error);
            if (reasons.some((reason) => reason !== undefined)) conflict = { ok: false, reasons };
            throw error;
          },
        },
      );
    } catch (error) {
      if (conflict !== undefined) return conflict;
      throw mapped(error);
    }
  }

  function transactItem(write: Write): TransactWriteItem {
    const expression = createExpression();
    const condition = conditionText(write.if, expression);
    const guard = { ...(condition !== undefined && { ConditionExpression: condition, ...winnerToo }) };
    if ("put" in write) return { Put: { ...named, Item: toRow(write.put), ...guard, ...expression.parts() } };
    const key = { ...named, Key: attributeKey(rowKeyOf(write)) };
    if ("delete" in write) return { Delete: { ...key, ...guard, ...expression.parts() } };
    if ("check" in write) {
      const { ConditionExpression = "attribute_exists(pk) OR attribute_not_exists(pk)" } = guard;
      return { ConditionCheck: { ...key, ...guard, ConditionExpression, ...expression.parts() } };
    }
    // The mark of the last plain write stays: whoever waits to hear of it finds that it was done.
    const text = updateText(write, write.kind, "keep", expression);
    return { Update: { ...key, UpdateExpression: text, ...guard, ...expression.parts() } };
  }

  async function batch(writes: readonly (Put | Delete)[]): Promise<void> {
    const last = new Map<string, Put | Delete>();
    for (const write of writes) {
      const key = rowKeyOf(write);
      checkKey(key);
      if ("put" in write) checkSize(write.put);
      // One call takes a row once: of two writes the later one counts.
      last.set(idOf(key), write);
    }
    const all = [...last.values()];
    const calls = Array.from({ length: Math.ceil(all.length / batchWrites) }, (_, i) =>
      all.slice(i * batchWrites, (i + 1) * batchWrites),
    );
    const lane = async () => {
      for (let own = calls.shift(); own !== undefined; own = calls.shift()) {
        const fresh = own.filter(isFresh);
        await caller.callRest("store", own.map(batchRequest), async (rest, signal, unsure) => {
          // They may be there, and others have gone on from them: a batch knows no conditions, and would go over it.
          if (unsure && fresh.length === own.length) {
            await Promise.all(fresh.map(put));
            return { rest: [] };
          }
          const command = new BatchWriteItemCommand({ ...reported, RequestItems: { [table]: [...rest] } });
          const { UnprocessedItems, ConsumedCapacity } = await clients.dynamo().send(command, { abortSignal: signal });
          const left = UnprocessedItems?.[table] ?? [];
          charge(counts, "writeUnits", rest.length - left.length, ConsumedCapacity);
          return { rest: left };
        });
      }
    };
    await Promise.all(Array.from({ length: Math.min(parallelBatches, calls.length) }, lane));
  }

  async function batchGet(keys: readonly RowKey[]): Promise<readonly (Item | undefined)[]> {
    checkBatchGet(keys);
    const found = new Map<string, Item>();
    const wanted = [...new Map(keys.map((key) => [idOf(key), attributeKey(key)])).values()];
    await caller.callRest<Record<string, never>>("store", wanted as never, async (rest, signal) => {
      const command = new BatchGetItemCommand({
        ...reported,
        RequestItems: { [table]: { Keys: [...rest] as Attributes[], ConsistentRead: true } },
      });
      const answer = await clients.dynamo().send(command, { abortSignal: signal });
      for (const row of answer.Responses?.[table] ?? []) {
        const item = fromRow(row);
        found.set(idOf(item), item);
      }
      charge(counts, "readUnits", rest.length, answer.ConsumedCapacity);
      return { rest: (answer.UnprocessedKeys?.[table]?.Keys ?? []) as never };
    });
    return keys.map((key) => found.get(idOf(key)));
  }

  async function query(query: Query): Promise<Page> {
    checkQuery(query);
    const { pk, from, to, prefix, reverse = false, limit, after } = query;
    // DynamoDB refuses a key to begin after that lies outside the range: such a one is before all of it, or behind.
    let start: string | undefined;
    if (after !== undefined) {
      const place = placeOf(after, query);
      if (place === (reverse ? "below" : "above")) return { items: [] };
      if (place === "inside") start = after;
    }
    const { name, value, parts } = createExpression();
    const conditions = [`${name("pk")} = ${value(pk)}`];
    if (from && to !== undefined) {
      if (byBytes(from, to) > 0) return { items: [] };
      conditions.push(`${name("sk")} BETWEEN ${value(from)} AND ${value(to)}`);
    } else if (prefix) conditions.push(`begins_with(${name("sk")}, ${value(prefix)})`);
    else if (from) conditions.push(`${name("sk")} >= ${value(from)}`);
    else if (to === "") return { items: [] };
    else if (to !== undefined) conditions.push(`${name("sk")} <= ${value(to)}`);
    const items: Item[] = [];
    let next: Attributes | undefined = start === undefined ? undefined : attributeKey({ pk, sk: start });
    for (;;) {
      const command: QueryCommand = new QueryCommand({
        ...named,
        ...reported,
        KeyConditionExpression: conditions.join(" AND "),
        ...parts(),
        ConsistentRead: true,
        ScanIndexForward: !reverse,
        Limit: limit - items.length,
        ...(next !== undefined && { ExclusiveStartKey: next }),
      });
      const answer = await caller.call("store", ({ signal }) =>
        clients.dynamo().send(command, { abortSignal: signal }),
      );
      const page = (answer.Items ?? []).map(fromRow);
      const bytes = page.reduce((sum, item) => sum + itemBytes(item), 0);
      charge(counts, "readUnits", readUnits(bytes), answer.ConsumedCapacity);
      items.push(...page);
      next = answer.LastEvaluatedKey;
      // A page ends at 1 MB too, however few its rows.
      if (next === undefined || items.length >= limit) break;
    }
    const last = items.length === limit ? (items[limit - 1] as Item).sk : undefined;
    return last === undefined ? { items } : { items, last };
  }

  return {
    async get(key) {
      check();
      checkKey(key);
      return await get(key);
    },
    async batchGet(keys) {
      check();
      return await batchGet(keys);
    },
    async query(each) {
      check();
      return await query(each);
    },
    async write(write) {
      check();
      return await writeNow(write);
    },
    async transact(writes) {
      check();
      return await transact(writes);
    },
    async batchWrite(writes) {
      check();
      await batch(writes);
    },
    async projected() {
      check();
    },
    // DynamoDB answers a write once it is durable.
    async settled() {
      check();
    },
    generation: () => 0,
  };
}

/** Where a sort key lies, seen from a query's range. */
function placeOf(sk: string, { from, to, prefix }: Query): "below" | "inside" | "above" {
  if (prefix !== undefined) {
    if (sk.startsWith(prefix)) return "inside";
    return byBytes(sk, prefix) < 0 ? "below" : "above";
  }
  if (from !== undefined && byBytes(sk, from) < 0) return "below";
  return to !== undefined && byBytes(sk, to) > 0 ? "above" : "inside";
}

/** @returns the size of a row that is not too large */
function checkSize(item: Item): number {
  const bytes = itemBytes(item);
  checkItemBytes(bytes);
  return bytes;
}

/** What an update is known to write; the rest of its row only DynamoDB knows. */
function changeBytes({ update: { pk, sk }, kind, set = {}, add = {} }: Update): number {
  let bytes = itemBytes({ pk, sk, kind });
  for (const name in set) if (set[name] !== undefined) bytes += nameBytes(name) + valueBytes(set[name] as never);
  for (const name in add) bytes += nameBytes(name) + valueBytes(add[name] as number);
  checkItemBytes(bytes);
  return bytes;
}

function reasonsOf(error: unknown): (Refusal | undefined)[] {
  const { name, CancellationReasons = [] } = error as { name?: string; CancellationReasons?: CancellationReason[] };
  if (name !== "TransactionCanceledException") return [];
  return CancellationReasons.map(({ Code, Item }) =>
    Code === "ConditionalCheckFailed"
      ? refusalOf(Item)
      : Code === "TransactionConflict"
        ? { code: "conflict" }
        : undefined,
  );
}

const messagesOf = (error: unknown): string[] => {
  const { name, message, CancellationReasons } = error as {
    name?: string;
    message?: string;
    CancellationReasons?: CancellationReason[];
  };
  if (name === "ValidationException") return [message ?? ""];
  return (CancellationReasons ?? [])
    .filter(({ Code }) => Code === "ValidationError")
    .map(({ Message }) => Message ?? "");
};

const isTooLarge = (error: unknown): boolean =>
  messagesOf(error).some((message) => /item size|size has exceeded/i.test(message));

/** What DynamoDB finds wrong with a write that only it can see, as the port says it. */
function mapped(error: unknown): unknown {
  const messages = messagesOf(error);
  if (isTooLarge(error)) return storeErrors.itemTooLarge(messages.join("; "), { cause: error });
  if (messages.some((message) => /transaction.*(size|exceed)|request size/i.test(message)))
    return storeErrors.transactionTooLarge(messages.join("; "), { cause: error });
  if (messages.some((message) => /operand|data type/i.test(message)))
    return new TypeError(`cannot add to what is not a number: ${messages.join("; ")}`, { cause: error });
  return error;
}
