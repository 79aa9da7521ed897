import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { findLockFiles, findUnlocked } from "../src/analyse/dependencies.ts";
import { fingerprint, matchDuplicates } from "../src/analyse/duplicates.ts";
import { busFactor, historyWindow, mergeHistory, readHistory } from "../src/analyse/history.ts";
import { countLanguages, linesByPath, mergeLanguages } from "../src/analyse/languages.ts";
import { findLarge } from "../src/analyse/large.ts";
import { overview, publicRemote } from "../src/analyse/overview.ts";
import { mergeOwnership, readOwnership } from "../src/analyse/ownership.ts";
import { mergeTests, readTests, stem } from "../src/analyse/tests.ts";
import { findTodoFiles, findTodos } from "../src/analyse/todos.ts";
import { isTestPath, listFiles, parseAttributes, slice } from "../src/files.ts";
import { countLines, languageNamed, languageOf, languageOfShebang } from "../src/language.ts";
import { ada, bob, lines, makeRepository, type Repository } from "./repository.ts";

const open: Repository[] = [];
const repository = (...args: Parameters<typeof makeRepository>) => {
  const made = makeRepository(...args);
  open.push(made);
  return made;
};
afterEach(() => {
  for (const made of open.splice(0)) made.remove();
});
const at = async (made: Repository) => ({ repo: made.path, commit: await made.head() });
const parts = (of: number) => Array.from({ length: of }, (_, index) => ({ index, of }));

describe("counting lines", () => {
  const count = (name: string, text: string) => countLines(text, languageNamed(name));

  it("tells code, comments and blank lines apart, block comments included", () => {
    expect(count("TypeScript", "// a\nconst a = 1; // b\n\n/* c\n d */\nb();\n")).toEqual({
      lines: 6,
      code: 2,
      comment: 3,
      blank: 1,
    });
  });
  it("takes comment marks in strings for text", () => {
    expect(count("TypeScript", 'glob("src/**/*.ts");\nnext();\nurl("http://x");\n')).toEqual({
      lines: 3,
      code: 3,
      comment: 0,
      blank: 0,
    });
  });
  it("follows a template over its lines", () => {
    expect(count("JavaScript", "const a = `\n// not a comment\n\n/* nor this`;\nb();\n")).toEqual({
      lines: 5,
      code: 5,
      comment: 0,
      blank: 0,
    });
  });
  it("counts Python's strings as comments only where they document", () => {
    expect(count("Python", '"""Doc\nmore"""\nx = """text\nx"""\n# c\n')).toMatchObject({ lines: 5, comment: 3 });
  });
  it("does not take an apostrophe for the beginning of a string in Rust or in words", () => {
    expect(count("Rust", "fn f<'a>(x: &'a str) {} // it's\n/* it's */\n")).toEqual({
      lines: 2,
      code: 1,
      comment: 1,
      blank: 0,
    });
  });
  it("counts the last line with or without an end, and CRLF as one", () => {
    expect(count("Go", "a()\r\nb()").lines).toBe(2);
    expect(count("Go", "").lines).toBe(0);
  });
  it("knows languages by name, extension and first line", () => {
    expect(languageOf("a/Dockerfile.dev")?.name).toBe("Dockerfile");
    expect(languageOf("x.TSX")?.name).toBe("TypeScript");
    expect(languageOf("Makefile")?.name).toBe("Makefile");
    expect(languageOfShebang("#!/usr/bin/env -S python3.11 -u")?.name).toBe("Python");
    expect(languageOfShebang("#!/bin/bash")?.name).toBe("Shell");
    expect(languageOfShebang("text")).toBeUndefined();
  });
});

