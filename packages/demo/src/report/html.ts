import { languageNamed } from "../language.ts";
import { activityChart, fleetChart, ganttChart, hotspotMap, languageBar, stageColors, yearChart } from "./charts.ts";
import { type Judgment, judge } from "./judge.ts";
import { code, type Html, h, raw } from "./markup.ts";
import type { Report } from "./report.ts";
import { style } from "./style.ts";
import { age, bytes, count, date, median, percent, plural, seconds } from "./words.ts";

const mark = raw(
  `<svg class="mark" viewBox="0 0 100 100" aria-hidden="true"><path d="M50 4 90 27v46L50 96 10 73V27z"/><path class="dance" d="M50 50c-14-20-34-6-22 6 8 8 18 2 22-6s14-20 26-8c10 12-12 28-26 2z"/></svg>`,
);

/** A page of the repository's host for a file, where the remote is one whose addresses are known. */
export const linker = (report: Report) => {
  const remote = (report.overview.remote ?? "").replace(/^(?:ssh:\/\/)?git@([\w.-]+)[:/]/, "https://$1/");
  const host = /^https:\/\/(github\.com|gitlab\.com|codeberg\.org)\/[\w./-]+$/.exec(remote)?.[1];
  const commit = report.overview.commit;
  return (path: string, line?: number) => {
    if (!host || !commit) return undefined;
    const kind = host === "gitlab.com" ? "-/blob" : host === "codeberg.org" ? "src/commit" : "blob";
    return `${remote}/${kind}/${commit}/${path.split("/").map(encodeURIComponent).join("/")}${line ? `#L${line}` : ""}`;
  };
};

/** The whole report as one page that needs nothing else. */
export const toHtml = (report: Report): string => {
  const judgment = judge(report);
  const link = linker(report);
  const place = (path: string, line?: number) => {
    const slash = path.lastIndexOf("/") + 1;
    const inner = h`<span class="path"><span class="dir">${path.slice(0, slash)}</span>${path.slice(slash)}${line ? h`<span class="dir">:${line}</span>` : undefined}</span>`;
    const target = link(path, line);
    return target ? h`<a href="${target}">${inner}</a>` : inner;
  };
  const sections = [
    languagesSection(report),
    activitySection(report),
    hotspotSection(report, link, place),
    ownershipSection(report),
    testSection(report, place),
    dependencySection(report, place),
    duplicateSection(report, place),
    todoSection(report, place),
    weightSection(report, place),
    makingSection(report),
  ];
  const page = h`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="Waggle">
<title>${report.name}: repository health</title>
<style>${raw(style)}</style>
</head>
<body>
<main>
${header(report, judgment)}
${findingsSection(judgment, place)}
${sections}
${
  report.notes.length > 0
    ? h`<section id="limits"><h2>What this report does not know</h2><ul class="notes">${report.notes.map((note) => h`<li>${note}</li>`)}</ul></section>`
    : undefined
}
<footer>Made by <strong>Waggle</strong> on ${new Date(report.at).toUTCString()} from commit ${report.overview.commit?.slice(0, 12) ?? "(none)"}. Nothing left this machine.</footer>
</main>
</body>
</html>
`;
  return page.html;
};

type Place = (path: string, line?: number) => Html;
const verdictWord = { good: "good", fair: "fair", poor: "needs care", plain: "" } as const;

const header = (report: Report, judgment: Judgment) => {
  const { overview } = report;
  return h`<header>
${mark}
<div class="title"><p class="kicker">Repository health report</p><h1>${report.name}</h1>
<p class="lead">${judgment.summary}</p>
<p class="facts">${[
    overview.branch ? h`<span>branch <b>${overview.branch}</b></span>` : undefined,
    overview.commit ? h`<span>commit <b class="mono">${overview.commit.slice(0, 10)}</b></span>` : undefined,
    overview.lastAt ? h`<span>of <b>${date(overview.lastAt)}</b></span>` : undefined,
    overview.license ? h`<span>licence <b>${overview.license}</b></span>` : undefined,
    overview.latestTag ? h`<span>newest tag <b>${overview.latestTag}</b></span>` : undefined,
    overview.ci.length > 0 ? h`<span>CI <b>${overview.ci.join(", ")}</b></span>` : undefined,
  ]}</p></div>
<div class="grade grade-${judgment.grade === "–" ? "none" : judgment.grade}"><b>${judgment.grade}</b><span>overall</span></div>
</header>
<div class="cards">${judgment.cards.map(
    (card) =>
      h`<a class="card ${card.verdict}" href="#${card.id}"><span class="label">${card.label}${card.verdict === "plain" ? undefined : h`<i>${verdictWord[card.verdict]}</i>`}</span><b>${card.value}</b><span class="detail">${card.detail}</span></a>`,
  )}</div>`;
};

