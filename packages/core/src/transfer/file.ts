import { createHash, type Hash } from "node:crypto";
import type { z } from "zod/mini";
import { isError } from "../error.ts";
import { tryParse } from "../problem.ts";
import { fileInvalid, newerFormat } from "./error.ts";
import { Checkpoint, type Counts, End, format, Header, kinds, Record, version } from "./schema.ts";

/** What a file says so far, and what was counted on the way: the same for whoever writes it and whoever reads it. */
export interface Tally {
  readonly lines: number;
  readonly bytes: number;
  readonly counts: Counts;
  /** SHA-256 of all bytes so far, in hexadecimal. */
  readonly sha256: string;
}

/** Up to a checkpoint, or the last line, that was found right. */
export interface Segment {
  readonly header: Header;
  readonly records: readonly { readonly line: number; readonly record: Record }[];
  /** Goes on with the export from here; absent at the end. */
  readonly cursor?: string;
  /** Of the file up to here, this last line included. */
  readonly tally: Tally;
  readonly ended: boolean;
}

export const fileLimits = {
  lineBytes: 8 * 1024 * 1024,
  /** Records between two checkpoints. */
  records: 1000,
} as const;

interface Sums {
  lines: number;
  bytes: number;
  readonly counts: { -readonly [K in keyof Counts]: number };
  hash: Hash;
}

const nothing = (): Sums => ({
  lines: 0,
  bytes: 0,
  counts: { limit: 0, agent: 0, key: 0, blob: 0, task: 0 },
  hash: createHash("sha256"),
});
const digestOf = ({ hash }: Sums): string => hash.copy().digest("hex");
const tallyOf = (sums: Sums): Tally => ({
  lines: sums.lines,
  bytes: sums.bytes,
  counts: { ...sums.counts },
  sha256: digestOf(sums),
});

/** Writes a file's lines. It holds none: what it answers is to be written down. */
export interface Writer {
  begin(header: Omit<Header, "kind" | "format" | "version">): string;
  /** A page's records, and the checkpoint behind them. */
  page(records: readonly Record[], cursor: string | undefined): string;
  end(): string;
  tally(): Tally;
}

/**
 * @param from what is in the file already, as a reader left it
 * @example const writer = createWriter(); file.write(writer.begin({ tenant, at, server }));
 */
export function createWriter(from?: Reader): Writer {
  const sums = from ? from.sums() : nothing();
  const line = (value: object): string => {
    const text = `${JSON.stringify(value)}\n`;
    sums.hash.update(text, "utf8");
    sums.lines++;
    sums.bytes += new TextEncoder().encode(text).length;
    return text;
  };
  const summed = () => ({ counts: sums.counts, sha256: digestOf(sums) });
  return {
    begin: (header) => line({ kind: "header", format, version, ...header }),
    page(records, cursor) {
      let text = "";
      for (const record of records) {
        text += line(record);
        sums.counts[record.kind]++;
      }
      return cursor === undefined ? text : text + line({ kind: "checkpoint", cursor, ...summed() });
    },
    end: () => line({ kind: "end", ...summed() }),
    tally: () => tallyOf(sums),
  };
}

