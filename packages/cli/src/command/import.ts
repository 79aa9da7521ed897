import { createReadStream, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { Transfer } from "@waggle/core/transfer";
import type { Client } from "@waggle/sdk";
import { type CommonOptions, withPatience } from "../context.ts";
import { exit, Failure, usage } from "../failure.ts";
import { readFrom } from "../file.ts";
import type { Io } from "../io.ts";
import { document } from "../print.ts";
import { amount, countsOf, createProgress } from "../progress.ts";

/** Admins alone may. */
const allowed = (client: Client) => client.transfer.export({ limit: 1 });

interface Options extends CommonOptions {
  resume?: boolean;
  json?: boolean;
  quiet?: boolean;
}

/** How far an import of a file has come, kept beside it until it is done. */
interface Position {
  readonly url: string;
  readonly bytes: number;
  readonly sha256: string;
}

interface Difference {
  readonly line: number;
  readonly kind: Transfer.Kind;
  readonly name: string;
  readonly code: string;
  readonly detail: string;
}

/** Below the 1 MiB of a body, with room for what goes around the records. */
const batchBytes = 1000 * 1024;
const differencesShown = 100;

export async function importFrom(io: Io, file: string, options: Options): Promise<number> {
  if (file === "-" && options.resume)
    throw usage("--resume needs a file", "without it, what is there already is passed over all the same");
  return withPatience(io, options, allowed, ({ client }) => take(io, client, file, options));
}

async function take(io: Io, client: Client, file: string, options: Options): Promise<number> {
  const began = io.now();
  const keeper = keepPosition(file, client.url);
  let passed = options.resume ? keeper.read() : undefined;
  const resumed = passed !== undefined;
  const counts: Record<Transfer.Outcome, number> = { taken: 0, there: 0, differs: 0 };
  const differences: Difference[] = [];
  const progress = createProgress(io, "imported", options.quiet);
  const stop = io.interrupted();
  const reader = Transfer.createReader();
  let last: Transfer.Segment | undefined;
  try {
    const chunks = file === "-" ? io.stdin : createReadStream(file);
    const advice = "nothing was sent of what follows the checkpoint before it; export anew";
    for await (const segment of readFrom(file, chunks, reader, advice)) {
      last = segment;
      if (passed && segment.tally.bytes < passed.bytes) continue;
      if (passed) {
        if (segment.tally.bytes !== passed.bytes || segment.tally.sha256 !== passed.sha256) throw anotherFile(file);
        passed = undefined;
        continue;
      }
      for (const batch of batches(segment.records)) {
        const records = batch.map(({ record }) => record);
        const { results } = await client.transfer.import({ version: Transfer.version, records });
        for (const [i, { record, line }] of batch.entries()) {
          const { outcome, problem } = results[i] ?? { outcome: "differs" as const };
          counts[outcome]++;
          if (outcome !== "differs" || differences.length >= differencesShown) continue;
          const difference = {
            line,
            kind: record.kind,
            name: record.kind === "limit" ? record.key : record.id,
            code: problem?.code ?? "",
            detail: problem?.detail ?? "the server did not say",
          };
          differences.push(difference);
          progress.end();
          io.err(`line ${line}: ${difference.detail}\n`);
        }
      }
      keeper.write({ bytes: segment.tally.bytes, sha256: segment.tally.sha256 });
      progress.tick(segment.tally);
      if (stop.aborted && !segment.ended)
        throw new Failure(exit.failed, "stopped before the end", `waggle import ${file} --resume goes on from here`);
    }
  } finally {
    progress.end();
  }
  if (passed) throw anotherFile(file);
  if (!last?.ended)
    throw new Failure(
      exit.failed,
      `${file} was cut short after line ${reader.lines()}: what its last checkpoint vouches for is imported, and no more`,
      `complete it with \`waggle export ${file} --resume\`, then \`waggle import ${file} --resume\``,
    );
  keeper.forget();
  const { tally } = last;
  if (options.json)
    await document(io, "json", {
      file,
      ...counts,
      records: tally.counts,
      bytes: tally.bytes,
      sha256: tally.sha256,
      seconds: (io.now() - began) / 1000,
      resumed,
      differences,
    });
  else io.out(`${summary(counts, tally, resumed)}\n`);
  return counts.differs > 0 ? exit.refused : exit.ok;
}

const anotherFile = (file: string) =>
  new Failure(
    exit.failed,
    `${file} is not the file whose import was begun`,
    "import it from its beginning, without --resume",
  );

function summary(counts: Record<Transfer.Outcome, number>, tally: Transfer.Tally, resumed: boolean): string {
  const file = `the file is whole: ${countsOf(tally.counts)}`;
  if (counts.taken === 0 && counts.differs === 0) return `nothing changed, all of it was there already; ${file}`;
  const parts = [`${amount(counts.taken)} records taken`];
  if (counts.there > 0) parts.push(`${amount(counts.there)} there already`);
  if (counts.differs > 0) parts.push(`${amount(counts.differs)} not taken because something else is there`);
  return `${parts.join(", ")}${resumed ? " since it went on" : ""}; ${file}`;
}

type Line = Transfer.Segment["records"][number];

/** As many records as one call takes. */
function* batches(lines: readonly Line[]): Generator<Line[]> {
  let batch: Line[] = [];
  let bytes = 0;
  for (const line of lines) {
    const more = Buffer.byteLength(JSON.stringify(line.record)) + 1;
    if (batch.length > 0 && (batch.length === Transfer.transferLimits.records || bytes + more > batchBytes)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(line);
    bytes += more;
  }
  if (batch.length > 0) yield batch;
}

function keepPosition(file: string, url: string) {
  const path = `${file}.position`;
  return {
    /** undefined when none was begun. */
    read(): Position | undefined {
      let found: Partial<Position>;
      try {
        found = JSON.parse(readFileSync(path, "utf8")) as Partial<Position>;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw new Failure(
          exit.failed,
          `${path} cannot be read: ${(error as Error).message}`,
          "import without --resume",
        );
      }
      if (found.url !== url)
        throw new Failure(
          exit.refused,
          `${file} was being imported into ${found.url}, not into ${url}`,
          "import it from its beginning, without --resume",
        );
      return found as Position;
    },
    write(position: Omit<Position, "url">): void {
      if (file === "-") return;
      const draft = `${path}.draft`;
      writeFileSync(draft, `${JSON.stringify({ url, ...position })}\n`, { mode: 0o600 });
      renameSync(draft, path);
    },
    forget: () => rmSync(path, { force: true }),
  };
}