const findingsSection = (judgment: Judgment, place: Place) =>
  judgment.findings.length === 0
    ? undefined
    : h`<section id="first"><h2>Look here first</h2><ol class="findings">${judgment.findings.map(
        (finding) =>
          h`<li><b>${finding.title}</b><p>${finding.why}</p>${finding.places.length > 0 ? h`<p class="places">${finding.places.map((at) => place(at.path, at.line))}</p>` : undefined}</li>`,
      )}</ol></section>`;

const languagesSection = (report: Report) => {
  const rows = report.languages.languages;
  if (rows.length === 0)
    return h`<section id="languages"><h2>Languages</h2><p class="none">No source files.</p></section>`;
  const total = rows.reduce((sum, row) => sum + row.code, 0) || 1;
  const other = Object.entries(report.languages.other).filter(([, value]) => value.files > 0);
  const words: Record<string, [one: string, many: string]> = {
    vendored: ["file copied from elsewhere", "files copied from elsewhere"],
    generated: ["generated file", "generated files"],
    lock: ["lock file", "lock files"],
    binary: ["binary file", "binary files"],
    large: ["text above 1 MB", "texts above 1 MB"],
    unknown: ["file of no known language", "files of no known language"],
  };
  return h`<section id="languages"><h2>Languages</h2>${languageBar(report)}
<table><thead><tr><th>Language</th><th class="n">Files</th><th class="n">Code</th><th class="n">Comments</th><th class="n">Blank</th><th class="n">Tests</th><th class="n">Share</th></tr></thead><tbody>${rows
    .slice(0, 12)
    .map(
      (row) =>
        h`<tr><td><i class="dot" style="background:${languageNamed(row.name)?.color ?? "#888888"}"></i>${row.name}</td><td class="n">${count(row.files)}</td><td class="n">${count(row.code)}</td><td class="n">${count(row.comment)}</td><td class="n">${count(row.blank)}</td><td class="n">${row.testCode > 0 ? percent(row.testCode / row.code) : "–"}</td><td class="n">${percent(row.code / total)}</td></tr>`,
    )}</tbody></table>
${rows.length > 12 ? h`<p class="hint">And ${plural(rows.length - 12, "language")} more.</p>` : undefined}
${other.length > 0 ? h`<p class="hint">Not counted as code: ${other.map(([kind, value], index) => `${index > 0 ? ", " : ""}${plural(value.files, ...words[kind]!)} (${bytes(value.bytes)})`)}.</p>` : undefined}</section>`;
};

const activitySection = (report: Report) => {
  const { overview, history } = report;
  if (!overview.lastAt) return h`<section id="activity"><h2>Activity</h2><p class="none">No commits yet.</p></section>`;
  return h`<section id="activity"><h2>Activity</h2>
