import { type File, listFiles, readSources, type Slice, slice } from "../files.ts";
import type { Run } from "../git.ts";
import { type Count, countLines } from "../language.ts";

export type LanguageRow = Count & { name: string; files: number; bytes: number; testCode: number };
export type Languages = {
  languages: LanguageRow[];
  /** Lines of the slice's source files, in the slice's order; 0 for what was not read. */
  lines: number[];
  other: Record<"vendored" | "generated" | "lock" | "binary" | "large" | "unknown", { files: number; bytes: number }>;
};

const none = () => ({ files: 0, bytes: 0 });

/** Files and lines by language, hand-written source only. */
export const countLanguages = async (
  input: { repo: string; commit?: string | undefined; slice?: Slice | undefined },
  run: Run = {},
): Promise<Languages> => {
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const part = slice(listing.files, input.slice);
  const rows = new Map<string, LanguageRow>();
  const other: Languages["other"] = {
    vendored: none(),
    generated: none(),
    lock: none(),
    binary: none(),
    large: none(),
    unknown: none(),
  };
  const aside = (file: File, why: keyof Languages["other"]) => {
    other[why].files += 1;
    other[why].bytes += file.size;
  };
  const sources: File[] = [];
  for (const file of part) {
    if (file.kind === "source") sources.push(file);
    else aside(file, file.kind);
  }
  const linesOf = new Map<string, number>();
  for await (const { file, text } of readSources(input.repo, sources, run, aside)) {
    if (!file.language) {
      aside(file, "unknown");
      continue;
    }
    const count = countLines(text, file.language);
    linesOf.set(file.path, count.lines);
    const row = rows.get(file.language.name) ?? {
      name: file.language.name,
      files: 0,
      bytes: 0,
      testCode: 0,
      lines: 0,
      code: 0,
      comment: 0,
      blank: 0,
    };
    rows.set(row.name, row);
    row.files += 1;
    row.bytes += file.size;
    row.lines += count.lines;
    row.code += count.code;
    row.comment += count.comment;
    row.blank += count.blank;
    if (file.test) row.testCode += count.code;
  }
  return {
    languages: [...rows.values()].sort((a, b) => b.code - a.code),
    lines: sources.map((file) => linesOf.get(file.path) ?? 0),
    other,
  };
};

export const mergeLanguages = (parts: readonly Languages[]): Omit<Languages, "lines"> => {
  const rows = new Map<string, LanguageRow>();
  const other: Languages["other"] = {
    vendored: none(),
    generated: none(),
    lock: none(),
    binary: none(),
    large: none(),
    unknown: none(),
  };
  for (const part of parts) {
    for (const row of part.languages) {
      const sum = rows.get(row.name);
      if (!sum) rows.set(row.name, { ...row });
      else
        for (const key of ["files", "bytes", "testCode", "lines", "code", "comment", "blank"] as const)
          sum[key] += row[key];
    }
    for (const key of Object.keys(other) as (keyof typeof other)[]) {
      other[key].files += part.other[key].files;
      other[key].bytes += part.other[key].bytes;
    }
  }
  return { languages: [...rows.values()].sort((a, b) => b.code - a.code || b.lines - a.lines), other };
};

/** Lines of every source file, put together from the slices (all of them, in order; undefined for one that is missing). */
export const linesByPath = (files: readonly File[], parts: readonly (Languages | undefined)[]) => {
  const lines = new Map<string, number>();
  parts.forEach((part, index) => {
    const sources = slice(files, { index, of: parts.length }).filter((file) => file.kind === "source");
    sources.forEach((file, at) => {
      lines.set(file.path, part?.lines[at] ?? 0);
    });
  });
  return lines;
};
