import { listFiles } from "../files.ts";
import { git, gitFields, gitText, type Run, readBlobs } from "../git.ts";
import { basename, dirname } from "../language.ts";

export type Overview = {
  name: string;
  remote?: string;
  branch?: string;
  commit?: string;
  subject?: string;
  shallow: boolean;
  commits: number;
  merges: number;
  contributors: number;
  /** Contributors with a commit in the 90 days before the newest one. */
  activeContributors: number;
  firstAt?: string;
  lastAt?: string;
  branches: number;
  tags: number;
  latestTag?: string;
  files: number;
  bytes: number;
  submodules: number;
  symlinks: number;
  /** Commits a week, oldest first; the last week ends with the newest commit. */
  weeks: number[];
  license?: string;
  readme?: { path: string; words: number };
  ci: string[];
  community: Record<
    "contributing" | "changelog" | "security" | "codeOwners" | "editorConfig" | "codeOfConduct",
    boolean
  >;
  packages: { path: string; name: string; kind: string }[];
  notes: string[];
};

const weekSeconds = 7 * 86_400;

/** A remote's address may carry a password; it never reaches a report. */
export const publicRemote = (remote: string) => remote.replace(/^(\w+:\/\/)[^/@]*@/, "$1").replace(/\.git$/, "");

const licenses: readonly (readonly [RegExp, string])[] = [
  [/GNU AFFERO GENERAL PUBLIC LICENSE/i, "AGPL-3.0"],
  [/GNU LESSER GENERAL PUBLIC LICENSE/i, "LGPL"],
  [/GNU GENERAL PUBLIC LICENSE\s+Version 3/i, "GPL-3.0"],
  [/GNU GENERAL PUBLIC LICENSE\s+Version 2/i, "GPL-2.0"],
  [/Apache License,?\s+Version 2\.0/i, "Apache-2.0"],
  [/Mozilla Public License.{0,20}2\.0/is, "MPL-2.0"],
  [/Business Source License/i, "BUSL"],
  [/Permission is hereby granted, free of charge/i, "MIT"],
  [/Permission to use, copy, modify, and(\/or)? distribute/i, "ISC"],
  [/Redistribution and use in source and binary forms[\s\S]*Neither the name/i, "BSD-3-Clause"],
  [/Redistribution and use in source and binary forms/i, "BSD-2-Clause"],
  [/This is free and unencumbered software/i, "Unlicense"],
  [/CC0 1\.0|Creative Commons/i, "Creative Commons"],
];

