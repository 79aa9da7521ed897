import { createHash } from "node:crypto";
import { type File, isTestPath, listFiles, readSources, type Slice, slice } from "../files.ts";
import type { Run } from "../git.ts";
import { countLines, type Language } from "../language.ts";

/**
 * Copies are found as in "Winnowing: Local Algorithms for Document Fingerprinting" (Schleimer, Wilkerson, Aiken; SIGMOD
 * 2003): of every 5 neighbouring hashes of 4 lines the smallest is kept, so that two copies of 8 lines are sure to share one,
 * and a shard sends a third of its lines' hashes instead of its text.
 */
const shingleLines = 4;
const windowHashes = 5;
export const minimumLines = shingleLines + windowHashes - 1;
const maxFingerprints = 40_000;
/** Found this often, it is boilerplate: a few places are enough to tell. */
const maxPlaces = 40;
const maxCodeLines = 20_000;

export type Fingerprints = {
  /** A file's path, its share of significant lines, and its fingerprints: [hash, index of a significant line, …]. */
  files: [path: string, lines: number, prints: number[]][];
  capped: boolean;
};
export type Place = { path: string; from: number; to: number };
export type Clone = { lines: number; places: Place[]; sample: string; test: boolean };
/** Lines that mean something, and those of them that appear elsewhere too; tests apart, since they repeat themselves by nature. */
export type Share = { lines: number; duplicated: number };
export type Duplicates = { clones: Clone[]; groups: number; source: Share; tests: Share; notes: string[] };

export const emptyDuplicates: Duplicates = {
  clones: [],
  groups: 0,
  source: { lines: 0, duplicated: 0 },
  tests: { lines: 0, duplicated: 0 },
  notes: [],
};

const wanted = (file: File) =>
  file.kind === "source" &&
  file.language !== undefined &&
  (file.language.kind === "code" || file.language.name === "CSS" || file.language.name === "SCSS");

type Significant = { text: string; line: number };

