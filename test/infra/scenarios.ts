import { createHash } from "node:crypto";
import { eventually } from "../support/eventually.ts";
import { adminKey, type Cloud } from "./cloud.ts";
import { breaks, lasts, repairs, vanishes } from "./mishaps.ts";
import { type Assigned, type Content, large, plain, rich, type Tools, toolsOf } from "./tools.ts";

/** Does all that a deployment can be asked to do; @returns routes of the API that nothing here called. */
export async function play(cloud: Cloud): Promise<readonly string[]> {
  const tools = toolsOf(cloud);
  await cloud.adopt();
  await administers(tools);
  await isWhole(tools);
  await expires(tools);
  await pulls(tools);
  await connects(tools);
  await isCalled(tools);
  await runsLate(tools);
  await takesEvents(tools);
  await vanishes(tools);
  await lasts(tools);
  await repairs(tools);
  await moves(tools);
  await breaks(tools);
  await cloud.scaling();
  return tools.missed();
}

/** What people and scripts do. */
async function administers({ call, cloud }: Tools): Promise<void> {
  for (const path of ["/health", "/openapi.json", "/docs", "/v1/status", "/metrics"]) await call("GET", path);
  const { id } = await call("POST", "/v1/keys", { role: "client" }, { headers: { "idempotency-key": "one" } });
  await call("POST", "/v1/keys", { role: "admin", tenant: "other" });
  await call("GET", "/v1/keys");
  await call("DELETE", `/v1/keys/${id}`);
  await call("PUT", "/v1/subscriptions", { types: ["task.*", "agent.*"] });
  await call("GET", "/v1/subscriptions");
  await call("PUT", "/v1/limits/db", { concurrency: 1 });
  await call("PUT", "/v1/limits/api", { rate: { limit: 1, perSeconds: 10 } });
  await call("GET", "/v1/limits/db");
  await call("GET", "/v1/limits");
  await call("PUT", "/v1/limits/gone", { concurrency: 1 });
  await call("DELETE", "/v1/limits/gone");
  await call("PUT", "/v1/quotas/default", { tasks: 1_000_000, submits: { limit: 1000, perSeconds: 1 } });
  await call("GET", "/v1/quotas/default");
  await call("POST", "/v1/agents", { name: "taken", capabilities: [] });
  const refused = { status: [409], headers: { "idempotency-key": "taken" } };
  await call("POST", "/v1/agents", { name: "taken", capabilities: [] }, refused);
  await cloud.quiet();
}

/** Agents that ask for work. */
async function pulls({ cloud, call, submit, register, lease, end, remove }: Tools): Promise<void> {
  const agent = await register("puller", { maxConcurrency: 3 });
  const first = await submit({ ...rich, input: large });
  const { results } = await call("POST", "/v1/tasks/batch", {
    tasks: [
      { ...rich, ref: "a" },
      { ...rich, dependsOn: ["ref:a"] },
      { ...plain, rate: { key: "api", limit: 1, perSeconds: 10 } },
      { ...plain, rate: { key: "api", limit: 1, perSeconds: 10 } },
    ],
  });
  await call(
    "POST",
    "/v1/tasks/batch",
    { tasks: [{ ...plain, delaySeconds: 5000 }], atomic: true },
    { headers: { "idempotency-key": "b" } },
  );
  for (let i = 0; i < 2; i++)
    await call("POST", "/v1/tasks", { ...plain, type: "once" }, { headers: { "idempotency-key": "k" } });
  await call("GET", `/v1/tasks/${results[0].task.id}/explain`);
  await cloud.quiet();
  const got = await lease(agent, 3);
  const mine = got.find((each) => each.task.id === first) as Assigned;
  await end("start", mine, agent);
  await end("heartbeat", mine, agent, { progress: { percent: 5 }, details: { page: 1 } });
  const child = await call("POST", "/v1/tasks", { ...plain, parentId: first }, { key: agent.token });
  await end("complete", mine, agent, { result: large, take: 1 });
  for (const each of await lease(agent, 2)) await end("complete", each, agent);
  await cloud.pass(11);
  for (let again = 0; again < 4; again++) {
    const some = await lease(agent, 2);
    for (const [i, each] of some.entries()) await end(i === 0 ? "release" : "complete", each, agent);
    await cloud.pass(2);
  }
  await call("GET", `/v1/tasks/${first}?waitSeconds=0`);
  await call("GET", `/v1/tasks/${first}/events`);
  for (const by of [
    "status=completed",
    "type=report",
    "tag=nightly",
    `agentId=${agent.id}`,
    `parentId=${first}`,
    "limit=2",
  ])
    await call("GET", `/v1/tasks?${by}`);
  await call("GET", "/v1/events");
  await call("GET", "/v1/events", undefined, { headers: { accept: "text/event-stream" } });
  const own = { requires: [{ capability: "more" }], retry: { maxAttempts: 1 } };
  await call("PATCH", `/v1/agents/${agent.id}`, {
    capabilities: [{ name: "work" }, { name: "more" }],
    maxConcurrency: 20,
  });
  await submit({ ...own, ...rich, requires: own.requires, concurrency: [] });
  const [released] = (await lease(agent, 20)).slice(-1);
  await end("release", released as Assigned, agent);
  for (const each of await lease(agent, 20))
    await end("fail", each, agent, { error: { code: "broken", message: "it broke", retryable: false } });
  await call("GET", "/v1/dead-letters");
  await call("POST", "/v1/dead-letters/redrive", { all: true });
  const again = await submit({ retry: { maxAttempts: 1 } });
  for (const each of await lease(agent, 3)) await end("fail", each, agent, { error: { code: "broken", message: "" } });
  for (const verb of ["cancel", "retry", "cancel"]) await call("POST", `/v1/tasks/${again}/${verb}`, {});
  await call("POST", `/v1/tasks/${child.task.id}/cancel`, {});
  await cloud.quiet();
  await call("GET", "/v1/agents");
  await call("GET", `/v1/agents/${agent.id}`);
  await call("POST", `/v1/agents/${agent.id}/heartbeat`, { holding: [] }, { key: agent.token });
  for (const verb of ["pause", "resume", "drain", "resume"]) await call("POST", `/v1/agents/${agent.id}/${verb}`, {});
  await call("GET", `/v1/agents/${agent.id}/connect`, undefined, { key: agent.token, status: [426] });
  const anew = await register("puller", { onConflict: "replace" });
  await remove(anew);
}

