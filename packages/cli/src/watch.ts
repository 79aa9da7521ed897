import type { Io } from "./io.ts";

const everyMs = 1000;

/** Does it once a second, until the command is interrupted. */
export async function untilInterrupted(io: Io, run: (first: boolean) => Promise<void>): Promise<void> {
  const stop = io.interrupted();
  for (let first = true; !stop.aborted; first = false) {
    await run(first);
    await new Promise<void>((done) => {
      const over = () => {
        clearTimeout(timer);
        stop.removeEventListener("abort", over);
        done();
      };
      const timer = setTimeout(over, everyMs);
      stop.addEventListener("abort", over);
      if (stop.aborted) over();
    });
  }
}