/** Lines that carry meaning: no blank or comment lines, lone brackets or imports (which are alike everywhere). */
export const significantLines = (text: string, language: Language | undefined): Significant[] => {
  const lines: Significant[] = [];
  let importing = false;
  countLines(text, language, (line, code) => {
    const trimmed = code.trim().replace(/\s+/g, " ");
    if (importing) {
      importing = !/["'`)];?$/.test(trimmed);
      return;
    }
    if (/^(import|export)\s*\{[^}]*$/.test(trimmed) || /^(from \S+ )?import \($/.test(trimmed)) {
      importing = true;
      return;
    }
    if (lines.length >= maxCodeLines || !/[\p{L}\p{N}]/u.test(trimmed) || plumbing.test(trimmed)) return;
    lines.push({ text: trimmed.slice(0, 400), line });
  });
  return lines;
};
const plumbing =
  /^(import\b|from \S+ import\b|export (\*|\{.*\}) from\b|package\b|using [\w.]+;|use [\w:{}, ]+;|require\b|end$|else$|#include\b)/;

/** FNV-1a over UTF-16 units: quick, and collisions only cost a look, for every match is checked on the text itself. */
const hash = (text: string, seed = 0x811c9dc5) => {
  let value = seed;
  for (let at = 0; at < text.length; at += 1) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193);
  return value >>> 0;
};

export const winnow = (lines: readonly string[]): number[] => {
  const hashes = lines.map((line) => hash(line));
  const shingles: number[] = [];
  for (let at = 0; at + shingleLines <= hashes.length; at += 1) {
    let value = 0x811c9dc5;
    for (let line = at; line < at + shingleLines; line += 1)
      value = Math.imul(value ^ hashes[line]!, 0x01000193) ^ (value >>> 15);
    shingles.push(value >>> 0);
  }
  const prints: number[] = [];
  let last = -1;
  for (let at = 0; at + windowHashes <= shingles.length; at += 1) {
    let smallest = at;
    for (let next = at + 1; next < at + windowHashes; next += 1)
      if (shingles[next]! <= shingles[smallest]!) smallest = next;
    if (smallest !== last) prints.push(shingles[smallest]!, smallest);
    last = smallest;
  }
  return prints;
};

export const fingerprint = async (
  input: { repo: string; commit?: string | undefined; slice?: Slice | undefined },
  run: Run = {},
): Promise<Fingerprints> => {
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const part = slice(listing.files.filter(wanted), input.slice);
  const files: Fingerprints["files"] = [];
  let total = 0;
  let capped = false;
  for await (const { file, text } of readSources(input.repo, part, run)) {
    const lines = significantLines(text, file.language);
    const prints = total < maxFingerprints ? winnow(lines.map((line) => line.text)) : [];
    capped ||= total >= maxFingerprints;
    total += prints.length / 2;
    files.push([file.path, lines.length, prints]);
  }
  return { files, capped };
};

type Spot = { file: number; at: number };

/** Puts the shards' fingerprints together, checks every candidate on the text and grows it to its full length. */
export const matchDuplicates = async (
  input: { repo: string; commit?: string | undefined; parts: readonly Fingerprints[] },
  run: Run = {},
): Promise<Duplicates> => {
  const notes: string[] = [];
  if (input.parts.some((part) => part.capped)) notes.push("Some files were too many to be compared and were left out.");
  const entries = input.parts.flatMap((part) => part.files);
  const places = new Map<number, Spot[]>();
  entries.forEach(([, , prints], file) => {
    for (let at = 0; at < prints.length; at += 2) {
      const list = places.get(prints[at]!);
      if (!list) places.set(prints[at]!, [{ file, at: prints[at + 1]! }]);
      else if (list.length < maxPlaces) list.push({ file, at: prints[at + 1]! });
    }
  });
  const shared = [...places.values()].filter((list) => list.length > 1);
  const involved = new Set(shared.flat().map((spot) => spot.file));
  run.progress?.(20, `${involved.size} files share something`);
  const paths = new Map([...involved].map((file) => [entries[file]![0], file]));
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const texts = new Map<number, { lines: Significant[]; raw: string[]; test: boolean }>();
  const readable = listing.files.filter((file) => paths.has(file.path));
  for await (const { file, text } of readSources(input.repo, readable, { signal: run.signal }))
    texts.set(paths.get(file.path)!, {
      lines: significantLines(text, file.language),
      raw: text.split(/\r\n|\n|\r/),
      test: file.test,
    });

  type Match = { a: Spot; b: Spot; length: number };
  const grown = new Map<string, { from: number; to: number }[]>();
  const matches: Match[] = [];
  let done = 0;
  for (const list of shared) {
    done += 1;
    if (done % 2000 === 0) {
      run.progress?.(20 + (70 * done) / shared.length, `${matches.length} matches`);
      await new Promise((resolve) => setImmediate(resolve));
      run.signal?.throwIfAborted();
    }
    for (let second = 1; second < list.length; second += 1)
      for (const first of new Set([0, second - 1])) {
        const a = list[first]!;
        const b = list[second]!;
        const left = texts.get(a.file)?.lines;
        const right = texts.get(b.file)?.lines;
        if (!left || !right) continue;
        const diagonal = `${a.file}:${b.file}:${b.at - a.at}`;
        const known = grown.get(diagonal) ?? [];
        if (known.some((range) => a.at >= range.from && a.at < range.to)) continue;
        let from = 0;
        let to = 0;
        // Within one file a copy ends where the other begins.
        const limit = a.file === b.file ? Math.abs(b.at - a.at) : Number.POSITIVE_INFINITY;
        while (
          from + to < limit &&
          left[a.at - from - 1] &&
          left[a.at - from - 1]?.text === right[b.at - from - 1]?.text
        )
          from += 1;
        while (from + to < limit && left[a.at + to] && left[a.at + to]?.text === right[b.at + to]?.text) to += 1;
        grown.set(diagonal, [...known, { from: a.at - from, to: a.at + Math.max(1, to) }]);
        const length = from + to;
        if (length >= minimumLines)
          matches.push({ a: { file: a.file, at: a.at - from }, b: { file: b.file, at: b.at - from }, length });
      }
  }

  // Copies of the same text are one group, however many there are.
  const groups = new Map<string, { length: number; spots: Map<string, Spot> }>();
  for (const match of matches) {
    const lines = texts.get(match.a.file)!.lines.slice(match.a.at, match.a.at + match.length);
    const key = createHash("sha1")
      .update(lines.map((line) => line.text).join("\n"))
      .digest("base64");
    const group = groups.get(key) ?? { length: match.length, spots: new Map<string, Spot>() };
    groups.set(key, group);
    for (const spot of [match.a, match.b]) group.spots.set(`${spot.file}:${spot.at}`, spot);
  }
  const covered = new Map<number, Set<number>>();
  const clones = [...groups.values()].map(({ length, spots }): Clone => {
    const list = [...spots.values()].sort((a, b) => a.file - b.file || a.at - b.at);
    const first = texts.get(list[0]!.file)!;
    const start = first.lines[list[0]!.at]!.line;
    const found = list.map((spot): Place => {
      const { lines } = texts.get(spot.file)!;
      const marked = covered.get(spot.file) ?? new Set<number>();
      covered.set(spot.file, marked);
      for (let at = spot.at; at < spot.at + length; at += 1) marked.add(at);
      return { path: entries[spot.file]![0], from: lines[spot.at]!.line, to: lines[spot.at + length - 1]!.line };
    });
    return {
      lines: length,
      places: found.slice(0, 20),
      sample: first.raw
        .slice(start - 1, start + 5)
        .map((row) => row.slice(0, 160))
        .join("\n"),
      test: list.every((spot) => texts.get(spot.file)!.test),
    };
  });
  // Long passages first: the twentieth copy of a short one is rarely worth more than the fourth.
  const weight = (clone: Clone) => (clone.lines ** 1.3 * Math.min(4, clone.places.length - 1)) / (clone.test ? 3 : 1);
  // A copy that overlaps what is already listed, in all of its places, is the same finding once more.
  const overlaps = (one: Place, other: Place) =>
    one.path === other.path && one.from <= other.to && one.to >= other.from;
  const kept: Clone[] = [];
  for (const clone of clones.sort(
    (a, b) => weight(b) - weight(a) || a.places[0]!.path.localeCompare(b.places[0]!.path),
  )) {
    if (kept.length >= 60) break;
    if (!kept.some((other) => clone.places.every((place) => other.places.some((known) => overlaps(place, known)))))
      kept.push(clone);
  }
  const source: Share = { lines: 0, duplicated: 0 };
  const tests: Share = { lines: 0, duplicated: 0 };
  entries.forEach(([path, lines], file) => {
    const share = isTestPath(path) ? tests : source;
    share.lines += lines;
    share.duplicated += covered.get(file)?.size ?? 0;
  });
  return { clones: kept, groups: groups.size, source, tests, notes };
};
