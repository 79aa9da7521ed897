import { visible } from "../report/words.ts";

const wide =
  /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}|\p{Emoji_Presentation}|[\uff01-\uff60]/u;
const combining = /\p{M}/u;

/** Columns a terminal gives to a text without control sequences. */
export const width = (text: string) => {
  let columns = 0;
  for (const letter of text) columns += combining.test(letter) ? 0 : wide.test(letter) ? 2 : 1;
  return columns;
};

/** Cut to at most `columns`, with an ellipsis where something is missing. Nothing in it can move the cursor. */
export const cut = (text: string, columns: number) => {
  const shown = visible(text);
  if (width(shown) <= columns) return shown;
  let out = "";
  let used = 0;
  for (const letter of shown) {
    const more = width(letter);
    if (used + more > columns - 1) break;
    out += letter;
    used += more;
  }
  return columns > 0 ? `${out}…` : "";
};
/** Cut or filled to exactly `columns`. */
export const fit = (text: string, columns: number) => {
  const short = cut(text, columns);
  return short + " ".repeat(Math.max(0, columns - width(short)));
};

export type Paint = Record<"bold" | "dim" | "honey" | "green" | "red" | "cyan", (text: string) => string>;
export const paint = (colors: boolean): Paint => {
  const with_ = (code: string) => (text: string) => (colors && text !== "" ? `\x1b[${code}m${text}\x1b[0m` : text);
  return {
    bold: with_("1"),
    dim: with_("2"),
    honey: with_("33"),
    green: with_("32"),
    red: with_("31"),
    cyan: with_("36"),
  };
};

/** https://no-color.org: any value that is not empty. */
export const wantsColors = (stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv) =>
  stream.isTTY === true && !env.NO_COLOR && env.TERM !== "dumb";

const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/** A bar of exactly `columns`, in eighths of a column. */
export const bar = (share: number, columns: number, colors: Paint) => {
  const units = Math.round(Math.max(0, Math.min(1, share)) * columns * 8);
  const full = Math.floor(units / 8);
  const part = eighths[units % 8] ?? "";
  return colors.honey("█".repeat(full) + part) + colors.dim("·".repeat(columns - full - (part ? 1 : 0)));
};
