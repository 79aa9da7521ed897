import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { startLocal } from "@waggle/local";
import { createClient } from "@waggle/sdk";
import type { Command } from "commander";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import { untilPasses } from "../../../test/support/eventually.ts";
import { freePort } from "../../../test/support/process.ts";
import { candidates } from "../src/command/completion.ts";
import { painter, processIo } from "../src/io.ts";
import * as parse from "../src/parse.ts";
import { buildProgram } from "../src/program.ts";
import { begin, waggle } from "./support.ts";

let dir: string;
let server: Awaited<ReturnType<typeof startLocal>>;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "waggle-cli-"));
  server = await startLocal({ dataDir: join(dir, "data"), port: 0, version: "0.1.0" });
});
afterAll(async () => {
  await server.stop();
  rmSync(dir, { recursive: true, force: true });
});
beforeEach(() => {
  Object.assign(process.env, {
    WAGGLE_URL: server.url,
    WAGGLE_API_KEY: server.adminKey,
    WAGGLE_CONFIG: join(dir, "config.json"),
    WAGGLE_DATA: join(dir, "data"),
  });
});

const json = async (...argv: string[]) => {
  const { code, out, err } = await waggle(...argv, "-o", "json");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return JSON.parse(out);
};
let made = 0;
/** An agent that runs this shell script, with a capability of its own. */
async function withAgent<T>(
  script: string,
  run: (can: string, agent: ReturnType<typeof begin>) => Promise<T>,
  more: string[] = [],
): Promise<T> {
  const can = `can-${++made}`;
  const agent = begin([
    "agent",
    "run",
    "--name",
    `agent-${made}`,
    "--capability",
    can,
    ...more,
    "--",
    "sh",
    "-c",
    script,
  ]);
  try {
    await untilPasses(() => expect(agent.err()).toContain("is ready"));
    return await run(can, agent);
  } finally {
    agent.interrupt();
    await agent.done;
  }
}

describe("agent register", () => {
  test("shows token and secret once, and describe where it is called and never the secret", async () => {
    const webhook = "http://127.0.0.1:9/work";
    const { code, out, err } = await waggle("agent", "register", "--name", "hook", "--webhook", webhook);
    expect([code, err]).toEqual([0, expect.stringContaining("shown this once")]);
    const secret = /whsec_\S+/.exec(out)?.[0] as string;
    expect(out).toMatch(/wga_/);
    const described = await waggle("describe", "agent", "hook");
    expect(described.out).toContain(`webhook, ${webhook}`);
    expect(described.out).not.toContain(secret);
  });
  test("takes a secret from the environment, and a taken name only with --replace", async () => {
    const argv = ["agent", "register", "--name", "own", "--webhook", "https://example.com/work", "-o", "json"];
    const first = await begin(argv, { env: { WAGGLE_WEBHOOK_SECRET: "whsec_c29tZXRoaW5nIHNlY3JldA==" } }).done;
    expect(JSON.parse(first.out).secret).toBeUndefined();
    expect((await waggle(...argv)).code).not.toBe(0);
    expect(JSON.parse((await waggle(...argv, "--replace")).out).agent.id).toBe(JSON.parse(first.out).agent.id);
  });
  test("has one delivery, and one that may be called", async () => {
    const [a, b] = ["https://example.com/a", "https://sqs.eu-west-1.amazonaws.com/123456789012/b"];
    expect((await waggle("agent", "register", "--name", "two", "--webhook", a, "--queue", b)).code).toBe(2);
    const { code, err } = await waggle("agent", "register", "--name", "inside", "--webhook", "https://10.0.0.1/");
    expect(code).not.toBe(0);
    expect(err).toMatch(/delivery.url.*private network/s);
  });
});

