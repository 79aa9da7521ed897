import type { Paint } from "./text.ts";
import { progressLine, type State, screen } from "./view.ts";

export type Ui = {
  /** Something changed; drawn when it is time. */
  changed(): void;
  /** A message worth a line of its own. */
  say(text: string, tone?: "plain" | "bad" | "good"): void;
  /** The end of the live view: from here on lines only. */
  close(): void;
};

const frameMs = 100;

/** A picture that is drawn again in place, on the terminal's other screen, at most ten times a second. */
export const liveUi = (out: NodeJS.WriteStream, state: State, colors: Paint): Ui => {
  let timer: NodeJS.Timeout | undefined;
  let open = true;
  out.write("\x1b[?1049h\x1b[?25l");
  const leave = () => {
    if (open) out.write("\x1b[?25h\x1b[?1049l");
    open = false;
  };
  process.on("exit", leave);
  const draw = () => {
    timer = undefined;
    if (!open) return;
    const lines = screen(state, { columns: out.columns || 80, rows: out.rows || 24 }, colors, Date.now());
    // Lines are not wrapped while drawing: what a terminal counts as wide may differ from what we count.
    out.write(`\x1b[?2026h\x1b[?7l\x1b[H${lines.map((line) => `${line}\x1b[K`).join("\r\n")}\x1b[J\x1b[?7h\x1b[?2026l`);
  };
  const changed = () => {
    timer ??= setTimeout(draw, frameMs);
  };
  const clock = setInterval(changed, 500);
  const resized = () => {
    out.write("\x1b[2J");
    changed();
  };
  out.on("resize", resized);
  draw();
  const print = (text: string, tone: "plain" | "bad" | "good") =>
    out.write(`${tone === "bad" ? colors.red(text) : tone === "good" ? colors.green(text) : text}\n`);
  return {
    changed,
    say(text, tone = "plain") {
      state.news.push({ at: Date.now(), text, tone });
      if (open) changed();
      else print(text, tone);
    },
    close() {
      clearInterval(clock);
      clearTimeout(timer);
      out.off("resize", resized);
      leave();
      process.off("exit", leave);
    },
  };
};

/** Lines, for logs and pipes: every message, and how far it is once a second when that changed. */
export const plainUi = (out: NodeJS.WriteStream, state: State, colors: Paint): Ui => {
  let last = "";
  const tick = () => {
    const line = progressLine(state, Date.now());
    const told = line.replace(/^\S+ \S+ {2}/, "");
    if (told === last) return;
    last = told;
    out.write(`${line}\n`);
  };
  const clock = setInterval(tick, 1000);
  return {
    changed() {},
    say(text, tone = "plain") {
      state.news.push({ at: Date.now(), text, tone });
      out.write(`${tone === "bad" ? colors.red(text) : tone === "good" ? colors.green(text) : text}\n`);
    },
    close() {
      tick();
      clearInterval(clock);
    },
  };
};
