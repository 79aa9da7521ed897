import { languageNamed } from "../language.ts";
import { type Html, h } from "./markup.ts";
import type { Making, Report } from "./report.ts";
import { count, plural, seconds } from "./words.ts";

const fixed = (value: number) => Number(value.toFixed(2));

export const languageBar = (report: Report): Html => {
  const rows = report.languages.languages.filter((row) => row.code > 0);
  const total = rows.reduce((sum, row) => sum + row.code, 0);
  const shown = rows.slice(0, 8);
  const rest = rows.slice(8).reduce((sum, row) => sum + row.code, 0);
  let x = 0;
  const bars = [
    ...shown.map((row) => ({ name: row.name, code: row.code, color: languageNamed(row.name)?.color ?? "#888888" })),
    { name: "other", code: rest, color: "#8a8f98" },
  ]
    .filter((row) => row.code > 0)
    .map((row) => {
      const width = (row.code / total) * 1000;
      x += width;
      return h`<rect x="${fixed(x - width)}" y="0" width="${fixed(Math.max(1, width - 1.5))}" height="26" fill="${row.color}"><title>${row.name}: ${count(row.code)} lines</title></rect>`;
    });
  return h`<svg class="bar" viewBox="0 0 1000 26" preserveAspectRatio="none" role="img" aria-label="Code by language">${bars}</svg>`;
};

export const activityChart = (weeks: readonly number[], lastAt: string): Html => {
  const most = Math.max(1, ...weeks);
  const bars = weeks.map((value, index) => {
    const height = value === 0 ? 1.5 : Math.max(4, (value / most) * 110);
    const start = new Date(Date.parse(lastAt) - (weeks.length - index) * 7 * 86_400_000).toISOString().slice(0, 10);
    return h`<rect class="${value === 0 ? "empty" : "week"}" x="${fixed(index * 19.2 + 1.5)}" y="${fixed(116 - height)}" width="16" height="${fixed(height)}" rx="2"><title>week from ${start}: ${plural(value, "commit")}</title></rect>`;
  });
  const months: Html[] = [];
  let last = "";
  for (let index = 0; index < weeks.length; index += 1) {
    const at = new Date(Date.parse(lastAt) - (weeks.length - index) * 7 * 86_400_000);
    const month = at.toLocaleString("en-US", { month: "short", timeZone: "UTC" });
    if (month !== last && (index > 0 || at.getUTCDate() < 20) && index < weeks.length - 1)
      months.push(
        h`<text x="${fixed(index * 19.2 + 1.5)}" y="134">${month}${month === "Jan" ? ` ${at.getUTCFullYear()}` : ""}</text>`,
      );
    last = month;
  }
  return h`<svg viewBox="0 0 1000 140" role="img" aria-label="Commits a week">${bars}${months}</svg>`;
};

type Box = { x: number; y: number; width: number; height: number };

/** "Squarified Treemaps" (Bruls, Huizing, van Wijk, 2000): boxes by area, as near to squares as they come. */
export const squarify = (areas: readonly number[], box: Box): Box[] => {
  const total = areas.reduce((sum, area) => sum + area, 0);
  if (total <= 0) return areas.map(() => ({ ...box, width: 0, height: 0 }));
  const scaled = areas.map((area) => (area / total) * box.width * box.height);
  const boxes: Box[] = [];
  let { x, y, width, height } = box;
  let at = 0;
  while (at < scaled.length) {
    const side = Math.min(width, height);
    const worst = (row: readonly number[]) => {
      const sum = row.reduce((a, b) => a + b, 0);
      return Math.max((side * side * Math.max(...row)) / (sum * sum), (sum * sum) / (side * side * Math.min(...row)));
    };
    let to = at + 1;
    while (to < scaled.length && worst(scaled.slice(at, to + 1)) <= worst(scaled.slice(at, to))) to += 1;
    const row = scaled.slice(at, to);
    const thick = row.reduce((a, b) => a + b, 0) / side;
    let along = 0;
    for (const area of row) {
      const long = area / thick;
      boxes.push(
        width >= height
          ? { x, y: y + along, width: thick, height: long }
          : { x: x + along, y, width: long, height: thick },
      );
      along += long;
    }
    if (width >= height) {
      x += thick;
      width -= thick;
    } else {
      y += thick;
      height -= thick;
    }
    at = to;
  }
  return boxes;
};

