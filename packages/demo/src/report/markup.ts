import { visible } from "./words.ts";

/** Text that is HTML already; everything else is escaped when it is put in. */
export type Html = { html: string };
type Value = Html | string | number | undefined | false | readonly Value[];

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "`": "&#96;",
};
export const escapeHtml = (text: string) => visible(text).replace(/[&<>"'`]/g, (letter) => entities[letter]!);

const put = (value: Value): string => {
  if (value === undefined || value === false) return "";
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return escapeHtml(value);
  if ("html" in value) return value.html;
  return value.map(put).join("");
};

/** A template whose values are escaped, unless they came from such a template. */
export const h = (parts: TemplateStringsArray, ...values: Value[]): Html => ({
  html: parts.map((part, index) => part + (index < values.length ? put(values[index]) : "")).join(""),
});
/** For text that is to keep its lines (code). */
export const code = (text: string): Html => ({ html: text.split("\n").map(escapeHtml).join("\n") });
export const raw = (html: string): Html => ({ html });