/** Reads a file's lines. It holds the records since the last checkpoint and no others. */
export interface Reader {
  /**
   * What the bytes hold, segment by segment, each checked against its counts and its hash before it is given out. A file that
   * was cut short ends with a segment that has not `ended`.
   * @throws `transfer.file_invalid` with the line's number and what was expected there; `transfer.newer_format`
   */
  segments(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Segment, void, undefined>;
  /** Sums up to the last segment that was given out. */
  sums(): Sums;
  /** Lines that were read, those after the last checkpoint included. */
  lines(): number;
}

const newline = 10;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function createReader(): Reader {
  const sums = nothing();
  let safe: Sums = nothing();
  const wrong = (message: string) => fileInvalid(`line ${sums.lines + 1}: ${message}`);

  const parse = (bytes: Uint8Array): { kind: unknown } => {
    let value: unknown;
    try {
      value = JSON.parse(decoder.decode(bytes));
    } catch (error) {
      throw wrong(`expected a JSON object in UTF-8: ${(error as Error).message}`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("expected a JSON object");
    return value as { kind: unknown };
  };
  const fit = <T>(schema: z.ZodMiniType<T>, value: unknown): T => {
    const { data, problem } = tryParse(schema, value);
    if (problem) throw wrong(problem.message);
    return data as T;
  };
  const headerOf = (value: { kind: unknown; format?: unknown; version?: unknown }): Header => {
    if (value.kind !== "header" || value.format !== format)
      throw wrong(`expected the header of an export: {"kind":"header","format":"${format}",…}`);
    if (typeof value.version === "number" && value.version > version)
      throw newerFormat(
        `the file is of format version ${value.version}, and this waggle reads up to ${version}: use a newer one`,
      );
    return fit(Header, value);
  };
  /** The sums that a line names are of what comes before it. */
  const check = (named: { counts: Counts; sha256: string }) => {
    for (const kind of kinds)
      if (named.counts[kind] !== sums.counts[kind])
        throw wrong(`${sums.counts[kind]} records of kind ${kind} come before it, not ${named.counts[kind]}`);
    if (named.sha256 !== digestOf(sums))
      throw wrong("the bytes before it are not those that were written: their SHA-256 is another");
  };
  const count = (bytes: Uint8Array) => {
    sums.hash.update(bytes);
    sums.lines++;
    sums.bytes += bytes.length;
  };

  return {
    async *segments(chunks) {
      let header: Header | undefined;
      let records: { line: number; record: Record }[] = [];
      let ended = false;
      for await (const bytes of linesOf(chunks, () => wrong(`is longer than ${fileLimits.lineBytes} bytes`))) {
        if (ended) throw wrong("nothing may follow the last line");
        const value = parse(bytes.subarray(0, -1));
        if (header === undefined) header = headerOf(value);
        else if (value.kind === "checkpoint" || value.kind === "end") {
          const named = value.kind === "end" ? fit(End, value) : fit(Checkpoint, value);
          check(named);
          count(bytes);
          safe = { ...sums, counts: { ...sums.counts }, hash: sums.hash.copy() };
          ended = named.kind === "end";
          const segment = { header, records, tally: tallyOf(sums), ended };
          records = [];
          yield named.kind === "end" ? segment : { ...segment, cursor: named.cursor };
          continue;
        } else {
          if (!kinds.some((kind) => kind === value.kind))
            throw wrong(
              `expected kind ${[...kinds, "checkpoint"].join(", ")} or end, not ${JSON.stringify(value.kind)}`,
            );
          if (records.length === fileLimits.records)
            throw wrong(`expected a checkpoint after at most ${fileLimits.records} records`);
          const record = fit<Record>(Record, value);
          sums.counts[record.kind]++;
          records.push({ line: sums.lines + 1, record });
        }
        count(bytes);
      }
      if (header === undefined) throw fileInvalid("line 1: expected the header of an export; there is no whole line");
    },
    sums: () => ({ ...safe, counts: { ...safe.counts }, hash: safe.hash.copy() }),
    lines: () => sums.lines,
  };
}

/** Whole lines with their line breaks. What follows the last one is not given out: it was being written. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>, tooLong: () => Error): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of chunks) {
    let from = 0;
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, from)) {
      parts.push(chunk.subarray(from, at + 1));
      size += at + 1 - from;
      if (size > fileLimits.lineBytes) throw tooLong();
      yield parts.length === 1 ? (parts[0] as Uint8Array) : joined(parts, size);
      parts = [];
      size = 0;
      from = at + 1;
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
    size += chunk.length - from;
    if (size > fileLimits.lineBytes) throw tooLong();
  }
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What was thrown is about the file and not about us. */
export const isFileError = (thrown: unknown): boolean => isError(thrown, fileInvalid) || isError(thrown, newerFormat);