describe("listing files", () => {
  it("sets apart what nobody here wrote", async () => {
    const made = repository();
    made.commit({
      "src/a.ts": "a\n",
      "node_modules/x/i.js": "x\n",
      "package-lock.json": "{}",
      "dist/a.js": "a\n",
      "logo.png": "x",
      "lib/jquery.min.js": "x",
    });
    const { repo, commit } = await at(made);
    const { files } = await listFiles(repo, commit);
    expect(Object.fromEntries(files.map((file) => [file.path, file.kind]))).toEqual({
      "src/a.ts": "source",
      "node_modules/x/i.js": "vendored",
      "package-lock.json": "lock",
      "dist/a.js": "generated",
      "logo.png": "binary",
      "lib/jquery.min.js": "generated",
    });
  });
  it("honours .gitattributes, the nearest and the last word first", async () => {
    const made = repository();
    made.commit({
      ".gitattributes": "gen/** linguist-generated=true\n*.data binary\ndist/* -linguist-generated\n",
      "gen/.gitattributes": "kept.ts -linguist-generated\n",
      "gen/a.ts": "a\n",
      "gen/kept.ts": "a\n",
      "x.data": "a\n",
      "dist/own.js": "a\n",
    });
    const { repo, commit } = await at(made);
    const kinds = Object.fromEntries((await listFiles(repo, commit)).files.map((file) => [file.path, file.kind]));
    expect(kinds).toMatchObject({
      "gen/a.ts": "generated",
      "gen/kept.ts": "source",
      "x.data": "binary",
      "dist/own.js": "source",
    });
  });
  it("survives attribute patterns that are no patterns", () => {
    expect(parseAttributes("[a linguist-vendored\n\\( linguist-generated\n# x\n", "")).toHaveLength(2);
  });
  it("cuts a list into slices that together are the list, each about as heavy", () => {
    const list = Array.from({ length: 100 }, (_, index) => ({ index, size: index * 100 }));
    const all = parts(7).map((part) => slice(list, part));
    expect(all.flat()).toEqual(list);
    for (const one of all) expect(one.reduce((sum, entry) => sum + entry.size, 0)).toBeLessThan(120_000);
  });
  it("knows test files by the habits of several languages", () => {
    for (const path of [
      "a.test.ts",
      "a/b.spec.jsx",
      "pkg/x_test.go",
      "test_x.py",
      "src/test/java/FooTest.java",
      "spec/a_spec.rb",
      "__tests__/a.js",
      "FooTests.cs",
    ])
      expect(isTestPath(path), path).toBe(true);
    for (const path of ["latest.ts", "contest.py", "src/attestation.go", "Protest.java.txt"])
      expect(isTestPath(path), path).toBe(false);
  });
});

describe("languages", () => {
  it("gives the same sums however the files are sliced", async () => {
    const made = repository();
    made.commit({
      "a.ts": lines(30, (i) => `const a${i} = ${i};`),
      "b.py": "x = 1\n# c\n",
      "c.go": "package c\n",
      "README.md": "# Hi\n",
      "yarn.lock": "x\n",
    });
    const where = await at(made);
    const whole = mergeLanguages([await countLanguages(where)]);
    const sliced = mergeLanguages(await Promise.all(parts(3).map((slice) => countLanguages({ ...where, slice }))));
    expect(sliced).toEqual(whole);
    expect(whole.languages[0]).toMatchObject({ name: "TypeScript", files: 1, code: 30 });
    expect(whole.other.lock).toEqual({ files: 1, bytes: 2 });
  });
  it("leaves out binary content behind an innocent name, and files that say they are generated", async () => {
    const made = repository();
    made.commit({
      "a.ts": Buffer.from([0, 1, 2]),
      "b.go": "// Code generated by x. DO NOT EDIT.\npackage b\n",
      run: "#!/bin/sh\necho\n",
    });
    const { languages, other } = mergeLanguages([await countLanguages(await at(made))]);
    expect(languages.map((row) => row.name)).toEqual(["Shell"]);
    expect(other).toMatchObject({ binary: { files: 1 }, generated: { files: 1 } });
  });
  it("puts each file's lines back in its place", async () => {
    const made = repository();
    made.commit({ "a.ts": "1\n2\n3\n", "b/c.ts": "1\n", "d.lock": "", "z.py": "1\n2\n" });
    const where = await at(made);
    const { files } = await listFiles(where.repo, where.commit);
    const results = await Promise.all(parts(2).map((slice) => countLanguages({ ...where, slice })));
    expect(Object.fromEntries(linesByPath(files, results))).toMatchObject({ "a.ts": 3, "b/c.ts": 1, "z.py": 2 });
  });
});

