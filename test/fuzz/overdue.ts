import { performance } from "node:perf_hooks";

const patienceMs = 30_000;
/** Times that, for a process that has not come to rest meanwhile. */
const mostTimes = 10;

/**
 * Tells when an answer is overdue. The server is in this process: as long as that has work all the time, it may just have had little
 * of the processor. A server that has forgotten somebody comes to rest.
 * @returns ends it
 */
export function overdue(tell: (error: Error) => void): () => void {
  const begun = performance.eventLoopUtilization();
  let times = 0;
  const timer = setInterval(() => {
    times++;
    if (performance.eventLoopUtilization(begun).utilization > 0.9 && times < mostTimes) return;
    clearInterval(timer);
    tell(new Error(`no answer within ${(times * patienceMs) / 1000} s`));
  }, patienceMs);
  return () => clearInterval(timer);
}
