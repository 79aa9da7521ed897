import { fault, type Input, lost, type Output, type Stack, writes } from "./faults.ts";

/** What befalls a call: `run` makes it. */
type Fault = (run: () => Promise<Output>, input: Input) => Promise<Output>;
type Row = { readonly pk?: { readonly S?: string } } | undefined;
interface Asked {
  readonly QueueUrl?: string;
  readonly Item?: Row;
  readonly Key?: Row;
  readonly TransactItems?: readonly Readonly<Record<string, Asked>>[];
  readonly RequestItems?: Readonly<Record<string, { readonly Keys?: readonly Row[] }>>;
}

/** A command and what it is about, rows by what follows the tenant in their partition key: `SendMessageBatch deliver`, `PutItem T`. */
function placeOf(command: string, input: Input): string {
  const { QueueUrl, Item, Key, TransactItems = [], RequestItems = {} } = input as Asked;
  const many = [
    ...TransactItems.flatMap((each) => Object.values(each).map((own) => own.Item ?? own.Key)),
    ...Object.values(RequestItems).flatMap(({ Keys = [] }) => Keys),
  ];
  const kinds = [Item ?? Key, ...many].flatMap((row) => row?.pk?.S?.split("#")[1] ?? row?.pk?.S ?? []);
  return [command, QueueUrl?.split("-").at(-1) ?? kinds.join("+")].join(" ").trimEnd();
}

const isLook = (command: string): boolean => command === "ReceiveMessage" || command === "GetRecords";
const foundSome = ({ output: { Messages = [], Records = [] } }: Output): boolean =>
  [Messages, Records].some((list) => (list as unknown[]).length > 0);

/**
 * Faults at the places that a test names, between the SDK and the wire like those of `createFaults`. A look at a queue or the stream
 * that finds nothing is no call that is counted; one that does has been made when its fault comes.
 */
export function createPlacedFaults() {
  const placed = new Map<string, Fault>();
  const waiting = new Set<{ readonly event?: string; left: number; readonly resolve: () => void }>();

  function happened(event: string): void {
    for (const each of waiting) {
      if ((each.event !== undefined && each.event !== event) || --each.left > 0) continue;
      waiting.delete(each);
      each.resolve();
    }
  }
  const wait = (left: number, event?: string) =>
    new Promise<void>((resolve) => void waiting.add({ ...(event !== undefined && { event }), left, resolve }));

  async function call(command: string, args: { input: Input }, next: (args: { input: Input }) => Promise<Output>) {
    const place = placeOf(command, args.input);
    happened(`begun: ${place}`);
    const seen = isLook(command) ? await next(args) : undefined;
    if (seen && !foundSome(seen)) return seen;
    const run = async () => {
      const answer = seen ?? (await next(args));
      happened(`done: ${place}`);
      return answer;
    };
    const befalls = placed.get(place);
    placed.delete(place);
    return befalls ? await befalls(run, args.input) : await run();
  }

  return {
    /** The next call there meets it. */
    put: (place: string, befalls: Fault) => void placed.set(place, befalls),
    /** Takes away what has met no call. @returns whether there was some */
    clear(): boolean {
      const some = placed.size > 0;
      placed.clear();
      return some;
    },
    /** Until such a call is begun, from now on. */
    begun: (place: string) => wait(1, `begun: ${place}`),
    /** Until such a call has been done, its answer perhaps on its way. */
    done: (place: string) => wait(1, `done: ${place}`),
    /** Until others have gone on for a while. */
    others: () => wait(60),
    onClient({ middlewareStack }: { readonly middlewareStack: unknown }) {
      (middlewareStack as Stack).add(
        (next, { commandName = "" }) =>
          (args) =>
            call(commandName.replace(/Command$/, ""), args, next),
        { step: "initialize", name: "placed faults" },
      );
    },
  };
}

/**
 * Whatever may befall a call at this place, by name.
 * @param others until others have gone on for a while
 */
export function faultsAt(place: string, others: () => Promise<void>): Readonly<Record<string, Fault>> {
  const [command = ""] = place.split(" ");
  const conflict =
    command === "TransactWriteItems"
      ? () => fault("TransactionCanceledException", 400, { CancellationReasons: [{ Code: "TransactionConflict" }] })
      : () => fault("TransactionConflictException", 400);
  const nothingOf: Readonly<Record<string, (input: Input) => Input>> = {
    SendMessageBatch: ({ Entries }) => ({ Failed: (Entries as { Id: string }[]).map(failed) }),
    DeleteMessageBatch: ({ Entries }) => ({ Failed: (Entries as { Id: string }[]).map(failed) }),
    BatchGetItem: ({ RequestItems }) => ({ UnprocessedKeys: RequestItems }),
  };
  const nothing = nothingOf[command];
  return {
    refused: async () => {
      throw fault("ThrottlingException", 400);
    },
    late: async (run) => {
      await others();
      return await run();
    },
    "answered late": async (run) => {
      const answer = await run();
      await others();
      return answer;
    },
    "its reply lost": async (run) => {
      throw lost(await run());
    },
    "its reply lost, and tried again late": async (run) => {
      const answer = await run();
      await others();
      throw lost(answer);
    },
    ...(writes.has(command) && {
      "in the way of another": async () => {
        throw conflict();
      },
    }),
    ...(nothing && {
      "not taken": async (_, input) => ({ response: {}, output: { $metadata: {}, ...nothing(input) } }),
    }),
    ...(command === "GetRecords" && {
      "read twice": async (run, { ShardIterator }) => {
        const answer = await run();
        answer.output.NextShardIterator = ShardIterator;
        return answer;
      },
    }),
  };
}

const failed = ({ Id }: { readonly Id: string }) => ({ Id, Code: "InternalError", SenderFault: false });