describe("history", () => {
  const read = async (made: Repository, each: number) => {
    const where = await at(made);
    const window = await historyWindow(where.repo, where.commit);
    const shards = [];
    for (let skip = 0; skip < window.commits; skip += each)
      shards.push(
        await readHistory({
          ...where,
          ...(window.since === undefined ? {} : { since: window.since }),
          skip,
          count: each,
        }),
      );
    const { files } = await listFiles(where.repo, where.commit);
    const results = [await countLanguages(where)];
    return mergeHistory({ ...where, window, parts: shards, lines: linesByPath(files, results) });
  };

  it("counts changes and people by file, the same in one piece as in many", async () => {
    const made = repository();
    for (let i = 0; i < 7; i += 1)
      made.commit(
        { "src/hot.ts": lines(20 + i, (n) => `line(${n * i});`), [`src/cold${i}.ts`]: "x;\n" },
        { author: i % 3 === 0 ? bob : ada },
      );
    const whole = await read(made, 100);
    expect(await read(made, 2)).toEqual(whole);
    expect(whole.hotspots[0]).toMatchObject({ path: "src/hot.ts", commits: 7, authors: 2 });
    expect(whole).toMatchObject({ commits: 7, authorCount: 2, busyFiles: 1, soloFiles: 0 });
    expect(whole.authors.find((author) => author.name === "Ada")?.commits).toBe(4);
  });
  it("follows a file through its renames, across shards", async () => {
    const made = repository();
    const text = lines(40, (n) => `const value${n} = ${n};`);
    made.commit({ "old.ts": text });
    made.commit({ "old.ts": `${text}more();\n` });
    made.commit({ "old.ts": undefined, "deep/new.ts": `${text}more();\n` });
    made.commit({ "deep/new.ts": `${text}again();\n` });
    const { hotspots } = await read(made, 1);
    expect(hotspots).toHaveLength(1);
    expect(hotspots[0]).toMatchObject({ path: "deep/new.ts", commits: 4 });
  });
  it("keeps file names with spaces, quotes, tabs and newlines whole", async () => {
    const made = repository();
    const name = 'odd "name"\twith\nall <b> ünï.ts';
    made.commit({ [name]: "a;\nb;\n" });
    expect((await read(made, 10)).hotspots[0]?.path).toBe(name);
  });
  it("looks at the newest year when that was busy, at everything when it was quiet", async () => {
    const made = repository();
    made.commit({ a: "1" }, { at: "2020-01-01T00:00:00Z" });
    made.commit({ a: "2" }, { at: "2023-01-01T00:00:00Z" });
    const where = await at(made);
    expect(await historyWindow(where.repo, where.commit)).toMatchObject({ commits: 2, label: "all of history" });
    for (let i = 0; i < 50; i += 1) made.commit({ a: `x${i}` });
    const later = await at(made);
    expect(await historyWindow(later.repo, later.commit)).toMatchObject({
      commits: 51,
      label: "the year before the newest commit",
    });
  });
  it("leaves robots out of the counts of people", async () => {
    const made = repository();
    made.commit({ "a.ts": lines(5, (n) => `a(${n});`) });
    made.commit(
      { "a.ts": lines(50, (n) => `b(${n});`) },
      { author: { name: "dependabot[bot]", email: "b@example.org" } },
    );
    const history = await read(made, 10);
    expect(history.authorCount).toBe(1);
    expect(history.hotspots[0]?.authors).toBe(1);
  });
  it("calls bus factor how few wrote more than half", () => {
    expect(busFactor([])).toBe(0);
    expect(busFactor([10])).toBe(1);
    expect(busFactor([5, 5])).toBe(2);
    expect(busFactor([51, 25, 24])).toBe(1);
    expect(busFactor([30, 30, 20, 20])).toBe(2);
  });
});

