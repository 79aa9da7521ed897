import { closeSync, fdatasync, fdatasyncSync, openSync, write, writeSync } from "node:fs";
import { Agent, createServer, request, type ServerResponse } from "node:http";
import { join } from "node:path";
import { eventually } from "../test/support/eventually.ts";
import { freePort, launchScript } from "../test/support/process.ts";
import { median, percentile } from "./stats.ts";
import { payload } from "./systems/system.ts";

/*
 * What this machine allows at best: a flush of the disk, and a Node server that appends each request to a file and
 * answers once it is flushed, many requests sharing a flush. Run as a script it is that server.
 */

function serve(port: number, file: string): void {
  const log = openSync(file, "a");
  let waiting: { body: string; response: ServerResponse }[] = [];
  let flushing = false;
  const flush = () => {
    const batch = waiting;
    waiting = [];
    flushing = batch.length > 0;
    if (!flushing) return;
    write(log, batch.map(({ body }) => `${body}\n`).join(""), (writeError) => {
      if (writeError) throw writeError;
      fdatasync(log, (syncError) => {
        if (syncError) throw syncError;
        for (const { response } of batch) response.writeHead(201, { "content-type": "application/json" }).end("{}");
        flush();
      });
    });
  };
  createServer((incoming, response) => {
    let body = "";
    incoming.setEncoding("utf8");
    incoming.on("data", (chunk: string) => {
      body += chunk;
    });
    incoming.on("end", () => {
      JSON.parse(body);
      waiting.push({ body, response });
      if (!flushing) flush();
    });
  }).listen(port, "127.0.0.1");
}

const [, , mode, port, file] = process.argv;
if (mode === "floor-server") serve(Number(port), file as string);

export interface Floor {
  readonly flushP50: number;
  readonly flushP99: number;
  readonly postP50: number;
  readonly postP99: number;
  readonly postsPerSecond: number;
}

export async function measureFloor(dir: string): Promise<Floor> {
  const block = Buffer.alloc(512, 120);
  const flat = openSync(join(dir, "flush"), "w");
  const flushes = Array.from({ length: 500 }, () => {
    const began = performance.now();
    writeSync(flat, block);
    fdatasyncSync(flat);
    return performance.now() - began;
  });
  closeSync(flat);

  const at = await freePort();
  const server = launchScript("bench/floor.ts", ["floor-server", String(at), join(dir, "append")]);
  const agent = new Agent({ keepAlive: true, maxSockets: 32 });
  const post = (n: number) =>
    new Promise<true>((resolve, reject) => {
      const body = JSON.stringify(payload(n));
      const headers = { "content-type": "application/json", "content-length": body.length };
      request({ host: "127.0.0.1", port: at, method: "POST", agent, headers }, (response) => {
        response.resume().on("end", () => resolve(true));
      })
        .on("error", reject)
        .end(body);
    });
  try {
    await eventually("the floor server answers", () => post(0));
    const burst = async (count: number) => {
      let next = 0;
      const began = performance.now();
      const one = async () => {
        while (next++ < count) await post(next);
      };
      await Promise.all(Array.from({ length: 32 }, one));
      return (count / (performance.now() - began)) * 1000;
    };
    await burst(5000);
    const posts: number[] = [];
    for (let n = 0; n < 1000; n++) {
      const began = performance.now();
      await post(n);
      posts.push(performance.now() - began);
    }
    const rates = [await burst(5000), await burst(5000), await burst(5000)];
    return {
      flushP50: percentile(flushes, 0.5),
      flushP99: percentile(flushes, 0.99),
      postP50: percentile(posts, 0.5),
      postP99: percentile(posts, 0.99),
      postsPerSecond: median(rates),
    };
  } finally {
    agent.destroy();
    await server.end();
  }
}