describe("the command line", () => {
  const program = buildProgram(processIo(), parse, "0.1.0", () => {});
  const all = (command: Command, path: string[]): { path: string[]; command: Command }[] =>
    command.commands
      .filter((sub) => !sub.name().startsWith("_"))
      .flatMap((sub) => [{ path: [...path, sub.name()], command: sub }, ...all(sub, [...path, sub.name()])]);

  test("prints help and exits with 0 when given nothing", async () => {
    const { code, out } = await waggle();
    expect(code).toBe(0);
    expect(out).toContain("Exit codes: 0 ok");
  });

  test.each(all(program, []).map(({ path }) => path.join(" ")))("explains %s with --help", async (path) => {
    const { code, out, err } = await waggle(...path.split(" "), "--help");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toContain(`waggle ${path}`);
  });

  test.each([
    ["an unknown command", ["gte", "tasks"], "Did you mean get"],
    ["an unknown option", ["get", "tasks", "--wach"], "Did you mean --watch"],
    ["a missing argument", ["describe"], "→ waggle describe --help"],
    ["no id", ["describe", "task"], "waggle get tasks"],
    ["a strategy that is none", ["delegate", "x", "--strategy", "luck"], "best_fit"],
    ["a retention that rounds to for ever", ["retention", "set", "--tasks", "10ms"], "less than a second"],
    ["a bad number", ["delegate", "x", "--priority", "99"], "0 to 9"],
    ["a bad duration", ["delegate", "x", "--delay", "later"], "not a duration"],
    ["a bad format", ["get", "tasks", "-o", "xml"], "table, wide, json, yaml"],
    ["an unknown noun", ["get", "bees"], "agents, tasks"],
    ["a filter the list does not know", ["get", "limits", "--status", "failed"], "--status"],
    ["input that is no JSON", ["delegate", "x", "--input", "hello"], "not JSON"],
    ["a program that does not exist", ["agent", "run", "--name", "x", "--", "no-such-program"], "no program"],
    ["a program that is a folder", ["agent", "run", "--name", "x", "--", tmpdir()], "no program"],
    ["an event by itself", ["get", "events", "tsk_0000000000000000000000"], "--after"],
    ["a status that is none", ["get", "tasks", "--status", "happy"], "status"],
  ])("exits with 2 for %s and says what is right", async (_, argv, said) => {
    const { code, err } = await waggle(...argv);
    expect(code).toBe(2);
    expect(err).toContain(said);
  });

  test.each([
    ["get", "task", "tsk_0000000000000000000000"],
    ["describe", "agent", "nobody-of-this-name"],
    ["cancel", "tsk_0000000000000000000000"],
    ["config", "get", "output"],
    ["export", "/no/such/folder/fleet.jsonl"],
  ])("exits with 3 when there is no such thing: %s %s %s", async (...argv) => {
    const { code, err } = await waggle(...argv.filter(Boolean));
    expect(code).toBe(3);
    expect(err).toContain("→");
  });

  test("exits with 4 when the server refuses", async () => {
    const { key } = await json("key", "create", "--role", "reader");
    expect(await waggle("delegate", "x", "--key", key)).toMatchObject({
      code: 4,
      err: expect.stringContaining("role"),
    });
    expect(await waggle("get", "tasks", "--key", `wgk_${"x".repeat(27)}`)).toMatchObject({
      code: 4,
      err: expect.stringContaining("WAGGLE_API_KEY"),
    });
    const { id } = await json("delegate", "x", "--requires", "nobody");
    expect(await waggle("retry", id)).toMatchObject({ code: 4, err: expect.stringContaining("task.not_retryable") });
  });

  test("exits with 5, and says so in words, where something else than Waggle answers", async () => {
    const page = "<!DOCTYPE html><style>p {}</style><p>No such page</p>";
    const other = createServer((_, response) => void response.writeHead(404).end(page));
    await once(other.listen(0, "127.0.0.1"), "listening");
    const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const { code, err } = await waggle("get", "tasks", "--url", url);
    other.close();
    expect({ code, err }).toMatchObject({ code: 5, err: expect.stringContaining("answered 404: No such page (") });
    expect(err).toContain("a Waggle server");
  });

  test("exits with 5 when there is no server, and says how to start one", async () => {
    const { code, err } = await waggle("get", "tasks", "--url", "http://127.0.0.1:9");
    expect(code).toBe(5);
    expect(err).toContain("waggle dev");
    expect(err).not.toMatch(/\n\s+at /);
  });
});