describe("ownership", () => {
  it("tells who wrote the lines that stand, and when", async () => {
    const made = repository();
    made.commit({ "src/a.ts": lines(10, (n) => `old(${n});`) }, { author: ada, at: "2021-05-01T00:00:00Z" });
    made.commit(
      { "src/a.ts": lines(10, (n) => (n < 4 ? `new(${n});` : `old(${n});`)), "b.go": "package b\n" },
      { author: bob, at: "2023-05-01T00:00:00Z" },
    );
    const where = await at(made);
    const merged = mergeOwnership(await Promise.all(parts(2).map((slice) => readOwnership({ ...where, slice }))), 2);
    expect(merged.lines).toBe(11);
    expect(merged.owners).toMatchObject([
      { name: "Ada", lines: 6 },
      { name: "Bob", lines: 5 },
    ]);
    expect(merged.years).toEqual([
      { year: 2021, lines: 6 },
      { year: 2023, lines: 5 },
    ]);
    expect(merged.folders.find((folder) => folder.path === "src")).toMatchObject({
      lines: 10,
      busFactor: 1,
      owner: "Ada",
      authors: 2,
    });
  });
  it("does not give lines to whoever only changed their spaces", async () => {
    const made = repository();
    made.commit({ "a.ts": "if (x) {\ny();\n}\n" }, { author: ada });
    made.commit({ "a.ts": "if (x) {\n    y();\n}\n" }, { author: bob });
    const { owners } = mergeOwnership([await readOwnership(await at(made))], 1);
    expect(owners.map((owner) => owner.name)).toEqual(["Ada"]);
  });
});

describe("marks", () => {
  it("finds marks in comments only, with their line's age and author", async () => {
    const made = repository();
    made.commit(
      { "a.ts": 'const TODO = 1;\nx("TODO: no");\n// TODO(ada): first\n' },
      { author: ada, at: "2020-02-03T00:00:00Z" },
    );
    made.commit(
      { "a.ts": 'const TODO = 1;\nx("TODO: no");\n// TODO(ada): first\nb(); /* FIXME second */\n', "c.md": "TODO\n" },
      { author: bob, at: "2022-02-03T00:00:00Z" },
    );
    const where = await at(made);
    const { files } = await listFiles(where.repo, where.commit);
    const paths = await findTodoFiles(where.repo, where.commit, files);
    expect(paths).toEqual(["a.ts"]);
    const { todos } = await findTodos({ ...where, paths });
    expect(todos).toEqual([
      { path: "a.ts", line: 3, mark: "TODO", text: "first", at: "2020-02-03T00:00:00.000Z", author: "Ada" },
      { path: "a.ts", line: 4, mark: "FIXME", text: "second", at: "2022-02-03T00:00:00.000Z", author: "Bob" },
    ]);
  });
  it("takes a path that looks like an option or a pattern for a path", async () => {
    const made = repository();
    made.commit({ "--help.ts": "// TODO one\n", ":(glob)**.ts": "// TODO two\n", "a*.ts": "// TODO three\n" });
    const where = await at(made);
    const { files } = await listFiles(where.repo, where.commit);
    const { todos } = await findTodos({ ...where, paths: await findTodoFiles(where.repo, where.commit, files) });
    expect(todos.map((todo) => [todo.text, todo.author])).toEqual([
      ["one", "Ada"],
      ["two", "Ada"],
      ["three", "Ada"],
    ]);
  });
});

