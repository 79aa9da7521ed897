import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { expect, test } from "vitest";
import { capability, integer, json, label, rate, seconds, selector } from "./parse.ts";
import { heed, toResult } from "./run-program.ts";

test("reads durations in any unit, plain numbers as seconds", () => {
  expect(["30", "30s", "5m", "1.5h", "2d", "250ms"].map(seconds)).toEqual([30, 30, 300, 5400, 172_800, 0.25]);
  for (const wrong of ["", "soon", "5 minutes", "-1s", "1w"]) expect(() => seconds(wrong)).toThrow(/not a duration/);
});

test("reads a level behind a capability's last colon, and colons in names", () => {
  expect(capability("code:0.8")).toEqual({ name: "code", level: 0.8 });
  expect(capability("code:1")).toEqual({ name: "code", level: 1 });
  expect(capability("lang:python")).toEqual({ name: "lang:python" });
  expect(capability("lang:python:0.5")).toEqual({ name: "lang:python", level: 0.5 });
  expect(() => capability("code:1.5")).toThrow(/over 1/);
});

test("reads every kind of selector", () => {
  expect(selector("zone=eu")).toEqual({ key: "zone", op: "eq", value: "eu" });
  expect(selector("zone!=us")).toEqual({ key: "zone", op: "ne", value: "us" });
  expect(selector("memory>=16")).toEqual({ key: "memory", op: "gte", value: 16 });
  expect(selector("memory<3.5")).toEqual({ key: "memory", op: "lt", value: 3.5 });
  expect(selector("zone=eu,us")).toEqual({ key: "zone", op: "in", value: ["eu", "us"] });
  expect(selector("gpu")).toEqual({ key: "gpu", op: "exists" });
  expect(selector("!gpu")).toEqual({ key: "gpu", op: "exists", value: false });
});

test("reads labels as numbers where they are numbers", () => {
  expect(label("memory=16")).toEqual(["memory", 16]);
  expect(label("zone=eu=west")).toEqual(["zone", "eu=west"]);
  expect(() => label("=x")).toThrow(/not key=value/);
});

test("reads rates", () => {
  expect(rate("100/1m")).toEqual({ limit: 100, perSeconds: 60 });
  expect(rate("5/s")).toEqual({ limit: 5, perSeconds: 1 });
  expect(() => rate("fast")).toThrow(/not a rate/);
});

test("refuses numbers out of bounds or in words", () => {
  expect(integer("priority", 0, 9)("9")).toBe(9);
  for (const wrong of ["10", "-1", "1.5", "high", ""]) expect(() => integer("priority", 0, 9)(wrong)).toThrow(/0 to 9/);
});

test("reads JSON given, from standard input, and says what to do when it is none", async () => {
  const io = { stdin: Readable.from([Buffer.from('{"a":"ü'), Buffer.from('"}')]) };
  expect(await json("input", "-", io)).toEqual({ a: "ü" });
  expect(await json("input", "[1]", io)).toEqual([1]);
  await expect(json("input", "hello", io)).rejects.toMatchObject({
    exitCode: 2,
    advice: expect.stringContaining("quotes"),
  });
  await expect(json("input", "@/does/not/exist", io)).rejects.toMatchObject({
    exitCode: 2,
    message: expect.stringContaining("ENOENT"),
  });
});

test("takes a program's output as JSON, else as text, else as nothing", () => {
  expect(toResult('{"a":1}\n', false)).toEqual({ a: 1 });
  expect(toResult("two words\n", false)).toBe("two words");
  expect(toResult(" \n", false)).toBeUndefined();
  expect(toResult("42\n", true)).toBe("42");
});

test("takes messages out of what a program writes to stderr, and leaves the rest", () => {
  const told: unknown[][] = [];
  const context = { progress: (...args: unknown[]) => void told.push(args) };
  expect(heed("::progress 40 reading files", context)).toBe(true);
  expect(heed("::progress 150%", context)).toBe(true);
  expect(heed("::progress almost there", context)).toBe(true);
  expect(heed('::details {"page":2}', context)).toBe(true);
  expect(heed("::details not json", context)).toBe(false);
  expect(heed("progress 40", context)).toBe(false);
  expect(told).toEqual([
    [{ percent: 40, message: "reading files" }],
    [{ percent: 100 }],
    [{ message: "almost there" }],
    [undefined, { page: 2 }],
  ]);
});

test("takes a file as it takes standard input: UTF-8, with or without a byte order mark", async () => {
  const dir = mkdtempSync(join(tmpdir(), "waggle-parse-"));
  const file = join(dir, "input.json");
  async function* stdin() {
    yield readFileSync(file);
  }
  writeFileSync(file, '\ufeff{"a":1}');
  for (const text of ["-", `@${file}`]) expect(await json("input", text, { stdin: stdin() })).toEqual({ a: 1 });
  writeFileSync(file, Buffer.from([0x22, 0xff, 0x22]));
  for (const text of ["-", `@${file}`])
    await expect(json("input", text, { stdin: stdin() })).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringContaining("not UTF-8"),
    });
  rmSync(dir, { recursive: true });
});