describe("tasks", () => {
  test("are delegated with everything asked for", async () => {
    writeFileSync(join(dir, "input.json"), '{"from":"a file"}');
    const task = await json(
      ...["delegate", "work", "--input", `@${join(dir, "input.json")}`, "--requires", "nobody:0.5", "--priority", "9"],
      ...[
        "--label",
        "memory>=16",
        "--prefer",
        "zone=eu",
        "--tag",
        "t1",
        "--tag",
        "t2",
        "--description",
        "words",
        "--delay",
        "1h",
      ],
      ...["--run-timeout", "10m", "--attempts", "2", "--limit", "model=3", "--fair-key", "me", "--metadata", '{"m":1}'],
    );
    expect(task).toMatchObject({
      type: "work",
      status: "scheduled",
      input: { from: "a file" },
      priority: 9,
      requires: [{ capability: "nobody", minLevel: 0.5 }],
      labels: [
        { key: "memory", op: "gte", value: 16, required: true },
        { key: "zone", op: "eq", value: "eu", required: false },
      ],
      tags: ["t1", "t2"],
      timeouts: { runSeconds: 600 },
      retry: { maxAttempts: 2 },
      concurrency: [{ key: "model", limit: 3 }],
      fairKey: "me",
      metadata: { m: 1 },
    });
  });

  test("take their input from standard input", async () => {
    const { done } = begin(["delegate", "x", "--requires", "nobody", "--input", "-", "-o", "json"], {
      stdin: '{"a":[1]}',
    });
    expect(JSON.parse((await done).out)).toMatchObject({ input: { a: [1] } });
  });

  test("are found by the end of their id, and refused when it fits several", async () => {
    const { id } = await json("delegate", "x", "--requires", "nobody");
    expect((await json("get", "task", id.slice(-8))).id).toBe(id);
    await json("delegate", "x", "--requires", "nobody");
    const several = await waggle("get", "task", id.slice(0, 8));
    expect(several).toMatchObject({ code: 2, err: expect.stringContaining("fits") });
  });

  test("are listed as a table, as JSON and as YAML", async () => {
    const { id } = await json("delegate", "listed", "--requires", "nobody", "--tag", "listed");
    const items = await untilPasses(async () => {
      const { items } = await json("get", "tasks", "--tag", "listed");
      expect(items).toHaveLength(1);
      return items;
    });
    expect(items[0].id).toBe(id);
    const table = await waggle("get", "tasks", "--tag", "listed");
    expect(table.out.split("\n")[0]).toMatch(/^ID +TYPE +STATUS/);
    expect(table.out).toContain(id);
    const yaml = await waggle("get", "tasks", "--tag", "listed", "-o", "yaml");
    expect(parseYaml(yaml.out)).toEqual({ items });
  });

  test("are described and explained", async () => {
    const { id } = await json("delegate", "described", "--requires", "nobody", "--input", '{"deep":{"er":1}}');
    const described = await waggle("describe", "task", id);
    expect(described.out).toMatch(/Status: +queued/);
    expect(described.out).toContain('"er": 1');
    expect((await waggle("explain", id)).out).toContain("no agent");
    expect((await waggle("explain", "task", id)).code).toBe(0);
  });

  test("are found by their whole id alone, and printed as JSON by --json", async () => {
    const { id } = await json("delegate", "x", "--requires", "nobody");
    for (const verb of ["get", "describe"]) expect((await waggle(verb, id)).out).toContain(id);
    expect(JSON.parse((await waggle("get", id, "--json")).out)).toMatchObject({ id });
  });

  test("are cancelled, several at once, one failure leaving the others alone", async () => {
    const one = await json("delegate", "x", "--requires", "nobody");
    const two = await json("delegate", "x", "--requires", "nobody");
    const { code, out, err } = await waggle("cancel", one.id, "tsk_0000000000000000000000", two.id, "--reason", "over");
    expect(code).toBe(3);
    expect(out.match(/cancelled/g)).toHaveLength(2);
    expect(err).toContain("tsk_0000000000000000000000");
    expect((await json("get", "task", one.id)).error.message).toBe("over");
    expect((await waggle("retry", one.id)).out).toContain("queued");
  });

  test("that have not ended in the time given to wait are left to go on, and exit with 1", async () => {
    const { code, err } = await waggle("delegate", "x", "--requires", "nobody", "--wait-timeout", "50ms");
    expect(code).toBe(1);
    expect(err).toMatch(/still queued after 0\.05 s; it goes on.*waggle logs -f tsk_/s);
  });

  test("that nobody can do are waited for in sight, and go on when the wait is broken off", async () => {
    const waiting = begin(["delegate", "x", "--requires", "nobody", "--wait"]);
    await untilPasses(() => expect(waiting.err()).toMatch(/no eligible agent.*waggle explain tsk_/s));
    waiting.interrupt();
    const { code, err } = await waiting.done;
    expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining("which goes on") });
    const [id = ""] = /tsk_\w+/.exec(err) ?? [];
    expect(await json("get", id)).toMatchObject({ status: "queued" });
  });

  test("are watched: what changes is printed as it changes", async () => {
    const watching = begin(["get", "tasks", "--tag", "watched", "--watch", "-o", "json"]);
    const { id } = await json("delegate", "x", "--requires", "nobody", "--tag", "watched");
    await untilPasses(() => expect(watching.out()).toContain('"queued"'));
    await waggle("cancel", id);
    await untilPasses(() => expect(watching.out()).toContain('"cancelled"'));
    watching.interrupt();
    expect((await watching.done).code).toBe(0);
  });
});

test("what waits, follows or watches goes on when the server has restarted", async () => {
  const data = join(dir, "restarted");
  let own = await startLocal({ dataDir: data, port: 0, version: "0.1.0" });
  const to = ["--url", own.url, "--key", own.adminKey];
  const waiting = begin(["delegate", "x", "--requires", "nobody", "--wait", ...to]);
  const following = begin(["logs", "--follow", ...to]);
  const watching = begin(["get", "tasks", "--watch", ...to]);
  try {
    for (const { out } of [following, watching]) await untilPasses(() => expect(out()).toContain("queued"));
    await own.stop();
    // Others try for a second, and give up.
    for (let n = 0; n < 3; n++) expect((await waggle("get", "agents", ...to)).code).toBe(5);
    own = await startLocal({ dataDir: data, port: Number(new URL(own.url).port), version: "0.1.0" });
    const [, id = ""] = /(tsk_\w+)/.exec(watching.out()) ?? [];
    expect((await waggle("cancel", id, ...to)).code).toBe(0);
    expect(await waiting.done).toMatchObject({ code: 1, err: expect.stringContaining("ended cancelled") });
    for (const { out } of [following, watching]) await untilPasses(() => expect(out()).toContain("cancelled"));
  } finally {
    for (const command of [following, watching]) command.interrupt();
    await Promise.all([following.done, watching.done]);
    await own.stop();
  }
});

