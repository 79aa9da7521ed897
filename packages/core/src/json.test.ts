import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WaggleError } from "./error.ts";
import { jsonLimits, readJson, readJsonApart } from "./json.ts";

const task = ["input", "metadata"] as const;
const batch = ["tasks.*.input"] as const;
const frames = ["result", "*.result"] as const;

function refusal(text: string, payloads: readonly string[] = task): { code: string; path: string | undefined } {
  try {
    readJson(text, payloads);
  } catch (error) {
    if (error instanceof WaggleError) return { code: error.code, path: error.extra.errors?.[0]?.path };
    throw error;
  }
  throw new Error(`taken: ${text}`);
}

describe("keeps a payload as it was written", () => {
  test.each([
    ["numbers beyond a double", `{"input": 12345678901234567890.10, "type":"a"}`, "12345678901234567890.10"],
    ["__proto__ keys", `{"input":{"__proto__":{"a":1}}}`, `{"__proto__":{"a":1}}`],
    ["NUL", `{"input":"a\\u0000b"}`, `"a\\u0000b"`],
    ["white space inside, not around", `{ "input" :\n [ 1 ,\t2 ] , "type":1}`, "[ 1 ,\t2 ]"],
    ["brackets and quotes in strings", `{"input":{"}":"]\\"{,\\\\"},"x":0}`, `{"}":"]\\"{,\\\\"}`],
    ["a name written with escapes", `{"inp\\u0075t":[true]}`, "[true]"],
    ["the last of two", `{"input":1,"input":{"a":2}}`, `{"a":2}`],
    ["null", `{"input":null}`, "null"],
    ["escaped pairs", `{"input":"\\ud83d\\ude00"}`, `"\\ud83d\\ude00"`],
    ["an escaped backslash before u", `{"input":"\\\\ud800"}`, `"\\\\ud800"`],
  ])("%s", (_, text, payload) => {
    expect((readJson(text, task) as { input: string }).input).toBe(payload);
  });

  test("in each entry of a list, and nowhere else", () => {
    const text = `{"tasks":[{"input":{"a":1.0}},{"type":"x","meta":{"input":2}},7,{"input":[]}],"input":{"b":1}}`;
    expect(readJson(text, batch)).toEqual({
      tasks: [{ input: '{"a":1.0}' }, { type: "x", meta: { input: 2 } }, 7, { input: "[]" }],
      input: { b: 1 },
    });
  });

  test("in one frame or a list of them", () => {
    expect(readJson(`{"op":"complete","result":1e2}`, frames)).toEqual({ op: "complete", result: "1e2" });
    expect(readJson(`[{"result":1e2},{"result":"x"},[{"result":1}]]`, frames)).toEqual([
      { result: "1e2" },
      { result: '"x"' },
      [{ result: 1 }],
    ]);
  });

  test("does not mix two lists of the same name", () => {
    expect(readJson(`{"tasks":[{"input":1},{"input":2}],"tasks":[{"type":"a"}]}`, batch)).toEqual({
      tasks: [{ type: "a" }],
    });
    expect(readJson(`{"tasks":[{"input":1}],"tasks":{"0":{"input":2}}}`, batch)).toEqual({
      tasks: { 0: { input: 2 } },
    });
  });

  test("for any JSON, with any spacing", () => {
    const name = fc.oneof(fc.constantFrom("input", "metadata", "type", ""), fc.string({ unit: "binary" }));
    const member = fc.tuple(
      name,
      fc.json({ stringUnit: "binary" }),
      fc.constantFrom("", " ", "\n\t"),
      fc.integer({ min: 0, max: 2 }),
    );
    fc.assert(
      fc.property(fc.array(member, { maxLength: 8 }), (members) => {
        const written = members.map(([key, json, space, indent]) => ({
          key,
          space,
          json: JSON.stringify(JSON.parse(json), null, indent),
        }));
        const text = `{${written.map(({ key, space, json }) => `${space}${JSON.stringify(key)}${space}:${space}${json}${space}`).join(",")}}`;
        // Refused outside payloads, and tried by itself elsewhere.
        fc.pre(
          !members.some(
            ([key, json]) =>
              key === "__proto__" || (key !== "input" && key !== "metadata" && json.includes('"__proto__"')),
          ),
        );
        const value = readJson(text, task) as Record<string, unknown>;
        const plain = JSON.parse(text) as Record<string, unknown>;
        expect(Object.keys(value)).toEqual(Object.keys(plain));
        for (const key of Object.keys(plain)) {
          const last = written.findLast((entry) => entry.key === key)?.json;
          if (key === "input" || key === "metadata") expect(value[key]).toBe(last);
          else expect(value[key]).toEqual(plain[key]);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test("refuses members named __proto__ outside payloads, however they are written", () => {
  expect(refusal('{"labels":{"__proto__":"x"}}')).toEqual({ code: "request.invalid", path: "labels.__proto__" });
  expect(refusal('{"list":[{"\\u005f_proto__":1}]}')).toEqual({ code: "request.invalid", path: "list.0.__proto__" });
});

describe("refuses with the path", () => {
  const nested = (levels: number) => `${"[".repeat(levels)}${"]".repeat(levels)}`;

  test.each([
    ["what is not JSON", `{"input":}`, ""],
    ["nothing at all", "", ""],
    ["a byte order mark", `\uFEFF{"type":"a"}`, ""],
    ["a lone surrogate", `{"a":[0,{"b":"\ud800"}]}`, "a.1.b"],
    ["a lone high surrogate, escaped", `{"type":"a","input":{"x":["ok","\\uD83D"]}}`, "input.x.1"],
    ["a lone low surrogate, escaped", `{"input":"\\udc00\\ud800"}`, "input"],
    ["a lone surrogate after an escaped backslash", `{"input":"\\\\\\ud800"}`, "input"],
    ["a lone surrogate in a name", `{"type":1,"\\ud800":1}`, "\\ud800"],
    ["a lone surrogate in a member that is overwritten", `{"input":"\\ud800","input":1}`, "input"],
  ])("%s", (_, text, path) => {
    expect(refusal(text)).toEqual({ code: "request.invalid", path });
  });

  test("more than 64 levels, wherever they are", () => {
    const { depth } = jsonLimits;
    expect(readJson(nested(depth), task)).toBeDefined();
    expect(refusal(nested(depth + 1)).code).toBe("request.invalid");
    expect(readJson(`{"input":${nested(depth - 1)}}`, task)).toEqual({ input: nested(depth - 1) });
    expect(refusal(`{"input":${nested(depth)}}`).path).toMatch(/^input\.0\.0/);
    expect(readJson(`{"tasks":[{"input":${nested(depth - 3)}}]}`, batch)).toBeDefined();
    expect(refusal(`{"tasks":[{"input":${nested(depth - 2)}}]}`, batch).path).toMatch(/^tasks\.0\.input/);
    expect(refusal(`{"x":${nested(500_000)}}`).path).toMatch(/^x\.0/);
  });

  test("one entry of a list, whatever stands around it and beside it", () => {
    const read = (text: string, most = 3) =>
      readJsonApart(text, batch, {
        member: "tasks",
        payloads: ["input"],
        most,
        refused: (problem) => problem.extra.errors?.[0]?.path,
      });
    const bad = `{"input":"\\ud800"}`;
    expect(read(`{"x":[1], "tasks" : [ {"input":{"]":"[,"}} , ${bad}, 3 ] ,"y":{}}`)).toEqual({
      x: [1],
      y: {},
      tasks: [{ input: '{"]":"[,"}' }, "input", 3],
    });
    expect(read(`{"tasks":[{"input":${nested(jsonLimits.depth)}}]}`)).toEqual({
      tasks: [expect.stringMatching(/^input/)],
    });
    for (const text of [
      `{"tasks":[${bad}],"x":"\\ud800"}`,
      `{"tasks":[${bad},1,2,3]}`,
      `{"tasks":[${bad}],"tasks":[]}`,
      `{"tasks":[${bad}],"tasks":1}`,
      `[${bad}]`,
      `{"tasks":[${bad}]`,
    ])
      expect(() => read(text)).toThrow(WaggleError);
  });

  test("every lone surrogate and no pair", () => {
    const unit = fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.constantFrom(0xd800, 0xdbff, 0xdc00, 0xdfff, 0x5c, 0x22, 0x75),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(unit, fc.boolean()), { maxLength: 12 }), (units) => {
        const plain = String.fromCharCode(...units.map(([code]) => code));
        const escaped = units
          .map(([code, raw]) =>
            raw && code !== 0x5c && code !== 0x22 && code >= 0x20 && (code < 0xd800 || code > 0xdfff)
              ? String.fromCharCode(code)
              : `\\u${code.toString(16).padStart(4, "0")}`,
          )
          .join("");
        const text = `{"input":"${escaped}"}`;
        if (plain.isWellFormed()) expect(readJson(text, task)).toEqual({ input: `"${escaped}"` });
        else expect(refusal(text)).toEqual({ code: "request.invalid", path: "input" });
      }),
      { numRuns: 1000 },
    );
  });
});
