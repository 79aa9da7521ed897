import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { storeErrors } from "@waggle/core";

/**
 * Keeps a second process out of a data folder. The lock belongs to the open file, so it ends with the process however
 * it ends, and no stale one is ever left.
 *
 * Node has no flock(2). BSD and macOS lock by a flag of open(2); on Linux flock(1) locks the file behind a descriptor
 * it inherits, and that lock stays with our own descriptor when it exits.
 */
export function lockFolder(folder: string): () => void {
  const path = join(folder, "lock");
  const { O_RDWR, O_CREAT, O_NONBLOCK } = fs.constants;
  let fd: number;
  if (process.platform === "linux") {
    fd = fs.openSync(path, O_RDWR | O_CREAT, 0o600);
    const { status, error } = spawnSync("flock", ["-x", "-n", "3"], {
      stdio: ["ignore", "ignore", "ignore", fd],
    });
    if (error !== undefined || status === null || status > 1) {
      fs.closeSync(fd);
      throw storeErrors.unavailable("the data folder cannot be locked: the command flock (util-linux) is needed", {
        cause: error,
      });
    }
    if (status === 1) {
      fs.closeSync(fd);
      throw taken(folder, path);
    }
  } else {
    const exclusive = 0x20;
    try {
      fd = fs.openSync(path, O_RDWR | O_CREAT | O_NONBLOCK | exclusive, 0o600);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EAGAIN") throw taken(folder, path);
      throw cause;
    }
  }
  try {
    // Over what is there, which needs no room.
    fs.ftruncateSync(fd, fs.writeSync(fd, `${process.pid}\n`, 0));
  } catch {
    // It is only told to others: a full disk must keep no server from its data.
    fs.ftruncateSync(fd);
  }
  return () => fs.closeSync(fd);
}

function taken(folder: string, path: string) {
  const pid = fs.readFileSync(path, "utf8").trim();
  return storeErrors.locked(`${folder} is in use by process ${pid || "(starting)"}`, { data: { pid: Number(pid) } });
}
