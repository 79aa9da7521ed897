import { languageNamed } from "../language.ts";
import type { Report } from "./report.ts";
import { age, bytes, count, percent, plural } from "./words.ts";

export type Verdict = "good" | "fair" | "poor" | "plain";
export type Card = { id: string; label: string; value: string; detail: string; verdict: Verdict };
export type Finding = { weight: number; title: string; why: string; places: { path: string; line?: number }[] };
export type Judgment = {
  grade: "A" | "B" | "C" | "D" | "E" | "–";
  cards: Card[];
  findings: Finding[];
  summary: string;
};

const scale = (value: number, good: number, fair: number): Verdict =>
  value >= good ? "good" : value >= fair ? "fair" : "poor";
const upTo = (value: number, good: number, fair: number): Verdict =>
  value <= good ? "good" : value <= fair ? "fair" : "poor";
const worst = (...verdicts: Verdict[]): Verdict =>
  verdicts.includes("poor") ? "poor" : verdicts.includes("fair") ? "fair" : "good";
const day = 86_400_000;

/** Opinions, each from a number the report shows. The thresholds are common rules of thumb, not laws. */
export const judge = (report: Report): Judgment => {
  const { overview, languages, ownership, todos, locks, duplicates, tests, large } = report;
  // Data and prose are counted in their table, but nobody would call them code.
  const written = languages.languages.filter((row) => ["code", "markup"].includes(languageNamed(row.name)?.kind ?? ""));
  const code = written.reduce((sum, row) => sum + row.code, 0);
  const main = written[0];
  const programming = tests.rows.reduce((sum, row) => sum + row.sourceCode + row.testCode, 0);
  const cards: Card[] = [];
  cards.push({
    id: "languages",
    label: "Code",
    value: plural(code, "line"),
    detail: main
      ? `${percent(main.code / code)} ${main.name}, ${plural(overview.files, "file")} in all`
      : "no source files",
    verdict: "plain",
  });

  const idle = overview.lastAt ? (report.at - Date.parse(overview.lastAt)) / day : undefined;
  const recent = overview.weeks.slice(-13).reduce((sum, value) => sum + value, 0);
  cards.push({
    id: "activity",
    label: "Activity",
    value: idle === undefined ? "none yet" : plural(recent, "commit"),
    detail: idle === undefined ? "no commits" : `in the last 13 weeks of history; the newest ${age(idle * day)} ago`,
    verdict: idle === undefined ? "plain" : upTo(idle, 120, 365),
  });

  cards.push({
    id: "ownership",
    label: "Bus factor",
    value: ownership.ownerCount === 0 ? "–" : String(ownership.busFactor),
    detail:
      ownership.ownerCount === 0
        ? "no code lines to ask about"
        : ownership.ownerCount === 1
          ? `everything was written by ${ownership.owners[0]?.name}`
          : `${ownership.busFactor === 1 ? `${ownership.owners[0]?.name} wrote` : `${ownership.busFactor} of ${ownership.ownerCount} people wrote`} more than half of today's code`,
    verdict: ownership.ownerCount === 0 ? "plain" : scale(ownership.busFactor, 3, 2),
  });

  const hasTestable = tests.sourceFiles > 0;
  cards.push({
    id: "tests",
    label: "Tests",
    value: programming === 0 ? "–" : plural(tests.cases, "case"),
    detail: hasTestable
      ? `${percent(tests.reached)} of source code is in files some test names or imports`
      : "no source files that could be tested",
    verdict: hasTestable ? (tests.cases === 0 ? "poor" : scale(tests.reached, 0.7, 0.4)) : "plain",
  });

  const copied = duplicates.source.lines > 0 ? duplicates.source.duplicated / duplicates.source.lines : 0;
  const copiedTests = duplicates.tests.lines > 0 ? duplicates.tests.duplicated / duplicates.tests.lines : 0;
  cards.push({
    id: "duplicates",
    label: "Duplication",
    value: percent(copied),
    detail:
      duplicates.groups === 0
        ? "no copy of 8 lines or more"
        : `of source appears twice or more, in passages of 8 lines and up${copiedTests > 0 ? `; ${percent(copiedTests)} of tests` : ""}`,
    verdict: duplicates.source.lines === 0 ? "plain" : upTo(copied, 0.05, 0.15),
  });

  const packages = locks.reduce((sum, lock) => sum + lock.packages, 0);
  const twice = locks.reduce((sum, lock) => sum + lock.duplicates.length, 0);
  const deprecated = locks.flatMap((lock) => lock.flagged.filter((entry) => entry.flag === "deprecated"));
  cards.push({
    id: "dependencies",
    label: "Dependencies",
    value: packages === 0 ? "none locked" : count(packages),
    detail:
      packages === 0
        ? report.unlocked.length > 0
          ? `${plural(report.unlocked.length, "manifest")} without a lock file`
          : "no lock files"
        : `in ${plural(locks.length, "lock file")}; ${twice === 0 ? "none" : count(twice)} in several versions${deprecated.length > 0 ? `, ${deprecated.length} deprecated` : ""}`,
    verdict:
      packages === 0
        ? report.unlocked.length > 0
          ? "fair"
          : "plain"
        : worst(
            upTo(twice / packages, 0.05, 0.15),
            upTo(deprecated.length, 0, 5),
            report.unlocked.length > 0 ? "fair" : "good",
          ),
  });

  const oldest = todos.find((todo) => todo.at !== undefined);
  const oldestAge = oldest?.at ? report.at - Date.parse(oldest.at) : 0;
  const perThousand = code > 0 ? (todos.length * 1000) / code : 0;
  cards.push({
    id: "todos",
    label: "Open marks",
    value: count(todos.length),
    detail: oldest
      ? `TODO, FIXME, HACK; the oldest is ${age(oldestAge)} old`
      : todos.length === 0
        ? "no TODO, FIXME or HACK in comments"
        : "TODO, FIXME, HACK in comments",
    verdict:
      code === 0 ? "plain" : worst(upTo(perThousand, 1.5, 5), upTo(oldestAge / day, 3 * 365, Number.POSITIVE_INFINITY)),
  });

  cards.push({
    id: "large-files",
    label: "Weight",
    value: bytes(large.packBytes || overview.bytes),
    detail:
      large.ghostBytes > 0
        ? `with history; ${bytes(large.ghostBytes)} of it are older versions and files long gone`
        : "with history",
    verdict: overview.commits === 0 ? "plain" : upTo(large.packBytes, 100e6, 500e6),
  });

  const basics = [
    ["a README", overview.readme !== undefined && overview.readme.words >= 50],
    ["a licence", overview.license !== undefined],
    ["CI", overview.ci.length > 0],
    ["a changelog", overview.community.changelog || overview.tags > 0],
    ["how to contribute", overview.community.contributing],
  ] as const;
  const missing = basics.filter(([, there]) => !there).map(([label]) => label);
  cards.push({
    id: "overview",
    label: "Basics",
    value: `${basics.length - missing.length} of ${basics.length}`,
    detail:
      missing.length === 0 ? "README, licence, CI, releases, how to contribute" : `missing: ${missing.join(", ")}`,
    verdict: overview.commits === 0 ? "plain" : upTo(missing.length, 1, 2),
  });

  const judged = cards.filter((card) => card.verdict !== "plain");
  const score =
    judged.reduce((sum, card) => sum + (card.verdict === "good" ? 1 : card.verdict === "fair" ? 0.5 : 0), 0) /
    judged.length;
  const grade =
    judged.length < 3 ? "–" : score >= 0.85 ? "A" : score >= 0.68 ? "B" : score >= 0.5 ? "C" : score >= 0.3 ? "D" : "E";
  const findings = find(report, { copied, deprecated, missing, oldestAge });
  const good = judged.filter((card) => card.verdict === "good").map((card) => card.label.toLowerCase());
  const poor = judged.filter((card) => card.verdict === "poor").map((card) => card.label.toLowerCase());
  const list = (names: string[]) =>
    names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  const summary =
    overview.commits === 0
      ? "There is no commit yet, so there is nothing to judge."
      : [
          `${report.name} is ${overview.firstAt && overview.lastAt ? `${age(Date.parse(overview.lastAt) - Date.parse(overview.firstAt))} of work` : "work"} by ${plural(overview.contributors, "person", "people")} in ${plural(overview.commits, "commit")}${main && main.code > code / 2 ? `, mostly ${main.name}` : ""}.`,
          good.length > 0 ? `In good order: ${list(good)}.` : "",
          poor.length > 0 ? `Needs care: ${list(poor)}.` : "Nothing stands out as bad.",
        ]
          .filter(Boolean)
          .join(" ");
  return { grade, cards, findings, summary };
};

