export const count = (value: number) => Math.round(value).toLocaleString("en-US");
export const plural = (value: number, one: string, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
export const percent = (share: number) =>
  share > 0 && share < 0.01 ? "< 1 %" : share > 0.99 && share < 1 ? "> 99 %" : `${Math.round(share * 100)} %`;

export const bytes = (value: number) => {
  if (value < 1000) return `${Math.round(value)} B`;
  for (const [unit, size] of [
    ["KB", 1e3],
    ["MB", 1e6],
    ["GB", 1e9],
  ] as const)
    if (value < size * 999.5 || unit === "GB") return `${(value / size).toFixed(value < size * 9.95 ? 1 : 0)} ${unit}`;
  return "";
};

export const seconds = (milliseconds: number) =>
  milliseconds < 950
    ? `${Math.max(0, Math.round(milliseconds))} ms`
    : milliseconds < 9950
      ? `${(milliseconds / 1000).toFixed(1)} s`
      : milliseconds < 120_000
        ? `${Math.round(milliseconds / 1000)} s`
        : `${Math.round(milliseconds / 60_000)} min`;

export const age = (milliseconds: number) => {
  const days = milliseconds / 86_400_000;
  if (milliseconds < 3_600_000) return "less than an hour";
  if (days < 1) return plural(Math.max(0, Math.floor(milliseconds / 3_600_000)), "hour");
  if (days < 60) return plural(Math.floor(days), "day");
  if (days < 730) return plural(Math.floor(days / 30.44), "month");
  return plural(Math.floor(days / 365.25), "year");
};

export const date = (time: string | number | undefined) =>
  time === undefined ? "–" : new Date(time).toISOString().slice(0, 10);

/** Names from a repository are shown as they are, except for what would hide or reorder text. */
export const visible = (text: string) =>
  text.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]/g, (letter) =>
    letter === "\t"
      ? "\\t"
      : letter === "\n"
        ? "\\n"
        : letter === "\r"
          ? "\\r"
          : `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );

export const median = (values: readonly number[]) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length === 0
    ? 0
    : (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
};
