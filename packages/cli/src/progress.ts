import type { Transfer } from "@waggle/core/transfer";
import type { Io } from "./io.ts";

/** A line a second on standard error, or one that changes in place where that is a terminal. */
export interface Progress {
  tick(tally: Transfer.Tally): void;
  /** Call before anything else is printed. */
  end(): void;
}

const number = new Intl.NumberFormat("en-GB");
export const amount = (value: number): string => number.format(Math.round(value));
export const bytesOf = (bytes: number): string =>
  bytes < 1e6 ? `${amount(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

/** `3 limits, 12 agents, 1,000 tasks`; pieces are part of their tasks. */
export function countsOf(counts: Transfer.Counts): string {
  const parts = (["limit", "agent", "key", "task"] as const)
    .filter((kind) => counts[kind] > 0)
    .map((kind) => `${amount(counts[kind])} ${kind}${counts[kind] === 1 ? "" : "s"}`);
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

/** @param from what was there when it began, which does not count for the rate */
export function createProgress(io: Io, verb: string, quiet: boolean | undefined): Progress {
  const everyMs = io.errTty ? 100 : 1000;
  const began = io.now();
  let shownAt = began;
  let first: Transfer.Tally | undefined;
  let open = false;
  return {
    tick(tally) {
      first ??= tally;
      const now = io.now();
      if (quiet || now - shownAt < everyMs) return;
      shownAt = now;
      const rate = (tally.lines - first.lines) / ((now - began) / 1000);
      const text = `${verb} ${amount(tally.lines)} lines, ${bytesOf(tally.bytes)}, ${amount(rate)} a second`;
      io.err(io.errTty ? `\r\u001b[K${text}` : `${text}\n`);
      open = io.errTty;
    },
    end() {
      if (open) io.err("\r\u001b[K");
      open = false;
    },
  };
}