export const hotspotMap = (report: Report, link: (path: string) => string | undefined): Html => {
  const spots = report.history.hotspots
    .filter((spot) => spot.lines > 0)
    .slice(0, 36)
    .sort((a, b) => b.lines - a.lines);
  const most = Math.max(1, ...spots.map((spot) => spot.commits));
  const boxes = squarify(
    spots.map((spot) => spot.lines),
    { x: 0, y: 0, width: 1000, height: 360 },
  );
  const cells = spots.map((spot, index) => {
    const box = boxes[index]!;
    const heat = Math.sqrt(spot.commits / most);
    const name = spot.path.slice(spot.path.lastIndexOf("/") + 1);
    const parent = spot.path.split("/").at(-2);
    const room = Math.floor((box.width - 12) / 7.2);
    const label = name.length <= room ? name : room > 6 ? `${name.slice(0, room - 1)}…` : "";
    const cell = h`<g class="cell"><rect x="${fixed(box.x + 1)}" y="${fixed(box.y + 1)}" width="${fixed(Math.max(0, box.width - 2))}" height="${fixed(Math.max(0, box.height - 2))}" rx="3" style="--heat:${Math.round(heat * 100)}%"/>${
      label !== "" && box.height > 20
        ? h`<text x="${fixed(box.x + 8)}" y="${fixed(box.y + 17)}" class="${heat > 0.55 ? "hot" : "cool"}">${label}</text>`
        : undefined
    }${
      label !== "" && box.height > 36
        ? h`<text x="${fixed(box.x + 8)}" y="${fixed(box.y + 32)}" class="small ${heat > 0.55 ? "hot" : "cool"}">${`${spot.commits}× · ${count(spot.lines)}${room > 26 && parent ? ` · ${parent}` : ""}`}</text>`
        : undefined
    }<title>${spot.path}: ${plural(spot.commits, "commit")}, ${plural(spot.lines, "line")}</title></g>`;
    const target = link(spot.path);
    return target ? h`<a href="${target}">${cell}</a>` : cell;
  });
  return h`<svg class="treemap" viewBox="0 0 1000 360" role="img" aria-label="Files by size and by number of changes">${cells}</svg>`;
};

export const yearChart = (years: readonly { year: number; lines: number }[]): Html => {
  const first = years[0]!.year;
  const all = Array.from(
    { length: years.at(-1)!.year - first + 1 },
    (_, index) => years.find((row) => row.year === first + index) ?? { year: first + index, lines: 0 },
  ).slice(-25);
  const total = all.reduce((sum, row) => sum + row.lines, 0);
  const most = Math.max(1, ...all.map((row) => row.lines));
  const step = Math.min(72, 520 / all.length);
  return h`<svg viewBox="0 0 520 130" class="years" role="img" aria-label="Lines by the year they were written">${all.map(
    (row, index) => {
      const height = Math.max(1.5, (row.lines / most) * 84);
      const x = index * step + 1;
      const middle = fixed(x + (step - 5) / 2);
      const label =
        step >= 38
          ? String(row.year)
          : step >= 24 || (all.length - 1 - index) % 2 === 0
            ? `’${String(row.year).slice(2)}`
            : "";
      const share = row.lines > 0 && step >= 38 ? `${Math.round((row.lines / total) * 100)} %` : "";
      return h`<rect class="week" x="${fixed(x)}" y="${fixed(104 - height)}" width="${fixed(step - 5)}" height="${fixed(height)}" rx="2"><title>${row.year}: ${plural(row.lines, "line")}</title></rect><text x="${middle}" y="121" text-anchor="middle">${label}</text><text x="${middle}" y="${fixed(98 - height)}" text-anchor="middle" class="small">${share}</text>`;
    },
  )}</svg>`;
};

export const stageColors: Readonly<Record<string, string>> = {
  plan: "#8b8fa3",
  overview: "#4c9f70",
  languages: "#3178c6",
  history: "#b7791f",
  ownership: "#e0a030",
  todos: "#c2562e",
  dependencies: "#7d5ba6",
  "duplicates.fingerprint": "#2a9d9d",
  "duplicates.match": "#17697a",
  tests: "#5b8c2a",
  "large-files": "#a0527a",
  report: "#d94f4f",
};

