import { createHash, randomUUID } from "node:crypto";
import { promises as files, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Blobs, checkBlobKey, storeErrors } from "@waggle/core";
import { makeFolder } from "./log.ts";
import type { Counts } from "./meter.ts";

/** One file a blob, named by the hash of its key: safe on file systems that take `a` and `A` for the same name. */
export function createBlobs(folder: string, counts: Counts, check: () => void): Blobs {
  const drafts = join(folder, "drafts");
  // What a crash left half-written.
  rmSync(drafts, { recursive: true, force: true });
  function pathOf(key: string): string {
    check();
    checkBlobKey(key);
    counts.blobRequests++;
    const hash = createHash("sha256").update(key).digest("hex");
    return join(folder, hash.slice(0, 2), hash);
  }
  return {
    async put(key, bytes) {
      const path = pathOf(key);
      const draft = join(drafts, randomUUID());
      try {
        makeFolder(dirname(path));
        mkdirSync(drafts, { recursive: true });
        const file = await files.open(draft, "wx");
        try {
          await file.writeFile(bytes);
          await file.sync();
        } finally {
          await file.close();
        }
        await files.rename(draft, path);
        const parent = await files.open(dirname(path), "r");
        try {
          await parent.sync();
        } finally {
          await parent.close();
        }
      } catch (cause) {
        await files.rm(draft, { force: true }).catch(() => {});
        throw storeErrors.unavailable("the payload could not be written", { cause, retryAfterSeconds: 1 });
      }
    },
    async get(key) {
      const path = pathOf(key);
      try {
        return await files.readFile(path);
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw storeErrors.unavailable("the payload could not be read", { cause, retryAfterSeconds: 1 });
      }
    },
    async delete(key) {
      await files.rm(pathOf(key), { force: true });
    },
  };
}