describe("duplicates", () => {
  const body = (from: number, count: number) =>
    lines(count, (n) => `  const step${from + n} = compute(${from + n}, "value ${from + n}");`);
  const find = async (made: Repository, of = 2) => {
    const where = await at(made);
    const shards = await Promise.all(parts(of).map((slice) => fingerprint({ ...where, slice })));
    return matchDuplicates({ ...where, parts: shards });
  };

  it("finds a passage of 8 lines wherever it stands, in its full length", async () => {
    const made = repository();
    made.commit({
      "a.ts": `start();\n${body(0, 8)}end();\n`,
      "deep/b.ts": `other();\nmore();\n${body(0, 8)}different();\n`,
      "c.ts": body(500, 30),
    });
    const { clones, source } = await find(made);
    expect(clones).toHaveLength(1);
    expect(clones[0]).toMatchObject({
      lines: 8,
      places: [
        { path: "a.ts", from: 2, to: 9 },
        { path: "deep/b.ts", from: 3, to: 10 },
      ],
    });
    expect(source.duplicated).toBe(16);
  });
  it("keeps silent about 7 lines", async () => {
    const made = repository();
    made.commit({ "a.ts": `a();\n${body(0, 7)}b();\n`, "b.ts": `c();\n${body(0, 7)}d();\n` });
    expect((await find(made)).clones).toEqual([]);
  });
  it("looks through blank lines, comments and indentation", async () => {
    const made = repository();
    const text = body(0, 12);
    made.commit({
      "a.ts": text,
      "b.ts": text
        .split("\n")
        .map((row) => `\t${row}\n\n// why`)
        .join("\n"),
    });
    expect((await find(made)).clones[0]).toMatchObject({ lines: 12 });
  });
  it("does not take repeated documentation for repeated code", async () => {
    const made = repository();
    const docs = lines(15, (n) => `    word ${n} of a long story`);
    made.commit({
      "a.py": `def a():\n    """\n${docs}    """\n    return 1\n`,
      "b.py": `def b():\n    """\n${docs}    """\n    return 2\n`,
    });
    expect((await find(made)).clones).toEqual([]);
  });
  it("counts three copies as one finding with three places", async () => {
    const made = repository();
    made.commit({
      "a.ts": `a1();\n${body(0, 20)}a2();\n`,
      "b.ts": `b1();\n${body(0, 20)}b2();\n`,
      "c.ts": `c1();\n${body(0, 20)}c2();\n`,
    });
    const { clones } = await find(made, 3);
    expect(clones).toHaveLength(1);
    expect(clones[0]?.places.map((place) => place.path)).toEqual(["a.ts", "b.ts", "c.ts"]);
  });
  it("finds a copy in the same file without pairing lines with themselves", async () => {
    const made = repository();
    made.commit({ "a.ts": `${body(0, 10)}between();\n${body(0, 10)}` });
    expect((await find(made)).clones[0]).toMatchObject({
      lines: 10,
      places: [
        { from: 1, to: 10 },
        { from: 12, to: 21 },
      ],
    });
  });
  it("does not care how the files are sliced", async () => {
    const made = repository();
    made.commit({ "a.ts": body(0, 40), "b.ts": body(20, 40), "c.ts": body(10, 15), "d.test.ts": body(0, 12) });
    expect(await find(made, 4)).toEqual(await find(made, 1));
  });
});

describe("tests", () => {
  it("finds what no test names or imports", async () => {
    const made = repository();
    const code = lines(10, (n) => `export const f${n} = () => ${n};`);
    made.commit({
      "src/named.ts": code,
      "src/named.test.ts": 'it("a", () => {});\nit.skip("b", () => {});\ntest.each([1])("c", () => {});\n',
      "src/imported.ts": code,
      "test/all.ts": 'import { f1 } from "../src/imported.ts";\nit("x", () => f1());\n',
      "src/alone.ts": lines(20, (n) => `export const g${n} = () => ${n};`),
      "src/types.ts": "export type A = { a: 1 };\nexport type B = { b: 1 };\nexport type C = {\n  a: 1;\n  b: 2;\n};\n",
    });
    const where = await at(made);
    const tests = mergeTests(await Promise.all(parts(2).map((slice) => readTests({ ...where, slice }))));
    expect(tests.untested).toEqual([{ path: "src/alone.ts", code: 20 }]);
    expect(tests).toMatchObject({ cases: 3, skipped: 1, testFiles: 2, reached: 0.5 });
  });
  it("knows the habits of Go, Python, Rust and Java", async () => {
    const made = repository();
    const body = lines(8, (n) => `x = ${n}`);
    made.commit({
      "pkg/a.go": body,
      "pkg/b_test.go": "func TestA(t *testing.T) {}\nfunc BenchmarkA(b *testing.B) {}\n",
      "app/user.py": body,
      "tests/test_user.py": "def test_one():\n    pass\nasync def test_two():\n    pass\n",
      "src/lib.rs": `${body}#[cfg(test)]\nmod tests {\n#[test]\nfn a() {}\n#[tokio::test]\nasync fn b() {}\n}\n`,
      "src/main/Foo.java": body,
      "src/test/java/FooTest.java": "@Test\nvoid a() {}\n@ParameterizedTest\nvoid b() {}\n",
      "lonely/c.go": body,
    });
    const tests = mergeTests([await readTests(await at(made))]);
    expect(Object.fromEntries(tests.rows.map((row) => [row.language, row.cases]))).toEqual({
      Go: 2,
      Python: 2,
      Rust: 2,
      Java: 2,
    });
    expect(tests.untested.map((file) => file.path)).toEqual(["lonely/c.go"]);
  });
  it("takes test marks off names", () => {
    expect(
      [
        "a/User.test.tsx",
        "user_test.go",
        "test_user.py",
        "UserTest.java",
        "user_spec.rb",
        "TestUser.java",
        "user.d.ts",
      ].map(stem),
    ).toEqual(new Array(7).fill("user"));
    expect(stem("contest.py")).toBe("contest");
  });
});