describe("any program is an agent", () => {
  test("its output is the result, its input the task's", async () => {
    await withAgent("cat", async (can) => {
      const { code, out } = await waggle(
        "delegate",
        "echo",
        "--requires",
        can,
        "--input",
        '{"hello":"bees"}',
        "--wait",
      );
      expect({ code, out }).toEqual({ code: 0, out: '{"hello":"bees"}\n' });
    });
  });

  test("it is told about its task by its environment", async () => {
    await withAgent('printf "%s %s %s" "$WAGGLE_TASK_TYPE" "$WAGGLE_ATTEMPT" "$WAGGLE_AGENT_NAME"', async (can) => {
      const task = await json("delegate", "kind", "--requires", can, "--wait");
      expect(task.result).toBe(`kind 1 agent-${made}`);
    });
  });

  test("its failure is the task's, with exit code and the last of stderr, and exits with 1", async () => {
    await withAgent("echo one >&2; echo the disk is full >&2; exit 7", async (can) => {
      const { code, err } = await waggle("delegate", "fails", "--requires", can, "--attempts", "1", "--wait");
      expect(code).toBe(1);
      expect(err).toContain("the disk is full");
      expect(err).toContain("exit.7");
    });
  });

  test("an exit code declared fatal ends the task without another attempt", async () => {
    await withAgent(
      "exit 65",
      async (can) => {
        const { done } = begin(["delegate", "fatal", "--requires", can, "--wait", "-o", "json"]);
        expect(JSON.parse((await done).out)).toMatchObject({
          status: "failed",
          attempt: 1,
          error: { code: "exit.65", retryable: false },
        });
      },
      ["--fatal", "64,65"],
    );
  });

  test("its ::progress lines are the task's progress", async () => {
    await withAgent("echo '::progress 40 halfway' >&2; sleep 30", async (can) => {
      const { id } = await json("delegate", "slow", "--requires", can);
      await untilPasses(async () =>
        expect((await json("get", "task", id)).progress).toEqual({ percent: 40, message: "halfway" }),
      );
      await waggle("cancel", id);
    });
  });

  test("what it leaves running in the background is not waited for", async () => {
    await withAgent('sleep 60 & echo "$!"', async (can) => {
      const { result } = await json("delegate", "leaves", "--requires", can, "--wait");
      process.kill(result, "SIGKILL");
    });
  });

  test("it gets SIGTERM on cancel and may tidy up", async () => {
    const file = join(dir, `tidied-${made}`);
    await withAgent(
      `trap 'echo tidy > ${file}; exit 1' TERM; echo '::progress 1' >&2; sleep 30 & wait`,
      async (can) => {
        const { id } = await json("delegate", "cancelled", "--requires", can);
        await untilPasses(async () => expect((await json("get", "task", id)).progress).toEqual({ percent: 1 }));
        await waggle("cancel", id, "--reason", "enough");
        await untilPasses(async () => expect((await json("get", "task", id)).status).toBe("cancelled"));
        expect(readFileSync(file, "utf8")).toBe("tidy\n");
      },
    );
  });

  test("it gets SIGKILL when it does not heed SIGTERM", async () => {
    await withAgent(
      "trap '' TERM; echo '::progress 1' >&2; while true; do sleep 0.05; done",
      async (can) => {
        const { id } = await json("delegate", "stubborn", "--requires", can);
        await untilPasses(async () => expect((await json("get", "task", id)).progress).toEqual({ percent: 1 }));
        await waggle("cancel", id);
        await untilPasses(async () => expect((await json("get", "task", id)).status).toBe("cancelled"));
      },
      ["--kill-after", "100ms"],
    );
  });

  test("what it has started gets SIGKILL too when it alone heeds SIGTERM", async () => {
    await withAgent(
      `(trap '' TERM; exec sleep 60) & echo "::details $!" >&2; wait`,
      async (can) => {
        const { id } = await json("delegate", "orphans", "--requires", can);
        const pid = await untilPasses(async () => {
          const { details } = await json("get", "task", id);
          expect(details).toBeGreaterThan(0);
          return details as number;
        });
        await waggle("cancel", id);
        await untilPasses(() => expect(() => process.kill(pid, 0)).toThrow());
      },
      // Longer than its output is read once it has ended.
      ["--kill-after", "2500ms"],
    );
  });

  test("it is stopped after its longest run", async () => {
    await withAgent(
      "sleep 30",
      async (can) => {
        const { done } = begin(["delegate", "long", "--requires", can, "--attempts", "1", "--wait", "-o", "json"]);
        expect(JSON.parse((await done).out).error.code).toBe("program.timeout");
      },
      ["--timeout", "200ms"],
    );
  });

  test("it finishes what it runs when it is told to stop, and exits with 0", async () => {
    let id = "";
    let agent: ReturnType<typeof begin> | undefined;
    await withAgent("echo '::progress 1' >&2; sleep 0.5; echo done", async (can, running) => {
      agent = running;
      ({ id } = await json("delegate", "last", "--requires", can));
      await untilPasses(async () => expect((await json("get", "task", id)).progress).toEqual({ percent: 1 }));
    });
    expect((await agent?.done)?.code).toBe(0);
    expect(await json("get", "task", id)).toMatchObject({ status: "completed", result: "done" });
  });
});

