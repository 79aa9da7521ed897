import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";
import { apiOf, unique } from "../support/api.ts";
import { eventually } from "../support/eventually.ts";
import { openReceiver } from "../support/receiver.ts";
import { root } from "../support/root.ts";
import { startServer } from "../support/server.ts";
import { connect } from "../support/socket.ts";
import { follow } from "../support/sse.ts";

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "waggle-secrets-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every file below a folder, but for those that hold a key for this machine's user. */
function files(below: string): { name: string; text: string }[] {
  return readdirSync(below, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !["admin.key", "secret.key"].includes(entry.name))
    .map((entry) => {
      const name = join(entry.parentPath, entry.name);
      return { name, text: readFileSync(name, "latin1") };
    });
}

/**
 * One of everything that is secret, used for everything it is for, rightly and wrongly. Then whatever can be read is looked
 * through: answers, errors, lists, events, frames, deliveries, the export, metrics, what the server and the command print, and files.
 */
test("no key, token or webhook secret is in anything that can be read but the answer it was made by", {
  timeout: 120_000,
}, async () => {
  const server = await startServer();
  const receiver = await openReceiver();
  const seen: { where: string; text: string }[] = [];
  const note = (where: string, text: string) => seen.push({ where, text });
  try {
    const admin = apiOf(server.url, server.key);
    const secrets: Record<string, string> = { "admin key": server.key };
    const key = (await admin.post<{ id: string; key: string }>("/v1/keys", { role: "operator", name: "spare" })).body;
    secrets["operator key"] = key.key;
    const agent = await admin.register({ name: "worker", capabilities: [{ name: "w" }] });
    secrets["agent token"] = agent.token;
    const called = await admin.post<{ agent: { id: string }; token: string; secret: string }>("/v1/agents", {
      name: "called",
      capabilities: [{ name: "c" }],
      delivery: { type: "webhook", url: receiver.url },
    });
    secrets["called agent's token"] = called.body.token;
    secrets["webhook secret that was made"] = called.body.secret;
    const own = `a secret of my own ${unique("s")}`;
    const patch = { delivery: { type: "webhook", url: receiver.url, secret: own } };
    note("PATCH agent", (await admin.call("PATCH", `/v1/agents/${called.body.agent.id}`, patch)).text);
    secrets["webhook secret that was given"] = own;
    const replayed = { "idempotency-key": unique("once") };
    const once = await admin.post<{ key: string }>("/v1/keys", { role: "reader" }, replayed);
    secrets["key of an answer kept to be repeated"] = once.body.key;
    secrets["wrong key"] = `wgk_${unique("wrong").padEnd(27, "x").slice(0, 27)}`;

    const stream = await follow(admin, "/v1/events");
    const task = await admin.delegate({ requires: [{ capability: "w" }], input: { n: 1 } });
    const failing = await admin.delegate({ requires: [{ capability: "w" }], retry: { maxAttempts: 1 } });
    const delivered = await admin.delegate({ requires: [{ capability: "c" }] });
    await receiver.count(1);
    const socket = await connect(agent);
    const held = await socket.take();
    await socket.ask({
      op: held.task.id === task.id ? "complete" : "fail",
      taskId: held.task.id,
      fence: held.fence,
      error: { code: "no", message: "no" },
    });
    await socket.ask({ op: "complete", taskId: task.id, fence: 1 });
    await socket.ask({ op: "complete", taskId: "\0", fence: agent.token });

    // Secrets where they do not belong: what refuses them must not repeat them.
    for (const [method, path, body] of [
      ["POST", "/v1/tasks", { type: "t", [secrets["agent token"] as string]: 1 }],
      ["GET", `/v1/tasks/${key.key}`, undefined],
      ["GET", "/v1/status", undefined],
    ] as const) {
      for (const bearer of [secrets["wrong key"], agent.token, undefined])
        note(`${method} ${path.slice(0, 12)} refused`, (await admin.as(bearer).call(method, path, body)).text);
    }
    note("a query refused", (await admin.get("/v1/tasks?colour=red")).text);
    note("a second name refused", (await admin.post("/v1/agents", { name: "worker", capabilities: [] })).text);

    for (const path of [
      ...[
        "/health",
        "/metrics",
        "/v1/status",
        "/v1/keys",
        "/v1/agents",
        "/v1/tasks",
        "/v1/events?limit=200",
        "/v1/limits",
      ],
      ...["/v1/dead-letters", "/v1/subscriptions", "/v1/export", "/openapi.json", "/docs", `/v1/agents/${agent.id}`],
      ...[`/v1/agents/${called.body.agent.id}`, `/v1/tasks/${task.id}`, `/v1/tasks/${delivered.id}/events`],
      ...[`/v1/tasks/${failing.id}/explain`, `/v1/tasks/${task.id}/explain`],
    ]) {
      const { status, text, headers } = await admin.get(path);
      expect([path, status]).toEqual([path, 200]);
      note(path, text + JSON.stringify([...headers]));
    }
    await eventually("the stream has shown the ends", () => stream.messages.length > 5);
    note("event stream", JSON.stringify(stream.messages));
    note("frames", JSON.stringify(socket.frames));
    note("deliveries", JSON.stringify(receiver.received));
    stream.close();

    const env = { ...process.env, WAGGLE_URL: server.url, WAGGLE_API_KEY: server.key, HOME: folder, NO_COLOR: "1" };
    for (const line of [
      "status",
      "doctor",
      "config list",
      "get agents -o json",
      "get tasks -o wide",
      "get events -o json",
      "describe agent worker -o json",
      "describe agent called",
      `describe task ${task.id}`,
      `export ${join(folder, "export.jsonl")}`,
      "get nothing",
    ]) {
      const argv = [join(root, "packages/cli/bin/waggle.mjs"), ...line.split(" ")];
      const { stdout, stderr } = await run(process.execPath, argv, { env }).catch((error) => error);
      expect(stdout.length + stderr.length, line).toBeGreaterThan(0);
      note(`waggle ${line}`, stdout + stderr);
    }
    await socket.close();
    await server.process.end("SIGTERM");
    note("output of the server", server.process.output());
    for (const { name, text } of [...files(server.dataDir), ...files(folder)]) note(name, text);

    const found = Object.entries(secrets).flatMap(([what, secret]) =>
      seen.filter(({ text }) => text.includes(secret)).map(({ where }) => `the ${what} is in ${where}`),
    );
    expect(found).toEqual([]);
    expect(seen.some(({ where, text }) => where.endsWith("export.jsonl") && text.includes("worker"))).toBe(true);
  } finally {
    await receiver.down();
    await server.stop();
  }
});
