import { once } from "node:events";
import { request } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort, launch, launchScript } from "../test/support/process.ts";
import { adminKey, serverCommand } from "../test/support/server.ts";
import { openServer } from "./growth.ts";
import type { Sizes } from "./sizes.ts";
import type { Figures } from "./workloads.ts";

interface Call {
  readonly port: number;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

const post = ({ port, path, headers, body }: Call) =>
  new Promise<number>((resolve) => {
    request(
      { host: "127.0.0.1", port, path, method: "POST", headers: { ...headers, connection: "close" } },
      (answer) => {
        answer.resume().on("end", () => resolve(answer.statusCode ?? 0));
      },
    )
      .on("error", () => resolve(0))
      .end(body);
  });

/** From the command to the first answer 201, in ms. */
async function untilAccepted(program: string, args: readonly string[], call: () => Call | undefined): Promise<number> {
  const began = performance.now();
  const server = launch(program, args);
  try {
    while (server.running && performance.now() - began < 20_000) {
      const ready = call();
      if (ready && (await post(ready)) === 201) return performance.now() - began;
      await sleep(1);
    }
    throw new Error(`the server accepted nothing:\n${server.output()}`);
  } finally {
    await server.end();
  }
}

async function waggle(dataDir: string): Promise<number> {
  const port = await freePort();
  const [program, args] = serverCommand(dataDir, port);
  return untilAccepted(program, args, () => {
    try {
      const headers = { authorization: `Bearer ${adminKey(dataDir)}`, "content-type": "application/json" };
      return { port, path: "/v1/tasks", headers, body: '{"type":"bench"}' };
    } catch {
      // The key is written during the first start.
      return;
    }
  });
}

/**
 * With few finished tasks and with many, of which the last were written right before a kill -9: from the command to the first
 * accepted task, then once more after a stop, then submits one after another.
 */
export async function measureOpen(dir: string, { open: { few, many, warmup, count } }: Sizes): Promise<Figures> {
  const stored = async (tasks: number) => {
    const dataDir = join(dir, `stored-${tasks}`);
    const filling = launchScript("bench/fill.ts", [dataDir, String(tasks)]);
    const [, signal] = await once(filling.child, "exit");
    if (signal !== "SIGKILL") throw new Error(`the tasks could not be stored:\n${filling.output()}`);
    const opened = { killedMs: await waggle(dataDir), againMs: await waggle(dataDir) };
    const { submits, close } = await openServer(dataDir);
    await submits(warmup);
    const submit = await submits(count);
    await close();
    return { ...opened, submit };
  };
  const small = await stored(few);
  const { submit, ...opened } = await stored(many);
  return { tasks: many, ...opened, submitP99: submit.p99, submitRatio: submit.p99 / small.submit.p99 };
}

/** A new server, the same one again with its data, and a Node server that does nothing. */
export async function measureStart(dataDir: string): Promise<Figures> {
  const bare = async () => {
    const port = await freePort();
    const code = `require("node:http").createServer((q,s)=>s.writeHead(201).end()).listen(${port},"127.0.0.1")`;
    return untilAccepted(process.execPath, ["-e", code], () => ({ port, path: "/", body: "" }));
  };
  return { firstMs: await waggle(dataDir), againMs: await waggle(dataDir), nodeMs: await bare() };
}