/** How often, for one file or for several. */
const span = (commits: readonly number[]) => {
  const least = Math.min(...commits);
  const most = Math.max(...commits);
  return `${least < most ? `${count(least)} to ` : ""}${plural(most, "commit")}${commits.length > 1 ? " each" : ""}`;
};

const find = (
  report: Report,
  facts: { copied: number; deprecated: { name: string; version: string }[]; missing: string[]; oldestAge: number },
): Finding[] => {
  const { history, ownership, tests, duplicates, large, locks, todos, overview } = report;
  const findings: Finding[] = [];
  const untested = new Map(tests.untested.map((file) => [file.path, file.code]));
  const risky = history.hotspots.slice(0, 20).filter((spot) => untested.has(spot.path) && spot.commits >= 3);
  if (risky.length > 0)
    findings.push({
      weight: 90,
      title: `${plural(risky.length, "file")} much changed, and no test names ${risky.length === 1 ? "it" : "them"}`,
      why: `Changes concentrate here (${span(risky.map((spot) => spot.commits))} in ${history.window.label}), which is where a missing test costs most.`,
      places: risky.slice(0, 5).map((spot) => ({ path: spot.path })),
    });
  if (tests.sourceFiles > 0 && tests.cases === 0)
    findings.push({
      weight: 85,
      title: "No tests were found",
      why: `${plural(tests.sourceFiles, "source file")}, and none of the usual test names, folders or calls.`,
      places: [],
    });
  const lonely =
    ownership.ownerCount > 1
      ? ownership.folders.filter(
          (folder) => folder.share > 0.85 && folder.lines > Math.max(300, ownership.lines * 0.04),
        )
      : [];
  if (lonely.length > 0)
    findings.push({
      weight: 70,
      title: `${plural(lonely.length, "folder")} known by one person only`,
      why: lonely
        .slice(0, 4)
        .map((folder) => `${folder.owner} wrote ${percent(folder.share)} of ${folder.path}`)
        .join("; "),
      places: [],
    });
  const clone = duplicates.clones.find((entry) => !entry.test);
  if (clone && (facts.copied > 0.05 || clone.lines * (clone.places.length - 1) >= 40))
    findings.push({
      weight: 55 + Math.min(20, facts.copied * 100),
      title: `The same ${clone.lines} lines in ${clone.places.length} places`,
      why: `${percent(facts.copied)} of source lines appear more than once; this copy would save the most if it were written once.`,
      places: clone.places.slice(0, 4).map((place) => ({ path: place.path, line: place.from })),
    });
  if (facts.deprecated.length > 0)
    findings.push({
      weight: 60,
      title: `${plural(facts.deprecated.length, "dependency", "dependencies")} given up by the authors`,
      why: facts.deprecated
        .slice(0, 6)
        .map((entry) => `${entry.name} ${entry.version}`)
        .join(", "),
      places: [],
    });
  const offRegistry = locks.flatMap((lock) => lock.flagged.filter((entry) => entry.flag === "not from a registry"));
  if (offRegistry.length > 0)
    findings.push({
      weight: 45,
      title: `${plural(offRegistry.length, "dependency", "dependencies")} from outside a registry`,
      why: `They can change or vanish without a new version: ${offRegistry
        .slice(0, 5)
        .map((entry) => entry.name)
        .join(", ")}`,
      places: [],
    });
  if (report.unlocked.length > 0)
    findings.push({
      weight: 50,
      title: `${plural(report.unlocked.length, "manifest")} without a lock file`,
      why: "Two installations may get different versions.",
      places: report.unlocked.slice(0, 4).map((path) => ({ path })),
    });
  const many = locks.flatMap((lock) => lock.duplicates).filter((entry) => entry.versions.length > 2);
  if (many.length > 0)
    findings.push({
      weight: 30,
      title: `${plural(many.length, "package")} installed in three or more versions`,
      why: many
        .slice(0, 4)
        .map((entry) => `${entry.name} ${entry.versions.slice(0, 5).join(", ")}`)
        .join("; "),
      places: [],
    });
  const old = todos.filter((todo) => todo.at !== undefined && report.at - Date.parse(todo.at) > 730 * day);
  if (old.length > 0)
    findings.push({
      weight: 35,
      title: `${plural(old.length, "mark")} older than two years`,
      why: "Either the thing is worth doing, or the mark is worth deleting.",
      places: old.slice(0, 4).map((todo) => ({ path: todo.path, line: todo.line })),
    });
  if (tests.skipped > 0)
    findings.push({
      weight: 20 + Math.min(20, tests.skipped / 5),
      title: `${plural(tests.skipped, "test")} switched off`,
      why: "Skipped or left to do; each was a promise once.",
      places: [],
    });
  const ghost = large.ghosts[0];
  if (ghost && ghost.packed > 1e6 && large.ghostBytes > large.packBytes * 0.3)
    findings.push({
      weight: 40,
      title: `Every clone downloads ${bytes(ghost.packed)} of a file that is gone or replaced`,
      why: `${bytes(large.ghostBytes)} of ${bytes(large.packBytes)} are versions no longer in the tree.`,
      places: large.ghosts.slice(0, 3).map(({ path }) => ({ path })),
    });
  if (large.oversized > 0)
    findings.push({
      weight: 25,
      title: `${plural(large.oversized, "text file")} above 500 KB`,
      why: "Written by hand or not, nobody reviews them line by line.",
      places: large.largest
        .filter((file) => file.kind === "source" && file.bytes > 500_000)
        .slice(0, 4)
        .map(({ path }) => ({ path })),
    });
  const first = history.hotspots[0];
  if (first && first.lines > 1000 && first.commits >= 10)
    findings.push({
      weight: 48,
      title: `The hottest file has ${count(first.lines)} lines`,
      why: `${plural(first.commits, "commit")} by ${plural(first.authors, "person", "people")} in ${history.window.label}: a candidate to split.`,
      places: [{ path: first.path }],
    });
  if (overview.commits > 0 && facts.missing.includes("a licence"))
    findings.push({
      weight: 65,
      title: "No licence file",
      why: "Without one, others may not use the code at all.",
      places: [],
    });
  if (overview.commits > 10 && facts.missing.includes("CI"))
    findings.push({
      weight: 58,
      title: "No CI configuration was found",
      why: "Nothing checks a change before it is merged, as far as the repository shows.",
      places: [],
    });
  return findings.sort((a, b) => b.weight - a.weight).slice(0, 8);
};
