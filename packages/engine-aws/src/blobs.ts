import { type Blobs, checkBlobKey } from "@waggle/core";
import type { Clients } from "./clients.ts";
import type { Counts } from "./meter.ts";
import type { Caller } from "./retry.ts";

export interface BlobParts {
  readonly bucket: string;
  readonly clients: Clients;
  readonly caller: Caller;
  readonly counts: Counts;
  readonly check: () => void;
}

/** A blob moves up to 1 MiB, more than other calls do. */
const attemptMs = 6_000;

export function createBlobs({ bucket, clients, caller, counts, check }: BlobParts): Blobs {
  const place = (key: string) => {
    check();
    checkBlobKey(key);
    counts.blobRequests++;
    return { Bucket: bucket, Key: key };
  };
  return {
    async put(key, bytes) {
      const at = place(key);
      const { PutObjectCommand } = await import("@waggle/engine-aws/sdk/s3");
      await caller.call(
        "store",
        async ({ signal }) =>
          void (await (await clients.s3()).send(new PutObjectCommand({ ...at, Body: bytes }), { abortSignal: signal })),
        { attemptMs },
      );
    },
    async get(key) {
      const at = place(key);
      const { GetObjectCommand } = await import("@waggle/engine-aws/sdk/s3");
      return await caller.call(
        "store",
        async ({ signal }) => {
          try {
            const { Body } = await (await clients.s3()).send(new GetObjectCommand(at), { abortSignal: signal });
            return await Body?.transformToByteArray();
          } catch (error) {
            if ((error as Error).name === "NoSuchKey") return undefined;
            throw error;
          }
        },
        { attemptMs },
      );
    },
    async delete(key) {
      const at = place(key);
      const { DeleteObjectCommand } = await import("@waggle/engine-aws/sdk/s3");
      await caller.call("store", async ({ signal }) => {
        await (await clients.s3()).send(new DeleteObjectCommand(at), { abortSignal: signal });
      });
    },
  };
}
