import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createReader, createWriter, fileLimits, type Segment } from "./file.ts";
import type { Record } from "./schema.ts";

const id = (n: number) => `tsk_${String(n).padStart(22, "0")}`;
const task = (n: number, more: object = {}) =>
  ({
    kind: "task",
    id: id(n),
    type: "t",
    status: "queued",
    priority: 5,
    attempt: 0,
    fence: 0,
    slots: 1,
    depth: 0,
    strategy: "best_fit",
    createdAt: 1,
    queuedAt: 1,
    history: [[1, "queued", 0, "", ""]],
    input: '{"ü": "\\u0000 🐝",\n "n": 1e400}',
    ...more,
  }) as Record;
const limit: Record = { kind: "limit", key: "openai", concurrency: 3 };
const header = { tenant: "default", at: "2030-01-01T00:00:00.000Z", server: "1.2.3" };

/** Pages of tasks behind a limit. */
function file(pages = 3, each = 2): string {
  const writer = createWriter();
  let text = writer.begin(header);
  for (let page = 0; page < pages; page++) {
    const records = Array.from({ length: each }, (_, i) => task(page * each + i));
    text += writer.page(page === 0 ? [limit, ...records] : records, page + 1 < pages ? `cursor-${page}` : undefined);
  }
  return text + writer.end();
}

async function* chunked(bytes: Uint8Array, size = 50): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
async function read(text: string | Uint8Array, reader = createReader()): Promise<Segment[]> {
  const segments: Segment[] = [];
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  for await (const segment of reader.segments(chunked(bytes))) segments.push(segment);
  return segments;
}
const failure = (text: string | Uint8Array): Promise<string> =>
  read(text).then(
    (segments) => (segments.at(-1)?.ended ? "whole" : "cut short"),
    (error) => error.message,
  );

describe("a file", () => {
  test("gives back what was written, with the line of each record", async () => {
    const segments = await read(file());
    expect(segments.map(({ cursor, ended }) => [cursor, ended])).toEqual([
      ["cursor-0", false],
      ["cursor-1", false],
      [undefined, true],
    ]);
    const records = segments.flatMap((segment) => segment.records);
    expect(records.map(({ record }) => record)).toEqual([limit, ...[0, 1, 2, 3, 4, 5].map((n) => task(n))]);
    expect(records.map(({ line }) => line)).toEqual([2, 3, 4, 6, 7, 9, 10]);
    expect(segments.at(-1)?.tally).toMatchObject({
      lines: 11,
      bytes: new TextEncoder().encode(file()).length,
      counts: { limit: 1, agent: 0, key: 0, blob: 0, task: 6 },
    });
  });

  test("with any one bit flipped is found out, wherever it is", async () => {
    const bytes = new TextEncoder().encode(file(2, 1));
    for (let at = 0; at < bytes.length; at++) {
      const flipped = bytes.slice();
      flipped[at] = (bytes[at] as number) ^ (1 << (at % 8));
      const said = await failure(flipped);
      expect(said, `byte ${at}`).not.toBe("whole");
    }
  });

  test("with a line left out, doubled or moved is found out", async () => {
    const lines = file().split(/(?<=\n)/);
    for (let at = 0; at < lines.length; at++) {
      const without = lines.filter((_, i) => i !== at);
      const twice = lines.flatMap((line, i) => (i === at ? [line, line] : [line]));
      for (const changed of [without, twice])
        expect(await failure(changed.join("")), `line ${at + 1}`).not.toBe("whole");
    }
    const [first, second, third, ...rest] = lines;
    expect(await failure([first, third, second, ...rest].join(""))).toMatch(/^line 5: .*SHA-256/);
  });

  test("cut short anywhere goes on after its last checkpoint and becomes the same file", async () => {
    const whole = new TextEncoder().encode(file());
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 200, max: whole.length - 1 }), async (length) => {
        const reader = createReader();
        const last = (await read(whole.subarray(0, length), reader)).at(-1);
        const writer = last ? createWriter(reader) : createWriter();
        let text = last ? "" : writer.begin(header);
        const done = last?.cursor === undefined ? 0 : Number(last.cursor.slice(-1)) + 1;
        for (let page = done; page < 3; page++) {
          const records = [task(page * 2), task(page * 2 + 1)];
          text += writer.page(page === 0 ? [limit, ...records] : records, page < 2 ? `cursor-${page}` : undefined);
        }
        text += writer.end();
        const kept = new TextDecoder().decode(whole.subarray(0, last?.tally.bytes ?? 0));
        expect(kept + text).toBe(file());
        expect(last?.ended ?? false).toBe(false);
      }),
      { numRuns: 60 },
    );
  });

  test("is read without holding more than the records since a checkpoint", async () => {
    const writer = createWriter();
    let written = 0;
    async function* lines() {
      yield new TextEncoder().encode(writer.begin(header));
      for (let page = 0; page < 200; page++) {
        const records = Array.from({ length: 10 }, (_, i) => task(page * 10 + i));
        written += records.length;
        yield new TextEncoder().encode(writer.page(records, `c${page}`));
      }
      yield new TextEncoder().encode(writer.end());
    }
    let given = 0;
    let most = 0;
    for await (const segment of createReader().segments(lines())) {
      most = Math.max(most, written - given);
      given += segment.records.length;
    }
    expect([given, most]).toEqual([2000, 10]);
  });
});

