import { judge } from "./judge.ts";
import type { Report } from "./report.ts";
import { age, bytes, count, date, median, percent, plural, seconds, visible } from "./words.ts";

/** Text in a table cell or a sentence: nothing in it is taken for markup. */
export const cell = (text: string) => visible(text).replace(/[\\`*_{}[\]<>#|~!&]/g, (letter) => `\\${letter}`);
/** A path in a code span, which knows no escapes: backquotes are fenced by more of them, pipes end no cell. */
export const span = (text: string) => {
  const inner = visible(text).replaceAll("|", "\\|");
  const longest = Math.max(0, ...[...inner.matchAll(/`+/g)].map((match) => match[0].length));
  const fence = "`".repeat(longest + 1);
  return longest > 0 ? `${fence} ${inner} ${fence}` : `${fence}${inner}${fence}`;
};

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [
    `| ${head.join(" | ")} |`,
    `|${head.map(() => "---").join("|")}|`,
    ...rows.map((row) => `| ${row.join(" | ")} |`),
  ].join("\n");

/** The report in short, for a terminal, a pull request or another program. */
export const toMarkdown = (report: Report): string => {
  const { grade, cards, findings, summary } = judge(report);
  const { overview, languages, history, ownership, tests, locks, duplicates, todos, large, making } = report;
  const blocks: (string | false)[] = [
    `# ${cell(report.name)}: repository health ${grade}`,
    cell(summary),
    overview.commit !== undefined &&
      `Commit ${span(overview.commit.slice(0, 12))} of ${date(overview.lastAt)}${overview.branch ? ` on ${span(overview.branch)}` : ""}.`,
    table(
      ["", "", "", "Judgment"],
      cards.map((card) => [
        cell(card.label),
        `**${cell(card.value)}**`,
        cell(card.detail),
        card.verdict === "plain" ? "" : card.verdict === "poor" ? "needs care" : card.verdict,
      ]),
    ),
  ];
  if (findings.length > 0)
    blocks.push(
      "## Look here first",
      findings
        .map(
          (finding, index) =>
            `${index + 1}. **${cell(finding.title)}.** ${cell(finding.why)}${finding.places.map((at) => `\n   - ${span(at.path)}${at.line ? `:${at.line}` : ""}`).join("")}`,
        )
        .join("\n"),
    );
  if (languages.languages.length > 0)
    blocks.push(
      "## Languages",
      table(
        ["Language", "Files", "Code", "Comments", "Blank"],
        languages.languages
          .slice(0, 12)
          .map((row) => [cell(row.name), count(row.files), count(row.code), count(row.comment), count(row.blank)]),
      ),
    );
  if (history.hotspots.length > 0)
    blocks.push(
      "## Hotspots",
      `Changed often and large, in ${history.window.label}.`,
      table(
        ["File", "Commits", "Lines", "People", "Most by"],
        history.hotspots
          .slice(0, 10)
          .map((spot) => [
            span(spot.path),
            count(spot.commits),
            count(spot.lines),
            String(spot.authors),
            `${cell(spot.owner)} ${percent(spot.share)}`,
          ]),
      ),
    );
  if (ownership.folders.length > 0)
    blocks.push(
      "## Who knows the code",
      table(
        ["Folder", "Lines", "People", "Bus factor", "Most by"],
        ownership.folders
          .slice(0, 12)
          .map((folder) => [
            span(folder.path),
            count(folder.lines),
            String(folder.authors),
            String(folder.busFactor),
            `${cell(folder.owner)} ${percent(folder.share)}`,
          ]),
      ),
    );
  if (tests.sourceFiles + tests.testFiles > 0)
    blocks.push(
      "## Tests",
      `${plural(tests.cases, "case")} in ${plural(tests.testFiles, "file")}, ${count(tests.skipped)} switched off; ${percent(tests.reached)} of source code is in files some test names or imports.`,
      tests.untested.length > 0 &&
        table(
          ["Largest files no test names", "Code"],
          tests.untested.slice(0, 10).map((file) => [span(file.path), count(file.code)]),
        ),
    );
  if (locks.length > 0)
    blocks.push(
      "## Dependencies",
      table(
        ["Lock file", "Manager", "Packages", "Direct", "In several versions"],
        locks.map((lock) => [
          span(lock.path),
          lock.manager,
          lock.problem ? cell(lock.problem) : count(lock.packages),
          lock.direct === undefined ? "–" : count(lock.direct),
          count(lock.duplicates.length),
        ]),
      ),
    );
  if (duplicates.clones.length > 0)
    blocks.push(
      "## Duplicate code",
      duplicates.clones
        .slice(0, 8)
        .map(
          (clone) =>
            `- ${plural(clone.lines, "line")} × ${clone.places.length}: ${clone.places
              .slice(0, 4)
              .map((at) => `${span(at.path)}:${at.from}`)
              .join(", ")}`,
        )
        .join("\n"),
    );
  if (todos.length > 0)
    blocks.push(
      "## Oldest marks",
      table(
        ["Age", "Mark", "Says", "Where"],
        todos
          .slice(0, 10)
          .map((todo) => [
            todo.at ? age(report.at - Date.parse(todo.at)) : "–",
            todo.mark,
            cell(todo.text),
            `${span(todo.path)}:${todo.line}`,
          ]),
      ),
    );
  if (overview.commits > 0)
    blocks.push(
      "## Weight",
      `${bytes(overview.bytes)} in the tree, ${bytes(large.packBytes)} with history.`,
      table(
        ["Largest files", "Size"],
        large.largest.slice(0, 8).map((file) => [span(file.path), bytes(file.bytes)]),
      ),
    );
  if (report.notes.length > 0)
    blocks.push("## What this report does not know", report.notes.map((note) => `- ${cell(note)}`).join("\n"));
  if (making.tasks.length > 0) {
    const lost = making.tasks.flatMap((task) => task.attempts.filter((attempt) => attempt.end === "lost"));
    blocks.push(
      "## How this was made",
      `${plural(making.agents.length, "agent")} did ${plural(making.tasks.length, "task")} in ${seconds(making.at - Math.min(...making.tasks.map((task) => task.createdAt)))}.${
        lost.length > 0
          ? ` ${[...new Set(lost.map((attempt) => attempt.agent))].map(cell).join(", ")} went away in the middle of ${plural(lost.length, "task")}, given out again and finished.`
          : ""
      }`,
      table(
        ["Kind of task", "Tasks", "Waited (median)", "Ran (median)", "By"],
        [...new Set(making.tasks.map((task) => task.type))].map((type) => {
          const tasks = making.tasks.filter((task) => task.type === type && task.startedAt !== undefined);
          return [
            type,
            String(tasks.length),
            seconds(median(tasks.map((task) => task.startedAt! - task.readyAt))),
            seconds(median(tasks.map((task) => (task.finishedAt ?? making.at) - task.startedAt!))),
            [...new Set(tasks.map((task) => cell(task.agent)))].join(", "),
          ];
        }),
      ),
    );
  }
  return `${blocks.filter((block) => block !== false && block !== "").join("\n\n")}\n`;
};
