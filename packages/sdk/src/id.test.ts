import { Task } from "@waggle/core";
import { expect, test } from "vitest";
import { newTaskId } from "./id.ts";

test("an id made here is one the server takes, and sorts by its time", () => {
  const at = Date.now();
  const ids = [at - 86_400_000, at - 1, at, at + 1].map(newTaskId);
  for (const id of ids) expect(Task.Create.safeParse({ type: "a", id }).success).toBe(true);
  expect(ids.toSorted()).toEqual(ids);
});

test("no two of many made in one millisecond are the same", () => {
  const at = Date.now();
  expect(new Set(Array.from({ length: 10_000 }, () => newTaskId(at))).size).toBe(10_000);
});