<p class="hint">Commits a week in the year before ${date(overview.lastAt)}, at most ${count(Math.max(...overview.weeks))}. In all ${plural(overview.commits, "commit")} by ${plural(overview.contributors, "person", "people")} since ${date(overview.firstAt)}, ${plural(overview.activeContributors, "of them", "of them")} active in the last 90 days; ${plural(overview.branches, "branch", "branches")}, ${plural(overview.tags, "tag")}.</p>
${activityChart(overview.weeks, overview.lastAt)}
${
  history.authors.length > 0
    ? h`<h3>Who changed the most in ${history.window.label}</h3><div class="people">${history.authors
        .filter((author) => !author.bot)
        .slice(0, 8)
        .map(
          (author) =>
            h`<div><b>${author.name}</b><span class="meter"><i style="width:${Math.max(1, Math.round(author.share * 100))}%"></i></span><span>${plural(author.commits, "commit")}, ${percent(author.share)} of changed lines</span></div>`,
        )}</div>`
    : undefined
}</section>`;
};

const hotspotSection = (report: Report, link: (path: string) => string | undefined, place: Place) => {
  const { history } = report;
  const spots = history.hotspots.filter((spot) => spot.score > 0);
  if (spots.length === 0) return undefined;
  return h`<section id="hotspots"><h2>Hotspots</h2><p class="hint">Area is a file's size, colour how often it changed in ${history.window.label}; tests are left out. Large and hot is where time goes, and where defects tend to be.</p>
${hotspotMap(report, link)}
<table><thead><tr><th>File</th><th class="n">Commits</th><th class="n">Lines</th><th class="n">Added / deleted</th><th class="n">People</th><th>Most by</th></tr></thead><tbody>${spots
    .slice(0, 10)
    .map(
      (spot) =>
        h`<tr><td>${place(spot.path)}</td><td class="n">${count(spot.commits)}</td><td class="n">${count(spot.lines)}</td><td class="n"><span class="plus">+${count(spot.added)}</span> <span class="minus">−${count(spot.deleted)}</span></td><td class="n">${spot.authors}</td><td>${spot.owner} <span class="dim">${percent(spot.share)}</span></td></tr>`,
    )}</tbody></table>
${history.busyFiles > 0 ? h`<p class="hint">Of ${plural(history.busyFiles, "file")} changed five times or more, ${count(history.soloFiles)} ${history.soloFiles === 1 ? "was" : "were"} changed by one person alone.</p>` : undefined}</section>`;
};

const ownershipSection = (report: Report) => {
  const { ownership } = report;
  if (ownership.lines === 0) return undefined;
  return h`<section id="ownership"><h2>Who knows the code</h2>
<p class="hint">By the ${count(ownership.lines)} lines of code that stand today (git blame), not by activity. The bus factor is how few people wrote more than half.</p>
<div class="two"><div><h3>Written when</h3>${yearChart(ownership.years)}</div><div><h3>Written by</h3><div class="people narrow">${ownership.owners
    .slice(0, 6)
    .map(
      (owner) =>
        h`<div><b>${owner.name}</b><span class="meter"><i style="width:${Math.max(1, Math.round(owner.share * 100))}%"></i></span><span>${percent(owner.share)} in ${plural(owner.folders, "folder")}</span></div>`,
    )}</div></div></div>
<table><thead><tr><th>Folder</th><th class="n">Lines</th><th class="n">People</th><th class="n">Bus factor</th><th>Most by</th><th class="wide">Share</th><th class="n">Half written by</th></tr></thead><tbody>${ownership.folders
    .slice(0, 14)
    .map(
      (folder) =>
        h`<tr><td class="mono">${folder.path}</td><td class="n">${count(folder.lines)}</td><td class="n">${folder.authors}</td><td class="n"><b class="${folder.busFactor >= 3 ? "ok" : folder.busFactor === 2 ? "so" : "bad"}">${folder.busFactor}</b></td><td>${folder.owner}</td><td class="wide"><span class="meter"><i style="width:${Math.round(folder.share * 100)}%"></i></span> ${percent(folder.share)}</td><td class="n">${String(folder.medianYear)}</td></tr>`,
    )}</tbody></table></section>`;
};

const testSection = (report: Report, place: Place) => {
  const { tests } = report;
  if (tests.sourceFiles + tests.testFiles === 0) return undefined;
  const code = tests.rows.reduce((sum, row) => sum + row.sourceCode, 0);
  const testCode = tests.rows.reduce((sum, row) => sum + row.testCode, 0);
  return h`<section id="tests"><h2>Tests</h2>