describe("refusing a file", () => {
  const line = (n: number, change: (line: Record & { [name: string]: unknown }) => object) =>
    file()
      .split("\n")
      .map((text, i) => (i + 1 === n ? JSON.stringify(change(JSON.parse(text))) : text))
      .join("\n");

  test.each([
    [
      "a field of the wrong kind",
      line(3, (record) => ({ ...record, priority: "high" })),
      /^line 3: priority: .*number/,
    ],
    ["a field out of range", line(6, (record) => ({ ...record, priority: 10 })), /^line 6: priority: .*9/],
    ["a field nobody knows", line(4, (record) => ({ ...record, colour: "red" })), /^line 4: colour: /],
    ["a field that is missing", line(4, ({ type: _, ...record }) => record), /^line 4: type: .*string/],
    ["a payload that is no JSON", line(4, (record) => ({ ...record, input: "{}, 1" })), /^line 4: input: .*JSON/],
    ["a held task without its agent", line(4, (record) => ({ ...record, status: "running" })), /^line 4: agentId: /],
    ["a kind nobody knows", line(4, (record) => ({ ...record, kind: "bee" })), /^line 4: expected kind .*"bee"/],
    ["a line that is no JSON", file().replace('{"kind":"limit"', "limit:"), /^line 2: expected a JSON object/],
    [
      "counts that are wrong",
      line(5, (it) => ({ ...it, counts: { ...(it.counts as object), task: 3 } })),
      /^line 5: 2 .*task/,
    ],
    ["something after the end", `${file()}{}\n`, /^line 12: nothing may follow/],
    ["another file", "a,b,c\n1,2,3\n", /^line 1: expected a JSON object/],
    ["other JSON", '{"hello":"bees"}\n', /^line 1: expected the header/],
    ["nothing at all", "", /^line 1: expected the header/],
  ])("%s: it names the line and what was expected", async (_, text, said) => {
    expect(await failure(text)).toMatch(said);
  });

  test("a newer version: by that alone, in one line", async () => {
    const newer = line(1, (it) => ({ ...it, version: 2, sealed: true }));
    expect(await failure(newer)).toBe(
      "the file is of format version 2, and this waggle reads up to 1: use a newer one",
    );
  });

  test("gives out nothing of a segment that is not right, and nothing after it", async () => {
    const given: string[] = [];
    const text = file().replace(id(3), id(9));
    const segments = createReader().segments(chunked(new TextEncoder().encode(text)));
    await expect(
      (async () => {
        for await (const segment of segments) given.push(segment.cursor as string);
      })(),
    ).rejects.toThrow("line 8: the bytes before it");
    expect(given).toEqual(["cursor-0"]);
  });

  test("records without end and no checkpoint among them", async () => {
    const writer = createWriter();
    const records = Array.from({ length: fileLimits.records + 1 }, (_, n) => task(n));
    expect(await failure(writer.begin(header) + writer.page(records, "c"))).toMatch(
      /^line 1002: expected a checkpoint/,
    );
  });
});
