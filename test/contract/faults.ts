/** Kinds of fault, and how often of a hundred calls each befalls. */
export interface FaultRates {
  /** Refused for its rate; nothing was done. */
  readonly throttle: number;
  /** 500, or no reply in time; nothing was done. */
  readonly failure: number;
  /** Done, and the reply lost. */
  readonly lostReply: number;
  /** A write that met another's transaction. */
  readonly conflict: number;
  /** Of a batch, some entries were not taken. */
  readonly partial: number;
  /** Messages of one receive in another order. */
  readonly reorder: number;
  /** Records of the stream come once more. */
  readonly duplicate: number;
}

export interface Faults {
  /** For `AwsOptions.onClient`. */
  onClient(client: { readonly middlewareStack: unknown }): void;
  /** How often each has befallen. */
  readonly befallen: Readonly<Record<keyof FaultRates, number>>;
}

export type Input = Record<string, unknown>;
export interface Output {
  readonly response: unknown;
  readonly output: Input & { $metadata: object };
}
type Next = (args: { input: Input }) => Promise<Output>;
export interface Stack {
  add(
    middleware: (next: Next, context: { commandName?: string }) => (args: { input: Input }) => Promise<Output>,
    options: { step: string; name: string },
  ): void;
}

export const fault = (name: string, httpStatusCode: number, more: object = {}) =>
  Object.assign(new Error(`${name}, as arranged`), { name, $metadata: { httpStatusCode }, ...more });

/** Nobody reads the answer, nor hears how its connection ends. */
export function lost({ output }: Output): Error {
  const { Body } = output as { Body?: { on?(event: "error", listener: () => void): unknown; destroy?(): void } };
  Body?.on?.("error", () => {});
  Body?.destroy?.();
  return fault("TimeoutError", 0);
}

/** Numbers from 0 to 1 that a seed plays again. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

export const writes = new Set(["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"]);
/** Done twice they do no harm that the port does not allow for: sends and publishes are not among them. */
const repeatable = new Set([
  ...writes,
  ..."GetItem Query BatchGetItem BatchWriteItem GetRecords GetShardIterator DescribeStream".split(" "),
  ..."DeleteMessageBatch ChangeMessageVisibility ChangeMessageVisibilityBatch GetQueueAttributes".split(" "),
  ..."PutObject GetObject DeleteObject PutRule PutTargets".split(" "),
]);
const managing = /^(Create|Delete(Table|Queue|Bucket|EventBus)|Describe(Table)|UpdateTimeToLive)/;

/**
 * Faults of the network and of the services, put between the SDK and the wire: what retries is the real code. A reply is lost
 * only where a repetition is not seen; see `sends` for the others.
 * @param sends also loses replies of sends and publishes, so that messages and events come twice
 */
export function createFaults(seed: number, rates: FaultRates, sends = false): Faults {
  const random = seeded(seed);
  const befallen = { throttle: 0, failure: 0, lostReply: 0, conflict: 0, partial: 0, reorder: 0, duplicate: 0 };
  function befalls(kind: keyof FaultRates): boolean {
    if (random() * 100 >= rates[kind]) return false;
    befallen[kind]++;
    return true;
  }

  async function call(name: string, args: { input: Input }, next: Next): Promise<Output> {
    if (managing.test(name)) return next(args);
    if (befalls("throttle")) throw fault("ThrottlingException", 400);
    if (befalls("failure")) throw random() < 0.5 ? fault("InternalServerError", 500) : fault("TimeoutError", 0);
    if (writes.has(name) && befalls("conflict")) {
      if (name !== "TransactWriteItems") throw fault("TransactionConflictException", 400);
      const items = args.input.TransactItems as unknown[];
      const met = Math.floor(random() * items.length);
      const CancellationReasons = items.map((_, i) => ({ Code: i === met ? "TransactionConflict" : "None" }));
      throw fault("TransactionCanceledException", 400, { CancellationReasons });
    }
    const answer = await (befalls("partial") ? inPart(name, args, next) : next(args));
    if ((repeatable.has(name) || (sends && /^(SendMessageBatch|PutEvents)$/.test(name))) && befalls("lostReply"))
      throw lost(answer);
    if (name === "ReceiveMessage" && befalls("reorder")) (answer.output.Messages as unknown[] | undefined)?.reverse();
    // The same place of the stream is read once more.
    if (name === "GetRecords" && answer.output.NextShardIterator !== undefined && befalls("duplicate"))
      answer.output.NextShardIterator = args.input.ShardIterator;
    return answer;
  }

  /** Does a part of a batch, and answers as the service does of the rest. */
  async function inPart(name: string, args: { input: Input }, next: Next): Promise<Output> {
    const halved = <T>(all: readonly T[]): [T[], T[]] => {
      const taken: T[] = [];
      const left: T[] = [];
      for (const each of all) (random() < 0.5 ? taken : left).push(each);
      return [taken, left];
    };
    if (name === "BatchWriteItem" || name === "BatchGetItem") {
      const requests = args.input.RequestItems as Record<string, unknown>;
      const [table] = Object.keys(requests) as [string];
      const own = requests[table] as unknown[] & { Keys?: unknown[] };
      const [taken, left] = halved(own.Keys ?? own);
      const of = (list: unknown[]) => ({ [table]: own.Keys ? { ...own, Keys: list } : list });
      if (taken.length === 0) return { response: {}, output: { $metadata: {}, [unprocessed(name)]: of(left) } };
      const answer = await next({ ...args, input: { ...args.input, RequestItems: of(taken) } });
      if (left.length > 0) answer.output[unprocessed(name)] = of(left);
      return answer;
    }
    const entries = args.input.Entries as { Id?: string }[] | undefined;
    if (entries === undefined) return next(args);
    const [taken, left] = halved(entries);
    const answer: Output =
      taken.length === 0
        ? { response: {}, output: { $metadata: {} } }
        : await next({ ...args, input: { ...args.input, Entries: taken } });
    if (name === "PutEvents") {
      const results = [...((answer.output.Entries as unknown[] | undefined) ?? [])];
      answer.output.Entries = entries.map((each) =>
        left.includes(each) ? { ErrorCode: "InternalFailure" } : results.shift(),
      );
      answer.output.FailedEntryCount = left.length;
    } else {
      const failed = left.map(({ Id }) => ({ Id, Code: "InternalError", SenderFault: false }));
      answer.output.Failed = [...((answer.output.Failed as unknown[] | undefined) ?? []), ...failed];
    }
    return answer;
  }

  return {
    befallen,
    onClient({ middlewareStack }) {
      (middlewareStack as Stack).add(
        (next, { commandName = "" }) =>
          (args) =>
            call(commandName.replace(/Command$/, ""), args, next),
        { step: "initialize", name: "faults" },
      );
    },
  };
}

const unprocessed = (name: string) => (name === "BatchWriteItem" ? "UnprocessedItems" : "UnprocessedKeys");
