import { readdirSync, readFileSync } from "node:fs";
import { memoryMiB, memoryOf } from "../test/support/process.ts";

/* What a server takes, however many processes it is made of; from /proc. */

/** The process and all below it. */
export function treeOf(pid: number): number[] {
  try {
    const children = readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").split(" ").filter(Boolean),
    );
    return [pid, ...children.flatMap((child) => treeOf(Number(child)))];
  } catch {
    // It has ended.
    return [];
  }
}

/** Processor time so far, of those that have ended too, in ms (steps of 10). */
export function cpuMs(pid: number): number {
  const ticks = treeOf(pid).map((each) => {
    try {
      const stat = readFileSync(`/proc/${each}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0);
    } catch {
      return 0;
    }
  });
  return ticks.reduce((sum, each) => sum + each, 0) * 10;
}

/** Of this process alone, without those it has started, in ms. */
export function ownCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** What a process has of its own, in MiB: without pages of files. */
export const ownMiB = (pid: number): number => memoryOf(pid)("RssAnon");

/** In MiB: the private pages of each process, and once the largest that they share. */
function treeMiB(tree: readonly number[]): number {
  const total = { own: 0, file: 0, shared: 0 };
  for (const pid of tree) {
    try {
      const mib = memoryOf(pid);
      total.own += mib("RssAnon");
      total.file = Math.max(total.file, mib("RssFile"));
      total.shared = Math.max(total.shared, mib("RssShmem"));
    } catch {
      // It has ended.
    }
  }
  return total.own + total.file + total.shared;
}

/** Watches until it is called, and gives the most resident memory in MiB. The kernel keeps that of a single process. */
export function watchPeak(pid: number): () => number {
  let most = 0;
  const look = () => {
    most = Math.max(most, treeMiB(treeOf(pid)));
  };
  const timer = setInterval(look, 100);
  return () => {
    clearInterval(timer);
    look();
    if (treeOf(pid).length > 1) return most;
    return memoryMiB(pid).peak;
  };
}

const processorTimes = () =>
  (readFileSync("/proc/stat", "utf8").split("\n")[0] ?? "").trim().split(/\s+/).slice(1, 9).map(Number);

/** Share of the processors' time that the machine's host gave to others since then, 0–1. */
export function watchSteal(): () => number {
  const before = processorTimes();
  return () => {
    const passed = processorTimes().map((ticks, at) => ticks - (before[at] ?? 0));
    return (
      (passed[7] ?? 0) /
      Math.max(
        1,
        passed.reduce((sum, ticks) => sum + ticks, 0),
      )
    );
  };
}
