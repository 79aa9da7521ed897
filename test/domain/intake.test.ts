import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Key, systemScope, Task, type Value } from "@waggle/core";
import { intakeHandler } from "@waggle/edge";
import { startLocal } from "@waggle/local";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openSystem, type System } from "../support/system.ts";

let system: System;
let key: string;
beforeEach(async () => {
  system = await openSystem();
  key = (await Key.create(system.admin, { role: "client" })).info.id;
});
afterEach(() => system.close());

const errors: unknown[] = [];
const take = async (body: Value, id = "msg-1") => {
  errors.length = 0;
  const onError = (_: string, error: unknown) => void errors.push(error);
  return intakeHandler(system.ports, onError)([{ id, body, receives: 1, receipt: id }]);
};
const tasks = async () => (await Task.list(system.admin, { limit: 50 })).items;

describe("an event that a rule makes a task of", () => {
  test.each([
    ["as the rule wrote it", { task: { type: "report", input: { at: 1 } } }],
    ["that its detail has", { detail: { task: { type: "report", input: { at: 1 } } } }],
    ["that its detail is", { detail: { type: "report", input: { at: 1 } } }],
  ])("submits the task %s, once however often it comes", async (_, part) => {
    const body = { tenant: "acme", key, id: "evt-1", ...part };
    expect(await take(body, "msg-1")).toEqual({ failed: [] });
    expect(await take(body, "msg-2")).toEqual({ failed: [] });
    expect(await tasks()).toMatchObject([{ type: "report", input: '{"at":1}' }]);
  });

  test("makes a task by each of two rules that make different ones of it, and one by two that make the same", async () => {
    const body = (type: string) => ({ tenant: "acme", key, id: "evt-1", task: { type } });
    for (const type of ["report", "invoice", "report", "invoice"])
      expect(await take(body(type))).toEqual({ failed: [] });
    expect((await tasks()).map(({ type }) => type).sort()).toEqual(["invoice", "report"]);
  });

  test("is taken by a server of one process, too", async () => {
    const dataDir = mkdtempSync(join(tmpdir(), "waggle-intake-"));
    const server = await startLocal({ dataDir, version: "0" });
    const { ports } = server.engine;
    const { info } = await Key.create(systemScope(ports, "acme", "test"), { role: "client" });
    const body = { tenant: "acme", key: info.id, id: "evt-1", task: { type: "report" } };
    await ports.queues.intake.send([{ body }]);
    const list = () => Task.list(systemScope(ports, "acme", "test"), { limit: 1 });
    expect(await eventually("the task is there", async () => (await list()).items[0])).toMatchObject({
      type: "report",
    });
    await server.stop();
    rmSync(dataDir, { recursive: true });
  });

  test("is refused, with the reason in the log, when the rule does not say for whom", async () => {
    const detail = { tenant: "acme", key, task: { type: "report" } };
    expect(await take({ id: "evt-1", source: "shop", "detail-type": "order", detail })).toEqual({ failed: ["msg-1"] });
    expect(errors).toMatchObject([{ code: "request.invalid", message: expect.stringContaining("input transformer") }]);
    expect(await tasks()).toEqual([]);
  });

  test("is refused for a key the tenant has not, has no longer, or that may not submit", async () => {
    const reader = (await Key.create(system.admin, { role: "reader" })).info.id;
    const foreign = (await Key.create(system.tenant("other"), { role: "client" })).info.id;
    await Key.revoke(system.admin, key);
    for (const id of [key, foreign, reader, "key_none"])
      expect(await take({ tenant: "acme", key: id, id: "evt-1", task: { type: "x" } })).toEqual({ failed: ["msg-1"] });
    expect(await tasks()).toEqual([]);
  });

  test("is refused when it makes no task, naming what is wrong", async () => {
    expect(await take({ tenant: "acme", key, task: { type: "x", priority: 99 } })).toEqual({ failed: ["msg-1"] });
    expect(errors).toMatchObject([{ code: "request.invalid", message: expect.stringContaining("priority") }]);
  });

  test("ends a chain of events and tasks that cause one another", async () => {
    const body = (hops: number) => ({
      tenant: "acme",
      key,
      id: `evt-${hops}`,
      task: { type: "x" },
      detail: { metadata: { hops } },
    });
    expect(await take(body(7))).toEqual({ failed: [] });
    expect(await take(body(8))).toEqual({ failed: ["msg-1"] });
    const event = { metadata: { subject: "tsk_1", sequence: 17, hops: 8 } };
    expect(await take({ tenant: "acme", key, id: "evt-9", task: { type: "x", input: event } })).toEqual({
      failed: ["msg-1"],
    });
    const foreign = { metadata: { hops: 30 } };
    expect(await take({ tenant: "acme", key, id: "evt-10", task: { type: "x", input: foreign } })).toEqual({
      failed: [],
    });
  });

  test("is refused for a tenant or a key that cannot be one: what a name holds is no way to another row", async () => {
    await system.agent("a#K");
    expect(await take({ tenant: "acme#N#a", key: "name", task: { type: "x" } })).toEqual({ failed: ["msg-1"] });
    expect(errors).toMatchObject([{ code: "request.invalid" }]);
    for (const tenant of ["acme#N#a", "", "ACME"])
      expect(await take({ tenant, key, task: { type: "x" } })).toEqual({ failed: ["msg-1"] });
  });
});
