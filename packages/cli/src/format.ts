import { type Io, painter } from "./io.ts";

/** Text of others, made harmless for a terminal: control characters would move its cursor or change its title. */
export const safe = (text: string): string =>
  text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (char) =>
    char === "\n" || char === "\t" ? " " : "\ufffd",
  );
/** As `safe`, but lines stay lines. */
export const safeLines = (text: string): string =>
  text
    .split("\n")
    .map((line) => safe(line))
    .join("\n");

const ansi = /\u001b\[[0-9;]*m/g;
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;
const none = /\p{Mn}|\p{Me}|\u200d|\ufe0f/u;

/** Columns the text takes on a terminal. */
export function width(text: string): number {
  const bare = text.replace(ansi, "");
  if (/^[\x20-\x7e]*$/.test(bare)) return bare.length;
  let columns = 0;
  for (const char of bare) columns += none.test(char) ? 0 : wide.test(char) ? 2 : 1;
  return columns;
}

/** Cut to a number of columns, with an ellipsis. */
export function cut(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let kept = "";
  let used = 0;
  for (const char of text) {
    const next = none.test(char) ? 0 : wide.test(char) ? 2 : 1;
    if (used + next > columns - 1) break;
    kept += char;
    used += next;
  }
  return `${kept}…`;
}

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly colour?: (row: Row) => Parameters<ReturnType<typeof painter>>[0];
  readonly right?: boolean;
  /** The longest it may be in a table that is not wide. */
  readonly max?: number;
}

/** Rows under titles, as wide as their content; the last column is not padded. */
export function table<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  io: Pick<Io, "colour">,
  options: { header?: boolean; widths?: number[] } = {},
): string {
  const paint = painter(io.colour);
  const cells = rows.map((row) =>
    columns.map((column) => {
      const text = safe(column.value(row)) || "-";
      return column.max === undefined ? text : cut(text, column.max);
    }),
  );
  const widths = columns.map((column, i) =>
    Math.max(options.widths?.[i] ?? 0, width(column.title), ...cells.map((line) => width(line[i] as string))),
  );
  options.widths?.splice(0, options.widths.length, ...widths);
  const pad = (text: string, i: number) => {
    const space = " ".repeat(Math.max(0, (widths[i] as number) - width(text)));
    return columns[i]?.right ? space + text : i === columns.length - 1 ? text : text + space;
  };
  const lines = cells.map((line, r) =>
    line
      .map((text, i) => paint(columns[i]?.colour?.(rows[r] as Row), pad(text, i)))
      .join("  ")
      .trimEnd(),
  );
  if (options.header !== false)
    lines.unshift(
      paint(
        "bold",
        columns
          .map((column, i) => pad(column.title, i))
          .join("  ")
          .trimEnd(),
      ),
    );
  return lines.map((line) => `${line}\n`).join("");
}

/** `label: value` lines, aligned. */
export function fields(
  entries: readonly (readonly [string, string | undefined])[],
  io: Pick<Io, "colour">,
  indent = "",
): string {
  const paint = painter(io.colour);
  const shown = entries.filter(
    (entry): entry is readonly [string, string] => entry[1] !== undefined && entry[1] !== "",
  );
  const wide = Math.max(0, ...shown.map(([label]) => width(label)));
  return shown
    .map(
      ([label, value]) =>
        `${indent}${paint("dim", `${label}:`)}${" ".repeat(wide - width(label) + 2)}${value.split("\n").join(`\n${indent}${" ".repeat(wide + 3)}`)}\n`,
    )
    .join("");
}

/** 850ms, 4.2s, 3m12s, 5h4m, 2d3h: two units at most. */
export function duration(ms: number): string {
  if (ms < 0) return `-${duration(-ms)}`;
  if (ms < 1000) return `${Math.round(ms)}ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1).replace(/\.0$/, "")}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const two = (big: number, bigName: string, small: number, smallName: string) =>
    `${big}${bigName}${small > 0 ? `${small}${smallName}` : ""}`;
  if (seconds < 3600) return two(Math.floor(seconds / 60), "m", seconds % 60, "s");
  if (seconds < 86_400) return two(Math.floor(seconds / 3600), "h", Math.floor((seconds % 3600) / 60), "m");
  return two(Math.floor(seconds / 86_400), "d", Math.floor((seconds % 86_400) / 3600), "h");
}

/** Time since then, in one unit, as kubectl's AGE. */
export function age(at: string | undefined, now: number): string {
  if (at === undefined) return "";
  const seconds = Math.max(0, Math.floor((now - Date.parse(at)) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** `12s ago`, `in 3m`, with the exact time beside it. */
export const when = (at: string | undefined, now: number): string | undefined => {
  if (at === undefined) return undefined;
  const apart = now - Date.parse(at);
  return `${at} (${apart >= 0 ? `${duration(apart)} ago` : `in ${duration(-apart)}`})`;
};