<p class="hint">${plural(tests.cases, "case")} in ${plural(tests.testFiles, "file")}${tests.skipped > 0 ? `, ${count(tests.skipped)} switched off` : ""}; ${code > 0 ? `${(testCode / code).toFixed(2)} lines of test for a line of source.` : ""} Nothing was run: a source file counts as reached when a test carries its name or imports it, which is a floor for attention, not a measure of coverage.</p>
${
  tests.folders.length === 0
    ? undefined
    : h`<div class="two"><div><h3>Reached by folder</h3><div class="people">${tests.folders
        .slice(0, 12)
        .map(
          (folder) =>
            h`<div><b class="mono">${folder.path}</b><span class="meter ${folder.reached >= 0.7 ? "ok" : folder.reached >= 0.4 ? "so" : "bad"}"><i style="width:${Math.max(1, Math.round(folder.reached * 100))}%"></i></span><span>${percent(folder.reached)} of ${plural(folder.code, "line")}</span></div>`,
        )}</div></div><div><h3>Largest files no test names</h3>${
        tests.untested.length === 0
          ? h`<p class="none">None: every source file is named or imported by a test.</p>`
          : h`<table><tbody>${tests.untested.slice(0, 12).map((file) => h`<tr><td>${place(file.path)}</td><td class="n">${count(file.code)}</td></tr>`)}</tbody></table>`
      }</div></div>`
}</section>`;
};

const dependencySection = (report: Report, place: Place) => {
  const { locks, unlocked } = report;
  if (locks.length === 0 && unlocked.length === 0)
    return h`<section id="dependencies"><h2>Dependencies</h2><p class="none">No lock files and no manifests that ask for packages.</p></section>`;
  const duplicates = locks.flatMap((lock) => lock.duplicates.map((entry) => ({ ...entry, lock: lock.path })));
  const flagged = locks.flatMap((lock) => lock.flagged);
  const licenses = new Map<string, number>();
  for (const lock of locks)
    for (const [name, value] of Object.entries(lock.licenses)) licenses.set(name, (licenses.get(name) ?? 0) + value);
  const directs = locks.flatMap((lock) => lock.directs);
  return h`<section id="dependencies"><h2>Dependencies</h2>
<table><thead><tr><th>Lock file</th><th>Manager</th><th class="n">Packages</th><th class="n">Direct</th><th class="n">In several versions</th><th>Worth a look</th></tr></thead><tbody>${locks.map(
    (lock) => {
      const kinds = new Map<string, number>();
      for (const entry of lock.flagged) kinds.set(entry.flag, (kinds.get(entry.flag) ?? 0) + 1);
      const notes = [
        ...[...kinds].map(([flag, value]) => `${value} ${flag}${flag === "install script" && value > 1 ? "s" : ""}`),
        ...(lock.unpinned > 0 ? [`${lock.unpinned} unpinned`] : []),
      ];
      return h`<tr><td>${place(lock.path)}</td><td>${lock.manager}</td><td class="n">${lock.problem ? "–" : count(lock.packages)}</td><td class="n">${lock.direct === undefined ? "–" : count(lock.direct)}</td><td class="n">${count(lock.duplicates.length)}</td><td>${lock.problem ?? (notes.join(", ") || "–")}</td></tr>`;
    },
  )}</tbody></table>
${unlocked.length > 0 ? h`<p class="hint">Without a lock file: ${unlocked.slice(0, 12).map((path) => h`${place(path)} `)}${unlocked.length > 12 ? ` and ${unlocked.length - 12} more` : ""}</p>` : undefined}
${
  duplicates.length > 0
    ? h`<h3>In several versions</h3><table class="tight"><tbody>${duplicates.slice(0, 14).map((entry) => h`<tr><td><b>${entry.name}</b></td><td class="mono">${entry.versions.slice(0, 8).join("  ")}${entry.versions.length > 8 ? " …" : ""}</td>${locks.length > 1 ? h`<td class="dim">${entry.lock}</td>` : undefined}</tr>`)}</tbody></table>${duplicates.length > 14 ? h`<p class="hint">And ${count(duplicates.length - 14)} more.</p>` : undefined}`
    : undefined
}
${flagged.length > 0 ? h`<h3>Worth a look</h3><p class="chips">${flagged.slice(0, 24).map((entry) => h`<span class="chip"><b>${entry.name}</b> ${entry.version} <i>${entry.flag}</i></span>`)}</p>` : undefined}
${
  licenses.size > 0
    ? h`<h3>Licences of what is installed</h3><p class="chips">${[...licenses]
        .sort((a, b) => b[1] - a[1])
        .slice(0, 14)
        .map(([name, value]) => h`<span class="chip">${name} <b>${count(value)}</b></span>`)}</p>`
    : undefined
}
${directs.length > 0 ? h`<details><summary>${plural(directs.length, "package")} asked for directly</summary><p class="chips">${directs.slice(0, 300).map((entry) => h`<span class="chip">${entry.name} <b>${entry.version}</b></span>`)}</p></details>` : undefined}</section>`;
};

const duplicateSection = (report: Report, place: Place) => {
  const { duplicates } = report;
  if (duplicates.source.lines + duplicates.tests.lines === 0) return undefined;
  const said = ({ duplicated, lines }: { duplicated: number; lines: number }) =>
    `${count(duplicated)} of ${count(lines)}`;
  return h`<section id="duplicates"><h2>Duplicate code</h2>