/** Agents with a connection: work is pushed by whichever function finds it. */
async function connects({ cloud, call, submit, register, remove, open, say, given, close }: Tools): Promise<void> {
  const agent = await register("connected", { maxConcurrency: 2 });
  await submit(rich);
  await open("c1", agent);
  await submit({ ...rich, input: large });
  await submit(rich);
  for (let turns = 0; turns < 3; turns++) {
    for (const { task, fence } of given("c1").slice(-2))
      await say(
        "c1",
        { op: "start", taskId: task.id, fence },
        { op: "progress", taskId: task.id, fence, details: { page: 1 } },
        { op: "complete", taskId: task.id, fence, result: large },
      );
    await say("c1", { op: "heartbeat" });
    await cloud.pass(2);
  }
  await submit(rich);
  const last = given("c1").at(-1) as Assigned;
  await say("c1", { op: "release", taskId: last.task.id, fence: last.fence });
  const failing = given("c1").at(-1) as Assigned;
  await say("c1", {
    op: "fail",
    taskId: failing.task.id,
    fence: failing.fence,
    error: { code: "x", retryable: false },
  });
  await call("PATCH", `/v1/agents/${agent.id}`, { maxConcurrency: 3 });
  await say("c1", { op: "pause" }, { op: "resume" }, { op: "drain" }, { op: "resume" });
  await open("c2", agent);
  await close("c1");
  cloud.gone.add("c2");
  await submit();
  await close("c2");
  cloud.gone.clear();
  await open("c3", agent);
  const held = given("c3").at(-1) as Assigned;
  // Removed in good order while it works: who ends its last task stops it.
  await call("DELETE", `/v1/agents/${agent.id}?mode=graceful&graceSeconds=60`);
  await say("c3", { op: "complete", taskId: held.task.id, fence: held.fence });
  const second = await register("leaves");
  await open("c4", second);
  await say("c4", { op: "stop" });
  await remove(await register("idle"));
}

/** Agents that are called. */
async function isCalled({ cloud, call, submit, register, remove }: Tools): Promise<void> {
  const hook = await register("hook", {
    delivery: { type: "webhook", url: "https://agents.example.com/hook" },
    maxConcurrency: 2,
  });
  await submit({ ...rich, input: large });
  await submit(rich);
  await submit(rich);
  await cloud.pass(10);
  cloud.world.set("https://agents.example.com/hook", { status: 200, body: JSON.stringify({ result: large }) });
  await submit(rich);
  cloud.world.set("https://agents.example.com/hook", { status: 500 });
  await submit({ ...rich, retry: { maxAttempts: 1 } });
  await cloud.pass(5);
  cloud.world.set("https://agents.example.com/hook", "down");
  await submit(rich);
  await cloud.pass(90, 3);
  cloud.world.set("https://agents.example.com/hook", { status: 202 });
  await cloud.pass(60, 5);
  const accepted = await submit();
  await call("POST", `/v1/tasks/${accepted}/cancel`, {});
  await cloud.pass(20, 5);
  await remove(hook);
  const arn = "arn:aws:lambda:us-east-1:123456789012:function:agent";
  const fn = await register("function", { delivery: { type: "lambda", functionArn: arn } });
  cloud.world.set(arn, { status: 200, body: JSON.stringify({ result: large }) });
  await submit(rich);
  await cloud.pass(5);
  await remove(fn);
  const queueUrl = "https://sqs.us-east-1.amazonaws.com/123456789012/agent";
  const queued = await register("queue", { delivery: { type: "queue", queueUrl } });
  const last = await submit(rich);
  await cloud.pass(5);
  await call("POST", `/v1/tasks/${last}/cancel`, {});
  await cloud.pass(20, 5);
  await remove(queued);
}

