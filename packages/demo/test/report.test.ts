import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { handlers } from "../src/fleet/handlers.ts";
import { runInline } from "../src/fleet/inline.ts";
import { toMade } from "../src/fleet/made.ts";
import { plan } from "../src/plan.ts";
import { squarify } from "../src/report/charts.ts";
import { linker, toHtml } from "../src/report/html.ts";
import { cell, span, toMarkdown } from "../src/report/markdown.ts";
import { escapeHtml } from "../src/report/markup.ts";
import { assemble, type Report } from "../src/report/report.ts";
import { repositoryOf } from "../src/repository.ts";
import { bob, lines, makeRepository, type Repository } from "./repository.ts";

const open: Repository[] = [];
const folders: string[] = [];
const repository = (...args: Parameters<typeof makeRepository>) => {
  const made = makeRepository(...args);
  open.push(made);
  return made;
};
const folder = () => {
  const path = mkdtempSync(join(tmpdir(), "waggle-out-"));
  folders.push(path);
  return path;
};
afterEach(() => {
  for (const made of open.splice(0)) made.remove();
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true });
});
const report = async (path: string) => {
  const run = await runInline(await repositoryOf(path), folder());
  return { ...run, html: readFileSync(run.report.html, "utf8"), markdown: readFileSync(run.report.markdown, "utf8") };
};