<p class="hint">${said(duplicates.source)} meaningful lines of source${duplicates.tests.lines > 0 ? `, and ${said(duplicates.tests)} of tests,` : ""} (no blanks, comments, imports or lone brackets) also appear somewhere else, in passages of 8 lines or more.</p>
${duplicates.clones.length === 0 ? h`<p class="none">No copies found.</p>` : undefined}
${duplicates.clones.slice(0, 10).map(
  (clone) =>
    h`<details class="clone"><summary><b>${plural(clone.lines, "line")} × ${clone.places.length}</b>${clone.test ? h`<i class="tag">tests</i>` : undefined}<span class="places">${clone.places.slice(0, 2).map((at) => place(at.path, at.from))}${clone.places.length > 2 ? h`<span class="dim">and ${clone.places.length - 2} more</span>` : undefined}</span></summary><pre>${code(clone.sample)}
…</pre><p class="places">${clone.places.map((at) => place(at.path, at.from))}</p></details>`,
)}</section>`;
};

const todoSection = (report: Report, place: Place) => {
  const { todos } = report;
  const marks = new Map<string, number>();
  for (const todo of todos) marks.set(todo.mark, (marks.get(todo.mark) ?? 0) + 1);
  return h`<section id="todos"><h2>Open marks</h2>${
    todos.length === 0
      ? h`<p class="none">No TODO, FIXME, HACK, XXX or BUG in any comment.</p>`
      : h`<p class="hint">${[...marks].sort((a, b) => b[1] - a[1]).map(([name, value], index) => `${index > 0 ? ", " : ""}${count(value)} ${name}`)}. Oldest first, by the time their line was last written.</p>
<table><thead><tr><th class="n">Age</th><th>Mark</th><th>Says</th><th>Where</th><th>By</th></tr></thead><tbody>${todos
          .slice(0, 15)
          .map(
            (todo) =>
              h`<tr><td class="n nowrap">${todo.at ? age(report.at - Date.parse(todo.at)) : "–"}</td><td><i class="tag ${todo.mark === "TODO" ? "" : "strong"}">${todo.mark}</i></td><td class="says">${todo.text || "(nothing)"}</td><td>${place(todo.path, todo.line)}</td><td class="nowrap">${todo.author ?? "–"}</td></tr>`,
          )}</tbody></table>${todos.length > 15 ? h`<p class="hint">And ${count(todos.length - 15)} more.</p>` : undefined}`
  }</section>`;
};

const weightSection = (report: Report, place: Place) => {
  const { large, overview } = report;
  if (overview.commits === 0) return undefined;
  return h`<section id="large-files"><h2>Weight</h2>
<p class="hint">${bytes(overview.bytes)} in the tree, ${bytes(large.packBytes)} with history on disk. ${
    large.binaries.length > 0
      ? `Binary files: ${large.binaries
          .slice(0, 5)
          .map((row) => `${row.files} ${row.extension} (${bytes(row.bytes)})`)
          .join(", ")}.`
      : "No binary files."
  }</p>
