import { expect, test } from "vitest";
import { submitter } from "./submit.ts";
import type { Task } from "./types.ts";

/** A server that notes what it is sent and makes a task of each entry. */
function server(refuse?: (type: string) => boolean) {
  const requests: { many: boolean; types: string[] }[] = [];
  const toTask = (type: string) => ({ id: `tsk_${type}`, type }) as Task;
  const submit = submitter({
    async one(text) {
      const { type } = JSON.parse(text) as { type: string };
      requests.push({ many: false, types: [type] });
      return toTask(type);
    },
    async many(text) {
      const types = (JSON.parse(text) as { tasks: { type: string }[] }).tasks.map((task) => task.type);
      requests.push({ many: true, types });
      return types.map((type) =>
        refuse?.(type) ? { problem: { status: 400, code: "request.invalid", detail: type } } : { task: toTask(type) },
      );
    },
    afterTurn: process.nextTick,
  });
  return { requests, submit: (type: string) => submit(JSON.stringify({ type })) };
}

test("sends a lone task by itself", async () => {
  const { submit, requests } = server();
  expect(await submit("a")).toMatchObject({ id: "tsk_a" });
  expect(await submit("b")).toMatchObject({ id: "tsk_b" });
  expect(requests).toEqual([
    { many: false, types: ["a"] },
    { many: false, types: ["b"] },
  ]);
});

test("sends tasks of one turn as one request and answers each its own", async () => {
  const { submit, requests } = server();
  const tasks = await Promise.all(["a", "b", "c"].map((type) => submit(type)));
  expect(tasks.map((task) => task.id)).toEqual(["tsk_a", "tsk_b", "tsk_c"]);
  expect(requests).toEqual([{ many: true, types: ["a", "b", "c"] }]);
});

test("refuses one task of a turn without spoiling the others", async () => {
  const { submit } = server((type) => type === "bad");
  const [good, bad] = await Promise.allSettled([submit("good"), submit("bad")]);
  expect(good).toMatchObject({ status: "fulfilled", value: { id: "tsk_good" } });
  expect(bad).toMatchObject({ status: "rejected", reason: { code: "request.invalid", status: 400 } });
});

test("keeps to a hundred tasks a request and to what a body may hold", async () => {
  const { submit, requests } = server();
  await Promise.all(Array.from({ length: 250 }, (_, i) => submit(`n${i}`)));
  expect(requests.map(({ types }) => types.length)).toEqual([100, 100, 50]);
  requests.length = 0;
  await Promise.all(["a", "b", "c"].map((letter) => submit(letter.repeat(200_000))));
  expect(requests.map(({ types }) => types.length)).toEqual([1, 1, 1]);
});
