import { type File, type Kind, listFiles } from "../files.ts";
import { gitPipe, gitText, type Run, readBlobs } from "../git.ts";
import { extension } from "../language.ts";

export type Large = {
  largest: { path: string; bytes: number; kind: string }[];
  /** Text written by hand above 500 KB. */
  oversized: number;
  binaries: { extension: string; files: number; bytes: number }[];
  binaryBytes: number;
  /** What a clone pays for and the tree has no more: versions above 100 KB, by path. */
  ghosts: { path: string; versions: number; bytes: number; packed: number }[];
  ghostBytes: number;
  historyBytes: number;
  packBytes: number;
  notes: string[];
};

export const emptyLarge: Large = {
  largest: [],
  oversized: 0,
  binaries: [],
  binaryBytes: 0,
  ghosts: [],
  ghostBytes: 0,
  historyBytes: 0,
  packBytes: 0,
  notes: [],
};

const maxObjects = 400_000;

/** What weighs: in the tree, and in the history behind it. */
export const findLarge = async (
  input: { repo: string; commit?: string | undefined },
  run: Run = {},
): Promise<Large> => {
  const { repo, commit } = input;
  const { signal } = run;
  const listing = await listFiles(repo, commit, signal);
  // A name that says nothing may hide a binary file; the large ones are worth a look.
  const suspects = listing.files
    .filter((file) => file.kind === "source" && file.size > 300_000 && file.size < 64e6)
    .slice(0, 100);
  const kinds = new Map<File, Kind>();
  for await (const { blob, bytes } of readBlobs(repo, suspects, signal))
    if (bytes.subarray(0, 8000).includes(0)) kinds.set(blob, "binary");
  const kindOf = (file: File) => kinds.get(file) ?? file.kind;
  const binaries = new Map<string, { extension: string; files: number; bytes: number }>();
  for (const file of listing.files) {
    if (kindOf(file) !== "binary") continue;
    const name = extension(file.path) || "(none)";
    const row = binaries.get(name) ?? { extension: name, files: 0, bytes: 0 };
    binaries.set(name, row);
    row.files += 1;
    row.bytes += file.size;
  }
  const answer: Large = {
    largest: [...listing.files]
      .sort((a, b) => b.size - a.size)
      .slice(0, 20)
      .map((file) => ({ path: file.path, bytes: file.size, kind: kindOf(file) })),
    oversized: listing.files.filter((file) => kindOf(file) === "source" && file.size > 500_000).length,
    binaries: [...binaries.values()].sort((a, b) => b.bytes - a.bytes).slice(0, 20),
    binaryBytes: [...binaries.values()].reduce((sum, row) => sum + row.bytes, 0),
    ghosts: [],
    ghostBytes: 0,
    historyBytes: 0,
    packBytes: 0,
    notes: [],
  };
  const counts = Object.fromEntries(
    (await gitText(repo, ["count-objects", "-v"], { signal })).split("\n").map((row) => row.split(": ")),
  );
  answer.packBytes = (Number(counts["size-pack"] ?? 0) + Number(counts.size ?? 0)) * 1024;
  if (commit === undefined) return answer;
  const objects = Number(counts.count ?? 0) + Number(counts["in-pack"] ?? 0);
  if (objects > maxObjects) {
    answer.notes.push(`History has ${objects} objects; above ${maxObjects} they are not searched for large files.`);
    return answer;
  }
  run.progress?.(30, `${objects} objects in history`);
  const bytes = await gitPipe(
    repo,
    ["rev-list", "--objects", "--no-object-names", "--missing=allow-any", "--all", commit],
    ["cat-file", "--batch-check=%(objecttype) %(objectname) %(objectsize) %(objectsize:disk)"],
    { signal },
  );
  run.progress?.(80, "weighing");
  const here = new Set(listing.files.map((file) => file.oid));
  const ghosts: { oid: string; bytes: number; packed: number }[] = [];
  let missing = 0;
  for (const row of bytes.toString("latin1").split("\n")) {
    const [type, oid, size, packed] = row.split(" ");
    if (oid === "missing") missing += 1;
    if (type !== "blob") continue;
    answer.historyBytes += Number(size);
    if (here.has(oid!)) continue;
    answer.ghostBytes += Number(packed);
    if (Number(size) > 100_000) ghosts.push({ oid: oid!, bytes: Number(size), packed: Number(packed) });
  }
  if (missing > 0)
    answer.notes.push(`This is a partial clone: ${missing} objects of its history are not here and were not weighed.`);
  const top = ghosts.sort((a, b) => b.packed - a.packed).slice(0, 500);
  if (top.length > 0) {
    const byPath = new Map<string, Large["ghosts"][number]>();
    const wanted = new Map(top.map((ghost) => [ghost.oid, ghost]));
    const names = await gitText(repo, ["rev-list", "--objects", "--missing=allow-any", "--all", commit], { signal });
    for (const row of names.split("\n")) {
      const ghost = wanted.get(row.slice(0, row.indexOf(" ")));
      if (!ghost) continue;
      const path = row.slice(row.indexOf(" ") + 1);
      const sum = byPath.get(path) ?? { path, versions: 0, bytes: 0, packed: 0 };
      byPath.set(path, sum);
      sum.versions += 1;
      sum.bytes += ghost.bytes;
      sum.packed += ghost.packed;
    }
    answer.ghosts = [...byPath.values()].sort((a, b) => b.packed - a.packed).slice(0, 15);
  }
  return answer;
};