describe("the report", () => {
  it("says of one small file of each language neither that most of it is one, nor that tests name it", async () => {
    const made = repository();
    made.commit({ "a.ts": "let a = 1;\n", "b.py": "b = 1\n", "c.js": "let c = 1;\n" });
    const { html, markdown } = await report(made.path);
    expect(html).not.toContain("every source file is named");
    expect(markdown).not.toContain("mostly");
    expect(markdown).toContain("**1 commit**");
  });

  it("is written for a small repository, with every section that has something to say", async () => {
    const made = repository();
    made.commit({
      "src/a.ts": `// TODO: later\n${lines(20, (n) => `export const a${n} = ${n};`)}`,
      "src/a.test.ts": 'import { a1 } from "./a.ts";\nit("x", () => a1);\n',
      "README.md": "# x\n",
      "package-lock.json": '{"packages":{"":{"dependencies":{"z":"1"}},"node_modules/z":{"version":"1.0.0"}}}',
    });
    made.commit({ "src/a.ts": lines(30, (n) => `export const a${n} = ${n};`) }, { author: bob });
    const { html, markdown } = await report(made.path);
    for (const id of [
      "languages",
      "activity",
      "hotspots",
      "ownership",
      "tests",
      "dependencies",
      "duplicates",
      "todos",
      "large-files",
      "making",
    ])
      expect(html, id).toContain(`<section id="${id}">`);
    for (const title of [
      "## Languages",
      "## Hotspots",
      "## Who knows the code",
      "## Tests",
      "## Dependencies",
      "## How this was made",
    ])
      expect(markdown, title).toContain(title);
    expect(html).toContain("Bob");
  });
  it("needs nothing from outside: no script, no address to load from", async () => {
    const made = repository();
    made.commit({ "a.ts": "a();\n" });
    const { html } = await report(made.path);
    expect(html).not.toMatch(/<script|<link|<img|@import|url\((?!#)|\ssrc=/i);
  });
  it("shows hostile names as text, in HTML and in Markdown", async () => {
    const made = repository();
    const evil = "src/<img src=x onerror=alert(1)>|\"'`\n\u202e&.ts";
    const author = { name: "<script>alert(2)</script>", email: "e@example.org" };
    for (let i = 0; i < 4; i += 1)
      made.commit(
        {
          [evil]: `// TODO: </td><script>alert(3)</script> | pipe\n${lines(30 + i, (n) => `export const x${n} = () => ${n + i};`)}`,
        },
        { author, message: "<b>" },
      );
    const { html, markdown } = await report(made.path);
    expect(html).not.toMatch(/<script|<img/i);
    expect(html).toContain("&lt;img src=x onerror=alert(1)&gt;");
    expect(html).toContain("\\u202e");
    expect(html).toContain("&lt;script&gt;alert(3)");
    // Outside code spans nothing opens a tag; a row of a table stays one line with its own number of cells.
    expect(markdown.replace(/(`+)[\s\S]*?[^`]\1(?!`)/g, "")).not.toMatch(/(?<!\\)<(script|img)/);
    const row = markdown.split("\n").find((line) => line.includes("onerror") && line.startsWith("|"))!;
    expect(row.match(/(?<!\\)\|/g)).toHaveLength(6);
  });
  it("is written for a repository without any commit", async () => {
    const { html, markdown, report: told } = await report(repository().path);
    expect(told.grade).toBe("–");
    expect(html).toContain("no commit yet");
    expect(markdown).toContain("no commit yet");
  });
  it("is written for one empty commit, and for a bare repository", async () => {
    const made = repository();
    made.commit({});
    expect((await report(made.path)).html).toContain("1 commit");
    made.commit({ "a.ts": "a();\n" });
    const bare = join(made.root, "bare.git");
    made.git(["clone", "-q", "--bare", made.path, bare]);
    expect((await report(bare)).html).toContain("TypeScript");
  });
  it("says so when the clone is shallow, and leaves submodules out", async () => {
    const inner = repository();
    inner.commit({ "x.ts": "x();\n" });
    const made = repository();
    made.commit({ "a.ts": "a();\n" });
    made.git(["-c", "protocol.file.allow=always", "submodule", "add", "-q", inner.path, "inner"]);
    made.commit({ "b.ts": "b();\n" });
    const shallow = join(made.root, "shallow");
    made.git(["clone", "-q", "--depth", "1", `file://${made.path}`, shallow]);
    const { html } = await report(shallow);
    expect(html).toContain("shallow clone");
    expect(html).toContain("1 submodules were left out");
  });
  it("makes do with a partial clone, and says what it lacks", async () => {
    const made = repository();
    made.git(["config", "uploadpack.allowFilter", "true"]);
    for (let i = 0; i < 3; i += 1)
      made.commit({ "src/a.ts": lines(10, (n) => `a${n * i}();`), [`b${i}.ts`]: `b${i}();\n` });
    const partial = join(made.root, "partial");
    made.git(["clone", "-q", "--filter=blob:none", `file://${made.path}`, partial]);
    const { html, results } = await report(partial);
    expect(html).toContain("partial clone");
    expect(results.get("history-1")?.result).toMatchObject({ commits: 3, files: { "src/a.ts": [3, 0, 0, [0, 3]] } });
  });
  it("goes without a part that git would not do, and says so", async () => {
    const made = repository();
    made.commit({ "a.ts": "a();\n" });
    const commit = await made.head();
    const whole = await assemble({
      repo: made.path,
      commit,
      name: "x",
      results: { "large-files": [{ undone: "bad object" }], languages: [{ undone: "no" }] },
      making: { at: Date.now(), tasks: [], agents: [] },
    });
    expect(toHtml(whole)).toContain("large-files could not be done: bad object");
    expect(toMarkdown(whole)).toContain("languages could not be done: no");
  });
  it("looks at the whole repository when started in a folder of it", async () => {
    const made = repository();
    made.commit({ "deep/down/a.ts": "a();\n", "b.ts": "b();\n" });
    expect(await repositoryOf(join(made.path, "deep/down"))).toBe(await repositoryOf(made.path));
  });
  it("is refused for what is no repository, in one line", async () => {
    await expect(repositoryOf("/nowhere/at/all")).rejects.toThrow("/nowhere/at/all does not exist");
    const path = folder();
    await expect(repositoryOf(path)).rejects.toThrow(/not in a git repository$/);
  });
});

describe("the plan", () => {
  it("lets the report wait for every other task, within the limits of one batch", async () => {
    const made = repository();
    const many = Object.fromEntries(
      Array.from({ length: 120 }, (_, n) => [`src/f${n}.ts`, lines(40, (i) => `// TODO x\ncall${n}(${i});`)]),
    );
    made.commit({
      ...many,
      ...Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`p${n}/yarn.lock`, "# yarn\n"])),
    });
    const { tasks, lockFilesLeftOut } = await plan({ repo: made.path });
    const last = tasks.at(-1)!;
    expect(last.type).toBe("report");
    expect(new Set(last.dependsOn)).toEqual(new Set(tasks.slice(0, -1).map((task) => `ref:${task.ref}`)));
    expect(tasks.length).toBeLessThanOrEqual(100);
    expect(new Set(tasks.map((task) => task.ref)).size).toBe(tasks.length);
    expect(lockFilesLeftOut).toHaveLength(18);
    const fingerprints = tasks.filter((task) => task.type === "duplicates.fingerprint");
    expect(tasks.find((task) => task.type === "duplicates.match")?.dependsOn).toEqual(
      fingerprints.map((task) => `ref:${task.ref}`),
    );
  });
});

describe("task input", () => {
  const around = {
    repo: "/",
    outDir: "/",
    dependencies: async () => [],
    making: async () => ({ at: 0, tasks: [], agents: [] }),
  };
  it("is checked: what does not fit fails for good, with the reason", async () => {
    await expect(handlers.history({ skip: -1 }, {}, around)).rejects.toMatchObject({
      code: "input.invalid",
      retryable: false,
    });
    await expect(handlers.languages({ slice: { index: 3, of: 3 } }, {}, around)).rejects.toThrow(/index is below of/);
    await expect(handlers.overview({ repo: "/", bogus: 1 }, {}, around)).rejects.toThrow(/bogus/);
  });
  it("cannot slip an option to git in place of a commit", async () => {
    await expect(handlers.overview({ commit: "--output=/tmp/x" }, {}, around)).rejects.toMatchObject({
      code: "input.invalid",
    });
  });
});

describe("stopping", () => {
  it("ends an analysis between two steps when its signal says so", async () => {
    const made = repository();
    made.commit({ "a.ts": "a();\n", "b.ts": "b();\n" });
    const aborter = new AbortController();
    const run = { signal: aborter.signal, progress: () => aborter.abort(new Error("enough")) };
    await expect(
      handlers.ownership({ repo: made.path }, run, {
        repo: made.path,
        outDir: made.root,
        dependencies: async () => [],
        making: async () => ({ at: 0, tasks: [], agents: [] }),
      }),
    ).rejects.toThrow("enough");
  });
});

describe("escaping", () => {
  it("covers HTML and what reorders or hides text", () => {
    expect(escapeHtml("<a href=\"x\" b='y'>&`\u0000\u200b")).toBe(
      "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;&#96;\\u0000\\u200b",
    );
  });
  it("covers Markdown in cells and code spans", () => {
    expect(cell("a|b*c_[d](e)<f>`g`\nh")).toBe("a\\|b\\*c\\_\\[d\\](e)\\<f\\>\\`g\\`\\\\nh");
    expect(span("a`b|c")).toBe("`` a`b\\|c ``");
  });
  it("links only to hosts it knows, with every part of the path encoded", () => {
    const to = (remote: string) => linker({ overview: { remote, commit: "a".repeat(40) } } as Report);
    expect(to("git@github.com:acme/x")("a b/<c>.ts", 3)).toBe(
      `https://github.com/acme/x/blob/${"a".repeat(40)}/a%20b/%3Cc%3E.ts#L3`,
    );
    expect(to("javascript:alert(1)")("a")).toBeUndefined();
    expect(to("https://evil.example/github.com/x")("a")).toBeUndefined();
  });
});

describe("charts", () => {
  it("fill a box with rectangles of the right areas that do not overlap", () => {
    const areas = [9, 7, 5, 3, 2, 1, 1];
    const boxes = squarify(areas, { x: 0, y: 0, width: 100, height: 40 });
    const total = areas.reduce((sum, area) => sum + area, 0);
    boxes.forEach((box, index) => {
      expect(box.width * box.height).toBeCloseTo((areas[index]! / total) * 4000, 6);
      for (const other of boxes.slice(index + 1)) {
        const apart =
          box.x + box.width <= other.x + 1e-9 ||
          other.x + other.width <= box.x + 1e-9 ||
          box.y + box.height <= other.y + 1e-9 ||
          other.y + other.height <= box.y + 1e-9;
        expect(apart).toBe(true);
      }
    });
  });
  it("tell an attempt that was lost from the one that did it", () => {
    const at = (second: number) => new Date(second * 1000).toISOString();
    const task = {
      id: "tsk_1",
      type: "languages",
      status: "completed",
      createdAt: at(0),
      finishedAt: at(9),
      history: [
        { at: at(0), status: "scheduled", attempt: 0 },
        { at: at(1), status: "queued", attempt: 0 },
        { at: at(2), status: "assigned", attempt: 1, agentId: "a" },
        { at: at(3), status: "running", attempt: 1, agentId: "a" },
        { at: at(5), status: "queued", attempt: 1, reason: "retry after agent.lost" },
        { at: at(6), status: "assigned", attempt: 2, agentId: "b" },
        { at: at(9), status: "completed", attempt: 2, agentId: "b" },
      ],
    } as unknown as Parameters<typeof toMade>[0];
    const names = new Map([
      ["a", "one"],
      ["b", "two"],
    ]);
    expect(toMade(task, names, 10_000)).toMatchObject({
      agent: "two",
      readyAt: 1000,
      startedAt: 3000,
      finishedAt: 9000,
      attempts: [
        { agent: "one", from: 3000, to: 5000, end: "lost" },
        { agent: "two", from: 6000, to: 9000, end: "done" },
      ],
    });
  });
});