describe("agents", () => {
  test("are found by name, described, paused, resumed, drained and deleted", async () => {
    await withAgent("cat", async () => {
      const name = `agent-${made}`;
      expect((await json("get", "agent", name)).name).toBe(name);
      expect((await waggle("describe", "agent", name)).out).toMatch(/Slots: +0 of 1 in use/);
      expect((await waggle("pause", name)).out).toContain("paused");
      expect((await waggle("resume", "agent", name)).out).toContain("ready");
      expect((await waggle("drain", name)).out).toContain("draining");
      expect((await waggle("delete", "agent", name, "--force")).out).toContain("stopped");
    });
  });

  test("that have stopped are listed only when asked for", async () => {
    await withAgent("cat", async () => {});
    const name = `agent-${made}`;
    const named = async (...more: string[]) =>
      (await json("get", "agents", "-n", "1000", ...more)).items.map((agent: { name: string }) => agent.name);
    expect(await named("--all")).toContain(name);
    expect(await named("--status", "stopped")).toContain(name);
    expect(await named()).not.toContain(name);
  });

  test("that a limit keeps from a task: explain tells of it, and of when there is room", async () => {
    await withAgent("cat", async (can) => {
      const client = createClient({ url: server.url, key: server.adminKey });
      const task = {
        type: "x",
        requires: [{ capability: can }],
        rate: { key: `rate-${can}`, limit: 1, perSeconds: 3600 },
      };
      await client.tasks.create(task);
      const { id } = await client.tasks.create(task);
      client.close();
      await untilPasses(async () =>
        expect((await waggle("explain", id)).out).toMatch(/in use, 1 in 3600 s, 1 waiting, room .*in /),
      );
    });
  });

  test("that are deleted end, and say why", async () => {
    await withAgent("cat", async (_can, agent) => {
      await waggle("delete", "agent", `agent-${made}`, "--force");
      expect(await agent.done).toMatchObject({
        code: 4,
        err: expect.stringMatching(/ended this agent.* was ended: /s),
      });
    });
  });
});

test("an agent says what it waits for when there is no server yet", async () => {
  const port = await freePort();
  const own = { dataDir: join(dir, "late"), port, version: "0.1.0" };
  const before = await startLocal(own);
  await before.stop();
  const agent = begin([
    ...["agent", "run", "--name", "early", "--url", before.url, "--key", before.adminKey],
    ...["--", "cat"],
  ]);
  await untilPasses(() => expect(agent.err()).toContain("trying again"));
  const late = await startLocal(own);
  await untilPasses(() => expect(agent.err()).toContain("is ready"));
  agent.interrupt();
  expect((await agent.done).code).toBe(0);
  await late.stop();
});

