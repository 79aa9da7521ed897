import { createReadStream } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { Transfer } from "@waggle/core/transfer";
import type { Client } from "@waggle/sdk";
import { type CommonOptions, withPatience } from "../context.ts";
import { exit, Failure, usage } from "../failure.ts";
import { readFrom } from "../file.ts";
import type { Io } from "../io.ts";
import { document } from "../print.ts";
import { bytesOf, countsOf, createProgress } from "../progress.ts";

/** Admins alone may. */
const allowed = (client: Client) => client.transfer.export({ limit: 1 });

interface Options extends CommonOptions {
  resume?: boolean;
  force?: boolean;
  verify?: string;
  json?: boolean;
  quiet?: boolean;
}

/** Records asked for at one time. */
const pageRecords = 200;

export async function exportTo(io: Io, file: string | undefined, options: Options): Promise<number> {
  if (options.verify !== undefined) {
    if (file !== undefined || options.resume || options.force)
      throw usage("--verify checks a file alone, and exports nothing", "waggle export --verify FILE");
    return verify(io, options.verify, options);
  }
  if (file === undefined || file === "-") {
    if (options.resume) throw usage("--resume needs a file", "waggle export FILE --resume");
    if (options.json) throw usage("--json needs a file: standard output is taken", "waggle export FILE --json");
    const write = async (text: string) => {
      io.out(text);
      await io.drained();
    };
    return withPatience(io, options, allowed, async ({ client }) => {
      const tally = await copy(io, client, options, { writer: Transfer.createWriter() }, write);
      io.err(`exported ${countsOf(tally.counts)} (${bytesOf(tally.bytes)})\n`);
      return exit.ok;
    });
  }
  return withPatience(io, options, allowed, ({ client }) => toFile(io, client, file, options));
}

/** Where an export stands: how much of it is written, and where it goes on. */
interface Begun {
  readonly writer: Transfer.Writer;
  readonly header?: Transfer.Header;
  readonly cursor?: string;
}

async function toFile(io: Io, client: Client, file: string, options: Options): Promise<number> {
  const began = io.now();
  const there = await stat(file).catch(() => undefined);
  if (there && !options.resume && !options.force)
    throw new Failure(
      exit.refused,
      `${file} is there already`,
      "--resume goes on with it if it was cut short, --force writes over it",
    );
  const reader = Transfer.createReader();
  let last: Transfer.Segment | undefined;
  if (there && there.size > 0 && options.resume) {
    const advice = "what is in it is damaged: export anew with --force";
    for await (const segment of readFrom(file, createReadStream(file), reader, advice)) last = segment;
  }
  let tally = last?.tally;
  if (!last?.ended) {
    // Payloads are for their owner's eyes.
    const handle = await open(file, there ? "r+" : "wx", 0o600);
    try {
      await handle.truncate(last?.tally.bytes ?? 0);
      const begun: Begun =
        last?.cursor === undefined
          ? { writer: Transfer.createWriter() }
          : { writer: Transfer.createWriter(reader), header: last.header, cursor: last.cursor };
      tally = await copy(io, client, options, begun, appender(handle, last?.tally.bytes ?? 0));
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
  const { counts, ...size } = tally as Transfer.Tally;
  if (options.json)
    await document(io, "json", {
      file,
      records: counts,
      ...size,
      seconds: (io.now() - began) / 1000,
      resumed: last !== undefined,
    });
  else if (last?.ended) io.out(`${file} is whole already: ${countsOf(counts)} (${bytesOf(size.bytes)})\n`);
  else io.out(`exported ${countsOf(counts)} to ${file} (${bytesOf(size.bytes)})\n`);
  return exit.ok;
}

function appender(handle: FileHandle, from: number): (text: string) => Promise<void> {
  let at = from;
  return async (text) => {
    const bytes = Buffer.from(text, "utf8");
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at);
      done += bytesWritten;
      at += bytesWritten;
    }
  };
}

/** Page by page: one is held at a time, and written before the next is asked for. */
async function copy(
  io: Io,
  client: Client,
  { quiet }: Options,
  begun: Begun,
  write: (text: string) => Promise<void>,
): Promise<Transfer.Tally> {
  const { writer } = begun;
  const progress = createProgress(io, "exported", quiet);
  const stop = io.interrupted();
  let { cursor, header } = begun;
  try {
    for (;;) {
      const page = await client.transfer.export({
        limit: pageRecords,
        ...(cursor !== undefined && { cursor }),
      });
      if (page.version > Transfer.version)
        throw new Failure(
          exit.refused,
          `the server exports format version ${page.version}, and this waggle writes up to ${Transfer.version}`,
          "use a newer waggle",
        );
      let text = "";
      if (header === undefined) {
        header = {
          kind: "header",
          format: Transfer.format,
          version: Transfer.version,
          tenant: page.tenant,
          at: new Date(io.now()).toISOString(),
          server: page.server,
        };
        text = writer.begin(header);
      } else if (header.tenant !== page.tenant) {
        throw new Failure(
          exit.refused,
          `the file is of tenant ${header.tenant}, and the key of tenant ${page.tenant}`,
          "--resume goes on with an export of the same tenant",
        );
      }
      text += writer.page(page.items, page.nextCursor);
      cursor = page.nextCursor;
      if (cursor === undefined) text += writer.end();
      await write(text);
      progress.tick(writer.tally());
      if (cursor === undefined) return writer.tally();
      if (stop.aborted)
        throw new Failure(exit.failed, "stopped before the end", "waggle export FILE --resume goes on from here");
    }
  } finally {
    progress.end();
  }
}

async function verify(io: Io, file: string, options: Options): Promise<number> {
  const reader = Transfer.createReader();
  const progress = createProgress(io, "checked", options.quiet);
  let last: Transfer.Segment | undefined;
  try {
    for await (const segment of readFrom(file, createReadStream(file), reader, "export anew")) {
      last = segment;
      progress.tick(segment.tally);
    }
  } finally {
    progress.end();
  }
  if (!last?.ended)
    throw new Failure(
      exit.failed,
      `${file} was cut short after line ${reader.lines()}`,
      `waggle export ${file} --resume goes on with it`,
    );
  const { counts, ...size } = last.tally;
  if (options.json)
    await document(io, "json", { file, header: { ...last.header, kind: undefined }, records: counts, ...size });
  else {
    const { tenant, at, server } = last.header;
    io.out(`${file} is whole: ${countsOf(counts)} of tenant ${tenant}, exported ${at} from server ${server}\n`);
  }
  return exit.ok;
}
