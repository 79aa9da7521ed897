import type { Fleet } from "../fleet/supervise.ts";
import type { Incident, Tracker } from "../fleet/track.ts";
import { stages } from "../plan.ts";
import { plural, seconds } from "../report/words.ts";
import { bar, cut, fit, type Paint } from "./text.ts";

export type State = {
  url: string;
  repo: string;
  commit?: string | undefined;
  startedAt: number;
  phase: string;
  fleet: Fleet | undefined;
  tracker: Tracker;
  /** Newest last. */
  news: { at: number; text: string; tone: "plain" | "bad" | "good" }[];
};

const list = (names: readonly string[]) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

export const diedText = (incident: Incident) => {
  const count = incident.tasks.size;
  return `${incident.agent} (pid ${incident.pid}) was ${incident.how}${count > 0 ? ` with ${plural(count, "task")} in hand` : " while idle"}; starting it again`;
};
export const requeuedText = (incident: Incident) =>
  `${plural(incident.tasks.size, "task")} of ${incident.agent} went back to the queue after ${seconds(incident.requeuedAt! - incident.at)}`;
/** The whole story in one sentence. */
export const healedText = (incident: Incident) => {
  const by = [...new Set([...incident.tasks.values()].filter((name) => name !== undefined))]
    .sort()
    .map((name) => (name === incident.agent ? `${name} (now pid ${incident.newPid})` : name));
  const again = `it was back${by.some((name) => name.includes("now pid")) ? "" : ` as pid ${incident.newPid}`} after ${seconds(incident.backAt! - incident.at)}`;
  if (incident.tasks.size === 0)
    return `healed: ${incident.agent} (pid ${incident.pid}) was ${incident.how} while idle; ${again}`;
  const its = incident.tasks.size === 1 ? "its task" : `its ${incident.tasks.size} tasks`;
  return `healed: ${incident.agent} (pid ${incident.pid}) was ${incident.how}; ${its} went back to the queue and ${incident.tasks.size === 1 ? "was" : "were"} done by ${list(by)}, all within ${seconds(incident.healedAt! - incident.at)}; ${again}`;
};

/** One line that says how far the run is. */
export const progressLine = (state: State, now: number) => {
  const { total, done, running, failed } = state.tracker.count();
  if (total === 0) return `${seconds(now - state.startedAt)}  ${state.phase}`;
  const busy = new Map<string, number>();
  for (const task of state.tracker.tasks.values())
    if (task.status === "running" || task.status === "assigned") busy.set(task.type, (busy.get(task.type) ?? 0) + 1);
  const now_ = [...busy].map(([type, count]) => (count > 1 ? `${type} ×${count}` : type)).join(", ");
  return `${seconds(now - state.startedAt)}  ${done} of ${total} tasks done, ${running} running${failed > 0 ? `, ${failed} failed` : ""}${now_ ? ` (${now_})` : ""}`;
};

/** The screen, line by line, cut to the size of the terminal. */
export const screen = (state: State, size: { columns: number; rows: number }, colors: Paint, now: number): string[] => {
  const columns = Math.max(20, size.columns - 1);
  const { tracker } = state;
  const lines: string[] = [];
  const head = `⬢ Waggle  ${state.url}`;
  const time = seconds(now - state.startedAt);
  lines.push(`${colors.bold(colors.honey(cut(head, columns - time.length - 2)))}  ${colors.dim(time)}`);
  lines.push(
    colors.dim(
      cut(`  health report of ${state.repo}${state.commit ? ` at ${state.commit.slice(0, 10)}` : ""}`, columns),
    ),
    "",
  );

  const processes = [...(state.fleet?.processes.values() ?? [])];
  const nameWidth = Math.min(22, Math.max(12, ...processes.map((own) => own.name.length)) + 1);
  lines.push(
    colors.dim(cut(`  ${fit("AGENT", nameWidth)}${fit("PID", 9)}${fit("STATUS", 12)}${fit("DONE", 6)}NOW`, columns)),
  );
  for (const own of processes) {
    const tasks = own.agentId === undefined ? [] : tracker.running(own.agentId);
    const alive = own.state === "ready";
    const status =
      own.state === "gone"
        ? "restarting"
        : !alive
          ? own.state
          : tasks.length > 0
            ? `busy ${tasks.length}/${own.member.concurrency}`
            : "ready";
    const done = own.agentId === undefined ? 0 : tracker.done(own.agentId);
    const doing = tasks
      .map(
        (task) =>
          `${task.type}${task.percent === undefined ? "" : ` ${Math.round(task.percent)}%`}${task.message ? ` ${task.message}` : ""}`,
      )
      .join("  │  ");
    const state_ = fit(status, 12);
    lines.push(
      `  ${colors.bold(fit(own.name, nameWidth))}${fit(String(own.pid), 9)}${!alive ? colors.red(state_) : tasks.length > 0 ? colors.honey(state_) : colors.green(state_)}${fit(String(done), 6)}${colors.dim(cut(doing, Math.max(0, columns - nameWidth - 29)))}`,
    );
  }
  lines.push("");

  const rows = stages.flatMap((type) => {
    const tasks = [...tracker.tasks.values()].filter((task) => task.type === type);
    return tasks.length === 0 ? [] : [{ type, tasks }];
  });
  const barWidth = Math.max(8, Math.min(36, columns - 56));
  for (const { type, tasks } of rows) {
    const done = tasks.filter((task) => task.status === "completed").length;
    const running = tasks.filter((task) => task.status === "running" || task.status === "assigned");
    const failed = tasks.filter((task) => ["failed", "cancelled", "expired"].includes(task.status)).length;
    const share = (done + running.reduce((sum, task) => sum + (task.percent ?? 0) / 100, 0)) / tasks.length;
    const note =
      failed > 0
        ? colors.red(`${failed} failed`)
        : running.length > 0
          ? `${running.length} running`
          : done === tasks.length
            ? colors.green("done")
            : tasks.every((task) => task.status === "scheduled")
              ? "waits for the others"
              : "queued";
    lines.push(`  ${fit(type, 24)}${bar(share, barWidth, colors)} ${fit(`${done}/${tasks.length}`, 7)} ${note}`);
  }
  if (rows.length === 0) lines.push(`  ${state.phase}`);
  lines.push("");

  const foot = [colors.dim(cut("  kill -9 any of these processes and watch.  Ctrl-C stops everything.", columns))];
  const room = Math.max(0, size.rows - lines.length - foot.length - 1);
  const news = state.news.slice(-Math.min(6, room)).map((item) => {
    const text = cut(`  ${new Date(item.at).toTimeString().slice(0, 8)}  ${item.text}`, columns);
    return item.tone === "bad" ? colors.red(text) : item.tone === "good" ? colors.green(text) : text;
  });
  return [...lines, ...news, ...foot].slice(0, Math.max(1, size.rows - 1));
};