describe("weight", () => {
  it("finds what only history still has, and binary content by its bytes", async () => {
    const made = repository();
    const noise = (size: number) => randomBytes(size);
    made.commit({ "big.bin": noise(300_000), "hidden.pxm": noise(600_000), "a.ts": "a\n" });
    made.commit({ "big.bin": undefined });
    const large = await findLarge(await at(made));
    expect(large.ghosts).toMatchObject([{ path: "big.bin", versions: 1, bytes: 300_000 }]);
    expect(large.largest[0]).toMatchObject({ path: "hidden.pxm", kind: "binary" });
    expect(large.oversized).toBe(0);
    expect(large.packBytes).toBeGreaterThan(300_000);
  });
});

describe("overview", () => {
  it("tells age, people, licence, CI and the rest", async () => {
    const made = repository();
    made.git(["remote", "add", "origin", "https://user:secret@github.com/acme/sample.git"]);
    made.commit(
      {
        LICENSE: "Apache License\nVersion 2.0, January 2004\n",
        "README.md": "# Sample\n\nSome words here.\n",
        ".github/workflows/ci.yml": "on: push\n",
        "package.json": '{"name":"sample"}',
      },
      { at: "2022-01-01T00:00:00Z" },
    );
    made.commit({ "a.ts": "a" }, { author: bob, at: "2024-01-01T00:00:00Z" });
    made.git(["tag", "v1.0.0"]);
    const told = await overview({ ...(await at(made)), name: "sample" });
    expect(told).toMatchObject({
      remote: "https://github.com/acme/sample",
      branch: "main",
      commits: 2,
      contributors: 2,
      activeContributors: 1,
      firstAt: "2022-01-01T00:00:00.000Z",
      lastAt: "2024-01-01T00:00:00.000Z",
      tags: 1,
      latestTag: "v1.0.0",
      license: "Apache-2.0",
      ci: ["GitHub Actions"],
      packages: [{ path: ".", name: "sample", kind: "npm" }],
    });
    expect(told.weeks.at(-1)).toBe(1);
    expect(JSON.stringify(told)).not.toContain("secret");
  });
  it.each([
    [".ci/run", "scripts of its own"],
    [".gitlab-ci.yaml", "GitLab CI"],
    [".forgejo/workflows/test.yml", "Forgejo Actions"],
    ["src/ci/run.ts", undefined],
  ])("takes %s for CI: %s", async (path, label) => {
    const made = repository();
    made.commit({ [path]: "x\n" });
    const { ci } = await overview({ ...(await at(made)), name: "sample" });
    expect(ci).toEqual(label === undefined ? [] : [label]);
  });
  it("never shows a password in a remote's address", () => {
    expect(publicRemote("https://token:x@host/a/b.git")).toBe("https://host/a/b");
    expect(publicRemote("git@host:a/b.git")).toBe("git@host:a/b");
  });
});

describe("lock files", () => {
  it("are found nearest the top first, and manifests without one are told", async () => {
    const made = repository();
    made.commit({
      "b/yarn.lock": "",
      "package-lock.json": "{}",
      "go.mod": "module x\n",
      "go.sum": "",
      "node_modules/z/yarn.lock": "",
      "b/package.json": "{}",
      "package.json": "{}",
    });
    const where = await at(made);
    const { files } = await listFiles(where.repo, where.commit);
    expect(findLockFiles(files).map((file) => file.path)).toEqual(["go.sum", "package-lock.json", "b/yarn.lock"]);
    expect(findUnlocked(files)).toEqual([]);
    made.commit({ "package-lock.json": undefined, "go.sum": undefined });
    const later = await at(made);
    expect(findUnlocked((await listFiles(later.repo, later.commit)).files)).toEqual(["package.json"]);
  });
});
