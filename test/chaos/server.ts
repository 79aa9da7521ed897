import { writeSync } from "node:fs";
import { systemClock } from "@waggle/core";
import { diskFiles, type LogFiles } from "@waggle/engine-embedded";
import { startLocal } from "@waggle/local";
import { randomOf } from "../support/random.ts";

/* The server as `waggle dev` starts it, with a clock that can be set and a disk that can fail. */
const [, , dataDir = "", port = "", offset = "", seed = ""] = process.argv;

/** `torn`: half of the next write reaches the disk, and that was the end of the process. */
export type Disk = "fine" | "full" | "failing" | "torn";
export type Order = { readonly clockMs: number } | { readonly disk: Disk };

let clockMs = Number(offset);
let disk: Disk = "fine";
const random = randomOf(Number(seed));
process.on("message", (order: Order) => {
  if ("disk" in order) disk = order.disk;
  else clockMs = order.clockMs;
});
process.on("disconnect", () => process.exit(0));

const fails = (code: string) => Object.assign(new Error(`${code}: write`), { code });
const files: LogFiles = {
  async write(fd, bytes, length, at) {
    if (disk === "torn") {
      writeSync(fd, bytes, 0, Math.floor(random() * length), at);
      process.kill(process.pid, "SIGKILL");
    }
    if (disk === "full") throw fails("ENOSPC");
    const broken = disk === "failing" && random() < 0.5;
    // Of those that fail, half have reached the disk all the same.
    if (!broken || random() < 0.5) await diskFiles.write(fd, bytes, length, at);
    if (broken) throw fails("EIO");
  },
  async fill(path, bytes) {
    if (disk === "full") throw fails("ENOSPC");
    await diskFiles.fill(path, bytes);
  },
};

await startLocal({
  dataDir,
  port: Number(port),
  version: "chaos",
  log: (line) => console.error(line),
  engine: {
    clock: { ...systemClock, now: () => Date.now() + clockMs },
    // Small, so that a short run checkpoints and turns its log many times.
    flush: { files, checkpointBytes: 256 * 1024, checkpointSeconds: 2, segmentBytes: 256 * 1024 },
  },
});