const axis = (from: number, to: number, left: number, width: number, height: number) => {
  const span = to - from;
  const step =
    [50, 100, 200, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000].find(
      (candidate) => span / candidate <= 10,
    ) ?? 600_000;
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => {
    const x = left + ((index * step) / span) * width;
    return h`<line class="grid" x1="${fixed(x)}" x2="${fixed(x)}" y1="0" y2="${height - 18}"/><text x="${fixed(x)}" y="${height - 4}" text-anchor="${index === 0 ? "start" : "middle"}" class="small">${`${(index * step) / 1000} s`}</text>`;
  });
};

const bounds = (making: Making) => ({
  from: Math.min(...making.tasks.map((task) => task.createdAt)),
  to: Math.max(making.at, ...making.tasks.map((task) => task.finishedAt ?? 0)) + 1,
});

/** Who worked when: a band for each agent, as many rows as it ran tasks at once. */
export const fleetChart = (making: Making): Html => {
  const { from, to } = bounds(making);
  const left = 130;
  const width = 860;
  const row = 15;
  const place = (time: number) => left + ((time - from) / (to - from)) * width;
  let y = 4;
  const bands = making.agents.map((agent) => {
    const runs = making.tasks
      .flatMap((task) =>
        task.attempts.filter((attempt) => attempt.agent === agent.name).map((attempt) => ({ task, ...attempt })),
      )
      .sort((a, b) => a.from - b.from);
    const ends: number[] = [];
    const bars = runs.map((run) => {
      let lane = ends.findIndex((end) => end <= run.from);
      if (lane < 0) lane = ends.push(0) - 1;
      ends[lane] = run.to;
      const x = place(run.from);
      return h`<rect x="${fixed(x)}" y="${fixed(y + 3 + lane * row)}" width="${fixed(Math.max(2, place(run.to) - x - 0.8))}" height="${row - 3}" rx="2" fill="${run.end !== "done" ? "url(#lost)" : (stageColors[run.task.type] ?? "#888888")}"><title>${run.task.type}: ${run.task.description}, ${seconds(run.to - run.from)}${run.end === "lost" ? ", lost with its process and given out again" : run.end === "failed" ? ", failed and tried again" : ""}</title></rect>`;
    });
    const height = Math.max(1, ends.length) * row + 6;
    const band = h`<rect class="band" x="${left}" y="${y}" width="${width}" height="${height - 2}" rx="3"/><text x="${left - 8}" y="${fixed(y + height / 2 + 3)}" text-anchor="end">${agent.name}</text>${bars}`;
    y += height;
    return band;
  });
  const height = y + 22;
  return h`<svg viewBox="0 0 1000 ${height}" role="img" aria-label="Who worked when"><defs><pattern id="lost" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="6" height="6" fill="#d94f4f" opacity="0.25"/><rect width="3" height="6" fill="#d94f4f"/></pattern></defs>${bands}${axis(from, to, left, width, height)}</svg>`;
};

/** Each task's wait (thin) and run (full). */
export const ganttChart = (making: Making): Html => {
  const { from, to } = bounds(making);
  const left = 250;
  const width = 740;
  const row = 14;
  const place = (time: number) => left + ((time - from) / (to - from)) * width;
  const tasks = [...making.tasks].sort((a, b) => (a.startedAt ?? to) - (b.startedAt ?? to));
  const height = tasks.length * row + 24;
  return h`<svg viewBox="0 0 1000 ${height}" role="img" aria-label="Every task's wait and run">${axis(from, to, left, width, height)}${tasks.map(
    (task, index) => {
      const y = index * row;
      const start = task.startedAt ?? to;
      const title = h`<title>${task.type}: ${task.description}; waited ${seconds(start - task.readyAt)}, ran ${seconds((task.finishedAt ?? to) - start)}</title>`;
      const label = `${task.type} · ${task.agent || "waiting"}`;
      return h`<g><text x="${left - 8}" y="${y + 10}" text-anchor="end" class="small">${label.length > 44 ? `${label.slice(0, 43)}…` : label}</text><rect class="wait" x="${fixed(place(task.readyAt))}" y="${y + 6}" width="${fixed(Math.max(0, place(start) - place(task.readyAt)))}" height="3"/>${task.attempts.map(
        (attempt) =>
          h`<rect x="${fixed(place(attempt.from))}" y="${y + 2}" width="${fixed(Math.max(2, place(attempt.to) - place(attempt.from)))}" height="${row - 4}" rx="2" fill="${attempt.end !== "done" ? "#d94f4f" : (stageColors[task.type] ?? "#888888")}"/>`,
      )}${title}</g>`;
    },
  )}</svg>`;
};