describe("looking around", () => {
  test("events are listed from the newest, and from a sequence number", async () => {
    const { items } = await json("get", "events", "-n", "3");
    expect(items).toHaveLength(3);
    const next = await json("get", "events", "--after", String(items[0].sequence), "-n", "2");
    expect(next.items).toEqual(items.slice(1));
    const created = await json("get", "events", "--type", "task.created", "-n", "2");
    expect(created.items.map((event: { type: string }) => event.type)).toEqual(["task.created", "task.created"]);
  });

  test.each([
    ["events", 900, ["get", "events", "-n", "200"]],
    ["logs", 900, ["logs", "-n", "200"]],
    ["few events", 999, ["get", "events", "-n", "200"]],
    ["no events", 1000, ["get", "events"]],
  ])("%s are listed where those up to %i are past their retention", async (_, gone, argv) => {
    const log = createServer((request, response) => {
      const { searchParams } = new URL(request.url ?? "", "http://log");
      const [after, limit] = [Number(searchParams.get("after") ?? 0), Number(searchParams.get("limit") ?? 50)];
      const [first, end] = [Math.max(after, gone) + 1, 1000];
      const isGone = after > 0 && after < gone;
      const items = Array.from({ length: Math.min(limit, Math.max(0, end - first + 1)) }, (_, i) => ({
        sequence: first + i,
        type: "task.created",
        at: "2026-01-01T00:00:00.000Z",
        data: {},
      }));
      const body = isGone
        ? { code: "event.gone", firstSequence: gone + 1 }
        : { items, nextAfter: items.at(-1)?.sequence ?? after };
      response.writeHead(isGone ? 410 : 200, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
    await once(log.listen(0, "127.0.0.1"), "listening");
    const url = `http://127.0.0.1:${(log.address() as AddressInfo).port}`;
    const { code, out } = await waggle(...argv, "--url", url, "-o", "json");
    log.closeAllConnections();
    log.close();
    const items =
      argv[0] === "get"
        ? JSON.parse(out).items
        : out
            .trim()
            .split("\n")
            .map((line) => JSON.parse(line));
    expect(code).toBe(0);
    expect(items.map(({ sequence }: { sequence: number }) => sequence)).toEqual(
      Array.from({ length: 1000 - gone }, (_, i) => gone + 1 + i),
    );
  });

  test("logs follow one task to its end", async () => {
    const { id } = await json("delegate", "logged", "--requires", "nobody");
    const following = begin(["logs", "-f", id]);
    await untilPasses(() => expect(following.out()).toContain("task.queued"));
    await waggle("cancel", id);
    const { code, out } = await following.done;
    expect(code).toBe(0);
    expect(out.trimEnd().split("\n").at(-1)).toContain("task.cancelled");
  });

  test("logs of everything go on until interrupted", async () => {
    const following = begin(["logs", "-f", "--json", "-n", "1"]);
    await untilPasses(() => expect(following.out()).not.toBe(""));
    const { id } = await json("delegate", "anything", "--requires", "nobody");
    await untilPasses(() => expect(following.out()).toContain(id));
    following.interrupt();
    expect((await following.done).code).toBe(0);
  });

  test("logs of a task that has ended are over, whatever type is asked for; tried again it is followed again", async () => {
    const { id } = await json("delegate", "again", "--requires", "nobody");
    await waggle("cancel", id);
    await untilPasses(async () => expect((await waggle("logs", id)).out).toContain("task.cancelled"));
    expect(await waggle("logs", "-f", id, "--type", "task.progress")).toMatchObject({ code: 0, out: "" });
    await waggle("retry", id);
    await untilPasses(async () => expect((await waggle("logs", id)).out).toContain("task.retried"));
    const following = begin(["logs", "-f", "-o", "json", id]);
    await waggle("cancel", id);
    const lines = (await following.done).out.trimEnd().split("\n");
    expect(lines.filter((line) => JSON.parse(line).type === "task.cancelled")).toHaveLength(2);
  });

  test.each([
    ["get", "events", "--watch"],
    ["logs", "--follow"],
  ])("%s %s %s prints a document of YAML an event", async (...argv) => {
    const following = begin([...argv.filter(Boolean), "-n", "1", "-o", "yaml"]);
    await untilPasses(() => expect(following.out()).toMatch(/^---\n/));
    const { id } = await json("delegate", "anything", "--requires", "nobody");
    await untilPasses(() => expect(following.out()).toContain(id));
    following.interrupt();
    const documents = (await following.done).out
      .split("---\n")
      .slice(1)
      .map((text) => parseYaml(text));
    expect(documents.map(({ sequence }) => sequence)).toEqual(documents.map((_, i) => documents[0].sequence + i));
  });

  test("status is shown again every second while it is watched", async () => {
    const watching = begin(["status", "--watch", "-o", "json"]);
    await untilPasses(() => expect(watching.out().trimEnd().split("\n").length).toBeGreaterThan(1));
    watching.interrupt();
    const { code, out } = await watching.done;
    expect(code).toBe(0);
    for (const line of out.trimEnd().split("\n")) expect(JSON.parse(line).tasks.byStatus.queued).toBeGreaterThan(0);
  });

  test("status tells of fleet and queue", async () => {
    expect((await waggle("status")).out).toMatch(/Tasks: +.*queued/);
    expect(await json("status")).toMatchObject({ version: "0.1.0", agents: { total: expect.any(Number) } });
  });

  test("version tells of both sides, and of a server that is not there", async () => {
    expect((await waggle("version")).out).toContain(`server 0.1.0 at ${server.url}`);
    const alone = await waggle("version", "--url", "http://127.0.0.1:9");
    expect(alone).toMatchObject({ code: 0, out: expect.stringContaining("not reached") });
  });

  test("doctor finds what is wrong and says what to do", async () => {
    const { checks } = await json("doctor");
    const state = Object.fromEntries(checks.map((check: { name: string; state: string }) => [check.name, check.state]));
    expect(state).toMatchObject({
      node: "ok",
      "data folder": "ok",
      server: "ok",
      versions: "ok",
      clock: "ok",
      key: "ok",
    });
    expect(await waggle("doctor", "--data", "x")).toMatchObject({ code: 2 });
    const wrongKey = await waggle("doctor", "--key", `wgk_${"x".repeat(27)}`);
    expect(wrongKey).toMatchObject({ code: 1, out: expect.stringContaining("✗ key") });
    const gone = await waggle("doctor", "--url", "http://127.0.0.1:9");
    expect(gone).toMatchObject({ code: 5, out: expect.stringContaining("waggle dev") });
  });
});

test("doctor tells what it found when a later look fails", async () => {
  const half = createServer((request, response) => {
    const there = request.url === "/health" || request.url === "/v1/status";
    const health = { status: "healthy", version: "0.1.0", uptimeSeconds: 1 };
    const body = there ? health : { code: "server.error", title: "no" };
    response.writeHead(there ? 200 : 500, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  await once(half.listen(0, "127.0.0.1"), "listening");
  const url = `http://127.0.0.1:${(half.address() as AddressInfo).port}`;
  const { code, out } = await waggle("doctor", "--json", "--url", url);
  half.closeAllConnections();
  half.close();
  const checks: { name: string; state: string }[] = JSON.parse(out).checks;
  expect(code).toBe(1);
  expect(checks.filter(({ state }) => state === "problem").map(({ name }) => name)).toEqual(["agents", "tasks"]);
  expect(checks).toContainEqual(expect.objectContaining({ name: "server", state: "ok" }));
});

describe("doctor --deep", () => {
  test("reads every row of a running server, and says that all agree", async () => {
    const { code, out } = await waggle("doctor", "--deep");
    expect([code, out]).toEqual([0, expect.stringContaining("Every row agrees with the others.")]);
    expect(await json("doctor", "--deep")).toMatchObject({
      found: 0,
      findings: [],
      tenants: ["default"],
      complete: true,
    });
    const reader = await json("key", "create", "--role", "reader");
    expect(await waggle("doctor", "--deep", "--key", reader.key)).toMatchObject({ code: 4 });
    expect(await waggle("doctor", "--deep", "--data", join(dir, "data"))).toMatchObject({ code: 4 });
  });

  test("reads the folder of a server that is stopped, and exits 1 with what is wrong and what to do", async () => {
    const dataDir = mkdtempSync(join(tmpdir(), "waggle-deep-"));
    const stopped = await startLocal({ dataDir, version: "0.1.0", port: 0 });
    const stray = { pk: "default#S#k", sk: "agent", kind: "sticky", agentId: "agt_none" };
    await stopped.engine.ports.store.write({ put: stray });
    await stopped.stop();
    const { code, out } = await waggle("doctor", "--deep", "--data", dataDir);
    expect(out).toMatch(/sticky\.dangling +k +is served by agt_none, which is no agent +default#S#k agent/);
    expect(out).toMatch(/→ nothing to do: the next task of the key takes another agent\n\n1 thing is wrong/);
    expect(code).toBe(1);
    const { out: text } = await waggle("doctor", "--deep", "--data", dataDir, "--json");
    expect(JSON.parse(text)).toMatchObject({
      found: 1,
      findings: [{ code: "sticky.dangling", row: "default#S#k agent" }],
    });
    expect(await waggle("doctor", "--deep", "--data", join(dataDir, "none"))).toMatchObject({ code: 3 });
    rmSync(dataDir, { recursive: true });
  });
});

describe("administering", () => {
  test("limits are set, listed and removed", async () => {
    expect(await json("limit", "set", "openai", "--concurrency", "10", "--rate", "100/1m")).toMatchObject({
      key: "openai",
      concurrency: 10,
      rate: { limit: 100, perSeconds: 60 },
    });
    expect((await waggle("get", "limits")).out).toMatch(/openai +10 +100 per 1m/);
    expect((await waggle("limit", "set", "openai")).code).toBe(2);
    expect((await waggle("limit", "unset", "openai")).code).toBe(0);
    expect(await json("get", "limits")).toEqual({ items: [] });
    const unknown = await waggle("limit", "unset", "openai");
    expect(unknown).toMatchObject({ code: 3, err: expect.stringContaining("waggle get limits") });
  });

  test("a key is printed alone on standard output, works, and is void once revoked", async () => {
    const { out } = await waggle("key", "create", "--role", "client", "--name", "ci");
    const key = out.trim();
    expect((await waggle("get", "tasks", "--key", key)).code).toBe(0);
    const { items } = await json("get", "keys");
    const { id } = items.find((entry: { name?: string }) => entry.name === "ci");
    expect((await waggle("key", "revoke", id)).code).toBe(0);
    expect((await waggle("get", "tasks", "--key", key)).code).toBe(4);
  });

  test("keys and limits are listed, and keys found, beyond the first page", async () => {
    const { id, key } = await json("key", "create", "--role", "admin", "--tenant", "many");
    const client = createClient({ url: server.url, key });
    const count = Array.from({ length: 201 }, (_, n) => n);
    await Promise.all(count.map((n) => client.keys.create({ role: "reader", name: `reader-${n}` })));
    await Promise.all(count.map((n) => client.limits.put(`limit-${n}`, { concurrency: 1 })));
    client.close();
    expect((await json("get", "keys", "-n", "300", "--key", key)).items).toHaveLength(202);
    expect((await json("get", "limits", "-n", "300", "--key", key)).items).toHaveLength(201);
    expect(await json("get", "key", id, "--key", key)).toMatchObject({ id, role: "admin" });
  });

  test("dead letters are listed and redriven", async () => {
    await withAgent("exit 1", async (can) => {
      const { id } = JSON.parse(
        (await begin(["delegate", "dead", "--requires", can, "--attempts", "1", "--wait", "-o", "json"]).done).out,
      );
      await untilPasses(async () => expect((await waggle("get", "dead-letters")).out).toContain(id));
      expect((await waggle("redrive", id)).out).toBe("1 redriven\n");
      expect((await waggle("redrive")).code).toBe(2);
    });
  });

  test("settings are kept for their owner alone, listed without the key, and forgotten", async () => {
    delete process.env.WAGGLE_URL;
    delete process.env.WAGGLE_API_KEY;
    expect((await waggle("config", "set", "url", server.url)).code).toBe(0);
    expect((await begin(["config", "set", "key"], { stdin: `${server.adminKey}\n` }).done).code).toBe(0);
    expect(statSync(join(dir, "config.json")).mode & 0o777).toBe(0o600);
    expect((await waggle("get", "tasks")).code).toBe(0);
    const { out } = await waggle("config", "list");
    expect(out).toContain(server.url);
    expect(out).not.toContain(server.adminKey);
    expect((await waggle("config", "get", "url")).out).toBe(`${server.url}\n`);
    expect((await waggle("config", "set", "output", "xml")).code).toBe(2);
    expect((await waggle("config", "set", "output", "json")).code).toBe(0);
    expect(JSON.parse((await waggle("get", "limits")).out)).toHaveProperty("items");
    for (const name of ["url", "key", "output"]) expect((await waggle("config", "unset", name)).code).toBe(0);
    expect((await waggle("config", "get", "url")).code).toBe(3);
  });
});

describe("completion", () => {
  const program = buildProgram(processIo(), parse, "0.1.0", () => {});
  const of = (...words: string[]) => candidates(program, words);

  test("offers commands, nouns, options and their values", async () => {
    expect(await of("de")).toEqual(["dev", "delegate", "describe", "delete"]);
    expect(await of("get", "")).toEqual(["agents", "tasks", "events", "dead-letters", "limits", "keys"]);
    expect(await of("get", "tasks", "--o")).toEqual(["--output"]);
    expect(await of("get", "tasks", "-o", "")).toEqual(["table", "wide", "json", "yaml"]);
    expect(await of("get", "tasks", "--status", "c")).toEqual(["completed", "cancelled"]);
    expect(await of("key", "")).toEqual(["create", "revoke"]);
  });

  test("offers the names of agents and the ids of tasks", async () => {
    await withAgent("cat", async () => expect(await of("drain", `agent-${made}`)).toContain(`agent-${made}`));
    const { id } = await json("delegate", "x", "--requires", "nobody");
    expect(await of("cancel", "tsk_")).toContain(id);
    expect(await of("drain", `agent-${made}`)).toEqual([]);
  });

  test("offers nothing, and fails at nothing, without a server", async () => {
    process.env.WAGGLE_URL = "http://127.0.0.1:9";
    expect(await of("cancel", "")).toEqual([]);
  });

  test.each(["bash", "zsh", "fish"])("prints a script for %s", async (shell) => {
    const { code, out } = await waggle("completion", shell);
    expect(code).toBe(0);
    expect(out).toContain("waggle __complete");
  });
});

describe("an address that is none", () => {
  const told = { code: 2, out: "", err: expect.stringContaining('"localhost:9244" is not a server address') };

  test.each([
    ["of --url", ["status", "--url", "localhost:9244"]],
    ["of an agent", ["agent", "run", "--name", "a", "--url", "localhost:9244", "--", "cat"]],
  ])("%s is a wrong command line", async (_, argv) => {
    expect(await waggle(...argv)).toMatchObject(told);
  });

  test("of WAGGLE_URL too", async () => {
    process.env.WAGGLE_URL = "localhost:9244";
    expect(await waggle("get", "tasks")).toMatchObject(told);
  });
});

test("colours stay out of a file that standard error goes to", () => {
  const stream = (isTTY: boolean) => Object.assign(new PassThrough({ encoding: "utf8" }), { isTTY });
  const [stdout, stderr] = [stream(true), stream(false)];
  const io = processIo({ env: {}, stdin: stream(true), stdout, stderr } as unknown as NodeJS.Process);
  const text = painter(io.colour)("red", "waggle:");
  io.out(text);
  io.err(text);
  expect([stdout.read(), stderr.read()]).toEqual(["\u001b[31mwaggle:\u001b[39m", "waggle:"]);
});

describe("waggle dev", () => {
  test("starts and says so where other commands have an address that is none", async () => {
    process.env.WAGGLE_URL = "localhost:9244";
    const dev = begin(["dev", "--port", "0", "--data", join(dir, "misled")]);
    await untilPasses(() => expect(dev.err()).toContain("commands run here reach no server"));
    dev.interrupt();
    expect((await dev.done).code).toBe(0);
  });

  test("serves a folder, tells the address, and stops in order", async () => {
    const data = join(dir, "dev");
    const dev = begin(["dev", "--port", "0", "--data", data, "--quiet"]);
    const url = await untilPasses(() => {
      expect(dev.out()).toMatch(/^http:\/\/127\.0\.0\.1:\d+\n$/);
      return dev.out().trim();
    });
    const key = readFileSync(join(data, "admin.key"), "utf8").trim();
    expect(statSync(join(data, "admin.key")).mode & 0o777).toBe(0o600);
    expect((await waggle("delegate", "kept", "--url", url, "--key", key)).code).toBe(0);
    const ignored = readFileSync(join(data, ".gitignore"), "utf8").split("\n");
    expect(ignored).toEqual(expect.arrayContaining(readdirSync(data).map((name) => `/${name}`)));
    expect(ignored.some((line) => line.includes("*"))).toBe(false);
    const second = await waggle("dev", "--port", "0", "--data", data);
    expect(second).toMatchObject({ code: 4, err: expect.stringContaining("another server") });
    const taken = await waggle("dev", "--port", new URL(url).port, "--data", join(dir, "other"));
    expect(taken).toMatchObject({ code: 1, err: expect.stringContaining("in use") });
    dev.interrupt();
    expect((await dev.done).code).toBe(0);
    expect((await waggle("get", "tasks", "--url", url, "--key", key)).code).toBe(5);
  });

  test("is found with its key from any folder, as long as it runs", async () => {
    delete process.env.WAGGLE_API_KEY;
    const noted = () => readdirSync(join(dir, "running"));
    const dev = begin(["dev", "--port", "0", "--data", join(dir, "elsewhere"), "--quiet"]);
    await untilPasses(() => expect(dev.out()).not.toBe(""));
    const { port } = new URL(dev.out().trim());
    for (const host of ["127.0.0.1", "localhost"])
      expect(await waggle("get", "tasks", "--url", `http://${host}:${port}`)).toMatchObject({ code: 0 });
    writeFileSync(join(dir, "running", `${2 ** 22 + 1}.json`), "of a server that was killed");
    dev.interrupt();
    await dev.done;
    expect(noted()).toEqual([`${2 ** 22 + 1}.json`]);
    const next = begin(["dev", "--port", "0", "--data", join(dir, "elsewhere"), "--quiet"]);
    await untilPasses(() => expect(next.out()).not.toBe(""));
    expect(noted()).toEqual([`${process.pid}.json`]);
    next.interrupt();
    await next.done;
  });
});
