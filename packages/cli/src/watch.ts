import { patientSeconds } from "./context.ts";
import { explainFailure } from "./explain.ts";
import { exit } from "./failure.ts";
import type { Io } from "./io.ts";

const everyMs = 1000;

/** Does it once a second, until the command is interrupted. Once it has succeeded a server that restarts is waited for. */
export async function untilInterrupted(io: Io, run: (first: boolean) => Promise<void>): Promise<void> {
  const stop = io.interrupted();
  let succeededAt: number | undefined;
  while (!stop.aborted) {
    try {
      await run(succeededAt === undefined);
      succeededAt = performance.now();
    } catch (error) {
      const lateMs = performance.now() - (succeededAt ?? Number.NEGATIVE_INFINITY);
      if (explainFailure(error).exitCode !== exit.unreachable || lateMs > patientSeconds * 1000) throw error;
    }
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
