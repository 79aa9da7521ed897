import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock, Engine } from "@waggle/core";
import { openEmbedded } from "@waggle/engine-embedded";

/** An engine under the contract, on data of its own. */
export interface Opened {
  readonly engine: Engine;
  /** Lets the engine's time pass: a clock in hand, or real seconds where a service keeps the time. */
  advance(seconds: number): Promise<void>;
  /** Stops it and opens it on the same data. */
  reopen(): Promise<Opened>;
  /** Stops it and takes its data away. */
  remove(): Promise<void>;
}

export interface EngineCase {
  readonly name: string;
  open(): Promise<Opened>;
}

/** Every engine there is; the suites run on each. */
export const engines: readonly EngineCase[] = [{ name: "embedded", open: () => openFolder() }];

async function openFolder(dataDir = mkdtempSync(join(tmpdir(), "waggle-contract-"))): Promise<Opened> {
  const { clock, advance } = manualClock();
  const engine = await openEmbedded({ dataDir, clock });
  return {
    engine,
    advance,
    async reopen() {
      await engine.close();
      return await openFolder(dataDir);
    },
    async remove() {
      await engine.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

function manualClock() {
  let now = Date.now();
  const timers = new Set<{ at: number; callback: () => void }>();
  const clock: Clock = {
    now: () => now,
    after(delayMs, callback) {
      const timer = { at: now + delayMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  };
  async function advance(seconds: number): Promise<void> {
    const until = now + seconds * 1000;
    for (;;) {
      // What the last timer set going may set timers of its own.
      for (let turns = 0; turns < 10; turns++) await new Promise((resolve) => setImmediate(resolve));
      const [next] = [...timers].sort((a, b) => a.at - b.at);
      if (next === undefined || next.at > until) break;
      timers.delete(next);
      now = Math.max(now, next.at);
      next.callback();
    }
    now = until;
  }
  return { clock, advance };
}