<div class="two"><div><h3>Largest files today</h3><table><tbody>${large.largest.slice(0, 10).map((file) => h`<tr><td>${place(file.path)}${file.kind === "source" ? undefined : h`<i class="tag">${file.kind}</i>`}</td><td class="n nowrap">${bytes(file.bytes)}</td></tr>`)}</tbody></table></div>
<div><h3>Only in history</h3>${
    large.ghosts.length === 0
      ? h`<p class="none">Nothing above 100 KB that is not in the tree.</p>`
      : h`<table><thead><tr><th>File</th><th class="n">Versions</th><th class="n">Packed</th></tr></thead><tbody>${large.ghosts.slice(0, 10).map((ghost) => h`<tr><td><span class="path">${ghost.path}</span></td><td class="n">${count(ghost.versions)}</td><td class="n nowrap">${bytes(ghost.packed)}</td></tr>`)}</tbody></table>`
  }</div></div></section>`;
};

const makingSection = (report: Report) => {
  const { making } = report;
  if (making.tasks.length === 0) return undefined;
  const ran = making.tasks.filter((task) => task.startedAt !== undefined);
  const from = Math.min(...making.tasks.map((task) => task.createdAt));
  const work = ran.reduce((sum, task) => sum + ((task.finishedAt ?? making.at) - task.startedAt!), 0);
  const lost = making.tasks.flatMap((task) =>
    task.attempts.filter((attempt) => attempt.end === "lost").map((attempt) => ({ task, attempt })),
  );
  const types = [...new Set(making.tasks.map((task) => task.type))];
  return h`<section id="making"><h2>How this was made</h2>
<p class="hint">${plural(making.agents.length, "agent")}, each a process of its own, registered with a Waggle server on this machine and did ${plural(making.tasks.length, "task")} in ${seconds(making.at - from)} (${seconds(work)} of work). Tasks went to whoever had the capability and a free place; the report waited for all the others and was still being written when it drew this.</p>
${
  lost.length > 0
    ? h`<p class="heal"><b>Healed on the way:</b> ${[...new Set(lost.map(({ attempt }) => attempt.agent))].join(", ")} went away in the middle of ${plural(lost.length, "task")}; ${lost.length === 1 ? "it was" : "they were"} given out again and finished by ${[...new Set(lost.map(({ task }) => task.agent))].join(", ")}.</p>`
    : undefined
}
${fleetChart(making)}
<p class="legend">${types.map((type) => h`<span><i class="dot" style="background:${stageColors[type] ?? "#888888"}"></i>${type}</span>`)}</p>
<table><thead><tr><th>Kind of task</th><th class="n">Tasks</th><th class="n">Waited, median</th><th class="n">longest</th><th class="n">Ran, median</th><th class="n">longest</th><th>By</th></tr></thead><tbody>${types.map(
    (type) => {
      const tasks = ran.filter((task) => task.type === type);
      const waits = tasks.map((task) => Math.max(0, task.startedAt! - task.readyAt));
      const runs = tasks.map((task) => (task.finishedAt ?? making.at) - task.startedAt!);
      const agents = new Map<string, number>();
      for (const task of tasks) agents.set(task.agent, (agents.get(task.agent) ?? 0) + 1);
      return h`<tr><td><i class="dot" style="background:${stageColors[type] ?? "#888888"}"></i>${type}</td><td class="n">${tasks.length}</td><td class="n">${seconds(median(waits))}</td><td class="n">${seconds(Math.max(0, ...waits))}</td><td class="n">${seconds(median(runs))}</td><td class="n">${seconds(Math.max(0, ...runs))}</td><td>${[...agents].map(([name, value]) => `${name}${agents.size > 1 ? ` ${value}` : ""}`).join(", ")}</td></tr>`;
    },
  )}</tbody></table>
<details><summary>Every task, its wait (thin) and its run</summary>${ganttChart(making)}</details>
<details><summary>The fleet</summary><table><thead><tr><th>Agent</th><th>Capabilities</th><th class="n">At once</th></tr></thead><tbody>${making.agents.map((agent) => h`<tr><td><b>${agent.name}</b></td><td>${agent.capabilities.join(", ")}</td><td class="n">${agent.concurrency}</td></tr>`)}</tbody></table></details></section>`;
};