/** What time does. */
async function runsLate({ cloud, call, submit, register, lease, end, open, given }: Tools): Promise<void> {
  await submit({ delaySeconds: 30 });
  await submit({ delaySeconds: 3000 });
  await submit({ ...rich, timeouts: { queueSeconds: 5 } });
  const slow = await register("slow", { maxConcurrency: 5 });
  await submit({ ...rich, timeouts: { runSeconds: 3 }, retry: { maxAttempts: 1 } });
  const other = await submit(rich);
  for (const each of await lease(slow, 5)) await end("start", each, slow);
  await cloud.pass(20);
  await open("t1", await register("pushed", { maxConcurrency: 5 }));
  await submit({ ...rich, timeouts: { runSeconds: 3 }, dependsOn: [other] });
  given("t1");
  await cloud.pass(60, 2);
  await call("POST", `/v1/tasks/${other}/cancel`, {});
  await cloud.pass(20, 2);
  const going = await register("going");
  await submit();
  await lease(going);
  await call("DELETE", `/v1/agents/${going.id}?mode=graceful&graceSeconds=10`);
  await cloud.pass(15);
  for (let minutes = 0; minutes < 60; minutes += 5) {
    await cloud.minute();
    await cloud.pass(300, 100);
  }
}

/** Every row is read, and agrees with the others: those of tasks that wait for one another and for a limit, too. */
async function isWhole({ cloud, call, submit, register, lease, end }: Tools): Promise<void> {
  const more = { concurrency: [{ key: "whole", limit: 1 }], requires: [{ capability: "whole" }] };
  const agent = await register("whole", { capabilities: [{ name: "whole" }], maxConcurrency: 2 });
  const first = await submit({ ...rich, ...more, stickyKey: "whole" });
  for (let n = 0; n < 2; n++) await submit({ ...rich, ...more, dependsOn: n === 0 ? [] : [first] });
  await submit({ requires: [{ capability: "nobody's" }] });
  const given = await lease(agent);
  await cloud.quiet();
  const { found, findings } = await call("GET", "/v1/audit");
  if (found > 0) throw new Error(`the audit found ${JSON.stringify(findings)}`);
  for (const each of given) await end("complete", each, agent);
}

/** Tasks that rules make of events. */
async function takesEvents({ cloud, call, register, remove, submit }: Tools): Promise<void> {
  const { id } = await call("POST", "/v1/keys", { role: "client" });
  const agent = await register("asked");
  const on = await submit({ delaySeconds: 5 });
  const task = { ...rich, input: large, agentId: agent.id, dependsOn: [on] };
  const body = { tenant: "default", key: id, id: "evt-1", task };
  const others = [rich, plain].map((task, n) => ({ body: { ...body, id: `evt-${n + 2}`, task } }));
  await cloud.engine.ports.queues.intake.send([{ body }, { body }, ...others]);
  await cloud.pass(10);
  await remove(agent);
}

/** Tasks past their retention, as the table's TTL deletes them. */
async function expires({ cloud, call, submit, register, lease, end, remove }: Tools): Promise<void> {
  const agent = await register("retired");
  const id = await submit({ ...plain, input: large, agentId: agent.id });
  await call("POST", "/v1/tasks", { ...plain, dependsOn: [id] });
  for (const each of await lease(agent, 5)) await end("complete", each, agent, { result: large });
  await call("PUT", "/v1/retention", { taskSeconds: 60 });
  await call("GET", "/v1/retention");
  // One step after the other, each by a message: through every list of tasks that have ended.
  await cloud.pass(280, 5);
  await eventually(
    "the task is deleted",
    async () => {
      await cloud.engine.checkpoint();
      await cloud.pass(5, 5);
      const answer = await cloud.request("GET", `/v1/tasks/${id}`, undefined, adminKey);
      return answer.status === 404;
    },
    { seconds: 60 },
  );
  await call("PUT", "/v1/retention", { taskSeconds: 0 });
  await cloud.pass(280, 5);
  await remove(agent);
}

/** A tenant that is moved to another server. */
async function moves({ cloud, call }: Tools): Promise<void> {
  const { key } = await call("POST", "/v1/keys", { role: "admin", tenant: "moved" });
  const records: Content[] = [];
  let version = 1;
  for (let cursor: string | undefined; ; ) {
    const page = await call(
      "GET",
      `/v1/export?limit=100${cursor === undefined ? "" : `&cursor=${encodeURIComponent(cursor)}`}`,
    );
    records.push(...page.items);
    version = page.version ?? version;
    cursor = page.nextCursor;
    if (cursor === undefined) break;
  }
  // Elsewhere nobody bears their tokens yet; here the tenant they come from does.
  const other = records.map((record, i) => {
    const hash = createHash("sha256").update(String(i)).digest("base64url");
    return { ...record, ...("tokenHash" in record && { tokenHash: hash }), ...("hash" in record && { hash }) };
  });
  for (let i = 0; i < other.length; i += 5)
    await call("POST", "/v1/import", { version, records: other.slice(i, i + 5) }, { key });
  await cloud.quiet();
}
