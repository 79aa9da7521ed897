import { relative } from "node:path";
import type { Incident } from "../fleet/track.ts";
import type { Made } from "../report/report.ts";
import { median, plural, seconds } from "../report/words.ts";
import { cut, fit, type Paint, width } from "./text.ts";
import { healedText } from "./view.ts";

const near = (path: string) => {
  const short = relative(process.cwd(), path);
  return short.length < path.length && !short.startsWith("../..") ? short : path;
};

/** What was done, by whom, how long each kind waited and ran, what was healed, and what to type next. */
export const summary = (
  run: {
    made: readonly Made[];
    incidents: readonly Incident[];
    report: { html: string; markdown: string; grade: string; summary: string; findings: readonly { title: string }[] };
    url: string;
    prefix: string;
    stays: boolean;
    tookMs: number;
  },
  columns: number,
  colors: Paint,
): string[] => {
  const lines: string[] = [];
  const types = [...new Set(run.made.map((task) => task.type))];
  const rows = types.map((type) => {
    const tasks = run.made.filter((task) => task.type === type && task.startedAt !== undefined);
    const waits = tasks.map((task) => Math.max(0, task.startedAt! - task.readyAt));
    const runs = tasks.map((task) => (task.finishedAt ?? task.startedAt!) - task.startedAt!);
    const by = new Map<string, number>();
    for (const task of tasks) by.set(task.agent, (by.get(task.agent) ?? 0) + 1);
    return [
      type,
      String(tasks.length),
      `${seconds(median(waits))} / ${seconds(Math.max(0, ...waits))}`,
      `${seconds(median(runs))} / ${seconds(Math.max(0, ...runs))}`,
      [...by]
        .sort((a, b) => b[1] - a[1])
        .map(([name, count]) => (by.size > 1 ? `${name} ${count}` : name))
        .join(", "),
    ] as const;
  });
  const head = ["TASKS", "", "WAITED p50 / max", "RAN p50 / max", "BY"] as const;
  const widths = [0, 1, 2, 3].map((index) => Math.max(...[head, ...rows].map((row) => width(row[index]!))) + 2);
  const line = (row: readonly string[]) => {
    const text = row
      .slice(0, 4)
      .map((cell, index) =>
        index === 1 ? `${" ".repeat(widths[1]! - 2 - width(cell))}${cell}  ` : fit(cell, widths[index]!),
      );
    return `  ${text.join("")}${cut(row[4] ?? "", Math.max(12, columns - 4 - widths.reduce((sum, value) => sum + value, 0)))}`;
  };
  lines.push("", colors.dim(line(head)), ...rows.map(line), "");
  const agents = new Set(run.made.map((task) => task.agent));
  lines.push(`${plural(run.made.length, "task")} done by ${plural(agents.size, "agent")} in ${seconds(run.tookMs)}.`);
  for (const incident of run.incidents.filter((entry) => entry.healedAt !== undefined))
    lines.push(colors.green(healedText(incident)));
  lines.push("", `${colors.bold(`Health ${run.report.grade}`)}  ${run.report.summary}`);
  for (const finding of run.report.findings.slice(0, 3)) lines.push(`  ${colors.honey("·")} ${finding.title}`);
  lines.push("", `Report   ${colors.bold(near(run.report.html))}`, `         ${near(run.report.markdown)}`);
  if (run.stays)
    lines.push(
      "",
      `The server stays up at ${colors.bold(run.url)}, and so does the fleet. Next, in another terminal:`,
      `  ${run.prefix}npx waggle get agents`,
      `  ${run.prefix}npx waggle get tasks`,
      `  ${run.prefix}npx waggle delegate tests --requires tests --wait`,
      `  curl -s ${run.url}/openapi.json`,
      "Ctrl-C stops it all.",
    );
  return lines;
};