const ciFiles: readonly (readonly [RegExp, string])[] = [
  [/^\.github\/workflows\/[^/]+\.ya?ml$/, "GitHub Actions"],
  [/^\.gitlab-ci\.ya?ml$/, "GitLab CI"],
  [/^\.circleci\/config\.ya?ml$/, "CircleCI"],
  [/^\.travis\.ya?ml$/, "Travis CI"],
  [/^\.?azure-pipelines(\.ya?ml$|\/)/, "Azure Pipelines"],
  [/^Jenkinsfile$/, "Jenkins"],
  [/^\.buildkite\//, "Buildkite"],
  [/^\.drone\.ya?ml$/, "Drone"],
  [/^bitbucket-pipelines\.yml$/, "Bitbucket Pipelines"],
  [/^\.cirrus\.ya?ml$/, "Cirrus CI"],
  [/^\.woodpecker/, "Woodpecker"],
  [/^\.?appveyor\.ya?ml$/, "AppVeyor"],
  [/^\.semaphore\//, "Semaphore"],
  [/^\.(forgejo|gitea)\/workflows\/[^/]+\.ya?ml$/, "Forgejo Actions"],
  [/^\.build\.yml$|^\.builds\//, "SourceHut"],
  [/^buildspec\.ya?ml$/, "AWS CodeBuild"],
  [/^cloudbuild\.ya?ml$/, "Google Cloud Build"],
  // Of no service: a script that any of them can call.
  [/^\.?ci\//, "scripts of its own"],
];

const manifests: Readonly<Record<string, string>> = {
  "package.json": "npm",
  "Cargo.toml": "cargo",
  "go.mod": "go",
  "pyproject.toml": "python",
  "setup.py": "python",
  "composer.json": "composer",
  "pom.xml": "maven",
  "build.gradle": "gradle",
  "build.gradle.kts": "gradle",
  "mix.exs": "mix",
  "pubspec.yaml": "pub",
};

export const emptyOverview = (name: string): Overview => ({
  name,
  shallow: false,
  commits: 0,
  merges: 0,
  contributors: 0,
  activeContributors: 0,
  branches: 0,
  tags: 0,
  files: 0,
  bytes: 0,
  submodules: 0,
  symlinks: 0,
  weeks: [],
  ci: [],
  community: {
    contributing: false,
    changelog: false,
    security: false,
    codeOwners: false,
    editorConfig: false,
    codeOfConduct: false,
  },
  packages: [],
  notes: [],
});

/** What a newcomer asks first: how old, how busy, by how many, under which licence, with what around it. */
export const overview = async (
  input: { repo: string; commit?: string | undefined; name: string },
  run: Run = {},
): Promise<Overview> => {
  const { repo, commit } = input;
  const { signal } = run;
  const text = async (...args: string[]) =>
    (await git(repo, args, { signal, allow: [0, 1, 2, 128] })).bytes.toString("utf8").trim();
  const remote = publicRemote(await text("config", "--get", "remote.origin.url"));
  const branch = await text("symbolic-ref", "--quiet", "--short", "HEAD");
  const branches = (await text("for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes"))
    .split("\n")
    .filter((ref) => ref !== "" && !ref.endsWith("/HEAD"))
    .map((ref) => ref.replace(/^refs\/heads\/|^refs\/remotes\/[^/]+\//, ""));
  const tags = (await text("for-each-ref", "--sort=-creatordate", "--format=%(refname:short)", "refs/tags"))
    .split("\n")
    .filter(Boolean);
  const base: Overview = {
    ...emptyOverview(input.name),
    ...(remote && /^\w+(:\/\/|@)/.test(remote) ? { remote } : {}),
    ...(branch ? { branch } : {}),
    shallow: (await text("rev-parse", "--is-shallow-repository")) === "true",
    branches: new Set(branches).size,
    tags: tags.length,
    ...(tags[0] ? { latestTag: tags[0] } : {}),
  };
  if (commit === undefined) {
    base.notes.push("The repository has no commit yet, so there is nothing to measure.");
    return base;
  }
  run.progress?.(10, "commits");
  const [subject, lastSeconds] = (await gitText(repo, ["log", "-1", "--format=%s%x1f%ct", commit], { signal })).split(
    "\x1f",
  ) as [string, string];
  base.commit = commit;
  base.subject = subject;
  base.commits = Number(await gitText(repo, ["rev-list", "--count", commit], { signal }));
  base.merges = Number(await gitText(repo, ["rev-list", "--count", "--min-parents=2", commit], { signal }));
  const roots = (await gitText(repo, ["log", "--max-parents=0", "--format=%ct", commit], { signal }))
    .split("\n")
    .map(Number);
  const last = Number(lastSeconds);
  base.lastAt = new Date(last * 1000).toISOString();
  base.firstAt = new Date(Math.min(...roots, last) * 1000).toISOString();
  if (base.shallow) base.notes.push("This is a shallow clone: history before its cut-off is not known here.");

  run.progress?.(40, "contributors");
  const people = (await gitText(repo, ["shortlog", "-s", "-n", "-e", commit], { signal })).split("\n").filter(Boolean);
  base.contributors = new Set(people.map((row) => row.replace(/^\s*\d+\s+/, "").replace(/ <.*$/, ""))).size;

  run.progress?.(60, "activity");
  const from = last - 52 * weekSeconds;
  const { fields } = await gitFields(repo, ["log", "-z", `--since=@${from}`, "--format=%ct%x1f%aN", commit], {
    signal,
  });
  const rest = (await gitFields(repo, ["log", "-z", "-1", "--format=%ct%x1f%aN", commit], { signal })).fields;
  base.weeks = new Array<number>(52).fill(0);
  const active = new Set<string>();
  for (const row of fields.length > 0 ? fields : rest) {
    const [seconds, author] = row.split("\x1f") as [string, string];
    const age = last - Number(seconds);
    const week = 51 - Math.floor(age / weekSeconds);
    if (week >= 0 && week < 52) base.weeks[week]! += 1;
    if (age <= 90 * 86_400) active.add(author);
  }
  base.activeContributors = active.size;

  run.progress?.(80, "files");
  const listing = await listFiles(repo, commit, signal);
  base.files = listing.files.length;
  base.bytes = listing.files.reduce((sum, file) => sum + file.size, 0);
  base.submodules = listing.submodules.length;
  base.symlinks = listing.symlinks;
  if (listing.capped) base.notes.push(`Only the first ${listing.files.length} files were looked at.`);
  if (listing.submodules.length > 0) base.notes.push(`${listing.submodules.length} submodules were left out.`);

  const paths = listing.files.map((file) => file.path);
  base.ci = [
    ...new Set(paths.flatMap((path) => ciFiles.filter(([pattern]) => pattern.test(path)).map(([, label]) => label))),
  ];
  const has = (pattern: RegExp) => paths.some((path) => pattern.test(path));
  base.community = {
    contributing: has(/^(docs\/|\.github\/)?CONTRIBUTING(\.\w+)?$/i),
    changelog: has(/^(docs\/)?(CHANGELOG|CHANGES|HISTORY|NEWS)(\.\w+)?$/i),
    security: has(/^(docs\/|\.github\/)?SECURITY(\.\w+)?$/i),
    codeOwners: has(/^(docs\/|\.github\/)?CODEOWNERS$/),
    editorConfig: has(/^\.editorconfig$/),
    codeOfConduct: has(/^(docs\/|\.github\/)?CODE_OF_CONDUCT(\.\w+)?$/i),
  };
  const shortest = (pattern: RegExp) =>
    listing.files
      .filter((file) => pattern.test(file.path) && file.size < 1e6)
      .sort((a, b) => a.path.length - b.path.length)[0];
  const readme = shortest(/^(docs\/|\.github\/)?README(\.\w+)?$/i);
  const license = shortest(/^(LICEN[CS]E|COPYING|UNLICENSE)([.-][\w.-]+)?$/i);
  const wanted = listing.files
    .filter((file) => file.kind === "source" && !file.test && manifests[basename(file.path)] && file.size < 1e6)
    .slice(0, 200);
  for await (const { blob, bytes } of readBlobs(
    repo,
    [readme, license, ...wanted].filter((file) => file !== undefined),
    signal,
  )) {
    const content = bytes.toString("utf8");
    if (blob === readme)
      base.readme = { path: blob.path, words: content.match(/[\p{L}\p{N}][\p{L}\p{N}'’-]*/gu)?.length ?? 0 };
    if (blob === license) base.license = licenses.find(([pattern]) => pattern.test(content))?.[1] ?? "its own text";
    const kind = manifests[basename(blob.path)];
    if (kind && blob !== readme && blob !== license)
      base.packages.push({
        path: dirname(blob.path) || ".",
        name: packageName(content, kind) ?? (basename(dirname(blob.path)) || input.name),
        kind,
      });
  }
  return base;
};

const packageName = (content: string, kind: string) => {
  if (kind === "npm" || kind === "composer") return /"name"\s*:\s*"([^"\n]{1,200})"/.exec(content)?.[1];
  if (kind === "go") return /^module\s+(\S+)/m.exec(content)?.[1];
  return /^name\s*[:=]\s*"?([^"\n]{1,200}?)"?\s*$/m.exec(content)?.[1];
};
