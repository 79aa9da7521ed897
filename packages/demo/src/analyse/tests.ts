import { posix } from "node:path";
import { isTestName, listFiles, readSources, type Slice, slice } from "../files.ts";
import type { Run } from "../git.ts";
import { basename, countLines, dirname, type Language } from "../language.ts";

export type TestRow = {
  language: string;
  sourceFiles: number;
  sourceCode: number;
  testFiles: number;
  testCode: number;
  cases: number;
  skipped: number;
};
/** `stems`: what a test's name and its imports say it tests; a source file with none of its own is looked up in there. */
export type TestPart = {
  rows: TestRow[];
  sources: { path: string; code: number; inline: boolean }[];
  stems: string[];
  /** Folders tested as a whole: by a test named after no file (`index.test.ts`), or a Go package by any of its tests. */
  folders: string[];
};
export type Tests = {
  rows: TestRow[];
  cases: number;
  skipped: number;
  sourceFiles: number;
  testFiles: number;
  /** Share of source code (by lines) in files that some test names or imports. */
  reached: number;
  untested: { path: string; code: number }[];
  folders: { path: string; files: number; reached: number; code: number }[];
};

type Convention = { cases: RegExp; skipped?: RegExp; imports?: RegExp };
const js: Convention = {
  cases:
    /(?<![\w.$])(?:it|test|Deno\.test|fit)(?:\.(?:only|each|concurrent|for|prop|runIf|skipIf|fails|serial|failing))*\s*[(`]/g,
  skipped: /(?<![\w.$])(?:(?:it|test|describe)\.(?:skip|todo)|xit|xtest|xdescribe)\s*[(`]/g,
  imports:
    /(?:from\s+|import\s*\(?\s*|require\s*\(\s*|mock\s*\(\s*)["'`](\.{1,2}\/[^"'`\n]*|[^"'`\n]*\/[^"'`\n]*)["'`]/g,
};
const jvm: Convention = {
  cases: /@(?:Test|ParameterizedTest|RepeatedTest|Property)\b/g,
  skipped: /@(?:Ignore|Disabled)\b/g,
  imports: /^import\s+(?:static\s+)?([\w.]+)/gm,
};
const conventions: Readonly<Record<string, Convention>> = {
  TypeScript: js,
  JavaScript: js,
  Vue: js,
  Svelte: js,
  Python: {
    cases: /^\s*(?:async\s+)?def\s+test\w*\s*\(/gm,
    skipped: /@(?:pytest\.mark\.)?(?:unittest\.)?skip/g,
    imports: /^\s*(?:from\s+([\w.]+)\s+import|import\s+([\w.]+))/gm,
  },
  Go: { cases: /^func\s+(?:Test|Benchmark|Fuzz|Example)\w*\s*\(/gm, skipped: /\b[tb]\.Skip(?:f|Now)?\(/g },
  Rust: {
    cases: /#\[(?:\w+::)?(?:test|rstest|test_case)\b[^\]]*\]/g,
    skipped: /#\[ignore\b/g,
    imports: /^use\s+([\w:]+)/gm,
  },
  Java: jvm,
  Kotlin: jvm,
  Groovy: jvm,
  Scala: { cases: /(?:^|\s)(?:test|it|property)\s*\(\s*"|"\s+(?:in|should)\s*\{|@Test\b/g },
  "C#": { cases: /\[(?:Fact|Theory|Test|TestMethod|TestCase)\b/g, skipped: /Skip\s*=|\[Ignore/g },
  Ruby: {
    cases: /^\s*(?:(?:it|specify|scenario|test)\s+["'{]|def\s+test_)/gm,
    skipped: /^\s*(?:xit|pending|skip)\b/gm,
    imports: /require(?:_relative)?\s+["']([^"'\n]+)["']/g,
  },
  PHP: {
    cases: /function\s+test\w*\s*\(|@test\b|#\[Test\]|^\s*(?:it|test)\(/gm,
    skipped: /markTestSkipped/g,
    imports: /^use\s+([\w\\]+)/gm,
  },
  Swift: { cases: /func\s+test\w*\s*\(|@Test\b/g, skipped: /XCTSkip/g },
  Dart: {
    cases: /(?<![\w.])(?:test|testWidgets)\s*\(/g,
    skipped: /skip:\s*true/g,
    imports: /import\s+["']([^"'\n]+)["']/g,
  },
  Elixir: { cases: /^\s*(?:test|property)\s+"/gm, skipped: /@tag\s+:skip/g },
  C: { cases: /(?<!\w)(?:TEST|TEST_F|TEST_CASE|START_TEST)\s*\(/g, imports: /#include\s+["<]([^">\n]+)[">]/g },
  "C++": {
    cases: /(?<!\w)(?:TEST|TEST_F|TEST_P|TYPED_TEST|TEST_CASE|SCENARIO|BOOST_AUTO_TEST_CASE)\s*\(/g,
    skipped: /GTEST_SKIP/g,
    imports: /#include\s+["<]([^">\n]+)[">]/g,
  },
  Shell: { cases: /^@test\s/gm },
  Zig: { cases: /^\s*test\s+"/gm },
  Haskell: { cases: /^\s*(?:it|prop)\s+"/gm },
  Erlang: { cases: /^\w+_test_?\(\)/gm },
  "Objective-C": { cases: /^-\s*\(void\)\s*test\w*/gm },
};

/** A file's name without what makes it a test or an extension: `user.service.spec.ts`, `test_user.py`, `UserTest.java` → `user…`. */
export const stem = (path: string) => {
  const name = basename(path).replace(/\.\w+$/, "");
  return name
    .replace(/\.d$/, "")
    .replace(/[._-](test|spec|cy|e2e|tests)$/i, "")
    .replace(/^test_/, "")
    .replace(/(?<=[a-z0-9])(Tests?|Spec|IT)$/, "")
    .replace(/^Test(?=[A-Z])/, "")
    .toLowerCase();
};

const vague = new Set([
  "index",
  "main",
  "mod",
  "lib",
  "__init__",
  "init",
  "app",
  "types",
  "utils",
  "util",
  "helpers",
  "common",
  "base",
]);
/** Where a name says little, its folder's name counts as well: `router/index.ts` → `router/index`. */
const key = (path: string) => {
  const own = stem(path);
  return vague.has(own) ? `${basename(dirname(path)).toLowerCase()}/${own}` : own;
};

const countOf = (text: string, pattern: RegExp | undefined) => (pattern ? (text.match(pattern)?.length ?? 0) : 0);
const isTest = (file: { path: string; test: boolean }, convention: Convention, text: string) =>
  isTestName(basename(file.path)) || (file.test && countOf(text, convention.cases) > 0);
// Declarations and configuration run nothing that a test could check.
const untestable = (path: string, language: Language) =>
  /\.d\.[cm]?ts$|(^|\/)(eslint|prettier|vite|vitest|jest|rollup|webpack|tailwind|postcss|next|nuxt|svelte|astro|tsup|babel|karma|playwright|cypress|commitlint|knip)\.config\.\w+$|(^|\/)setup\.py$|(^|\/)conftest\.py$|(^|\/)(examples?|docs?|benchmarks?|bench|fixtures?|scripts?|migrations?)\//.test(
    path,
  ) ||
  language.kind !== "code" ||
  [
    "Shell",
    "SQL",
    "Terraform",
    "Dockerfile",
    "Makefile",
    "CMake",
    "Nix",
    "Batch",
    "PowerShell",
    "Protocol Buffers",
    "GraphQL",
  ].includes(language.name);

/** Test files and cases by each language's habits, and what they name or import. */
export const readTests = async (
  input: { repo: string; commit?: string | undefined; slice?: Slice | undefined },
  run: Run = {},
): Promise<TestPart> => {
  const listing = await listFiles(input.repo, input.commit, run.signal);
  const part = slice(listing.files, input.slice).filter(
    (file) => file.kind === "source" && file.language && Object.hasOwn(conventions, file.language.name),
  );
  const rows = new Map<string, TestRow>();
  const sources: TestPart["sources"] = [];
  const stems = new Set<string>();
  const folders = new Set<string>();
  for await (const { file, text } of readSources(input.repo, part, run)) {
    const language = file.language!;
    const convention = conventions[language.name]!;
    const { code } = countLines(text, language);
    const row = rows.get(language.name) ?? {
      language: language.name,
      sourceFiles: 0,
      sourceCode: 0,
      testFiles: 0,
      testCode: 0,
      cases: 0,
      skipped: 0,
    };
    rows.set(language.name, row);
    const cases = countOf(text, convention.cases);
    // Rust and Zig keep unit tests beside the code; elsewhere a call named `test` outside a test file is something else.
    const inline = cases > 0 && (language.name === "Rust" || language.name === "Zig");
    const test = isTest(file, convention, text);
    if (test || inline) {
      row.cases += cases;
      row.skipped += countOf(text, convention.skipped);
    }
    if (test) {
      row.testFiles += 1;
      row.testCode += code;
      stems.add(key(file.path));
      stems.add(stem(file.path));
      if (language.name === "Go" || vague.has(stem(file.path))) folders.add(dirname(file.path));
      for (const match of convention.imports ? text.matchAll(convention.imports) : []) {
        const target = (match[1] ?? match[2] ?? "").replaceAll("\\", "/");
        const dotted =
          /^[\w.]+$/.test(target) && !target.startsWith(".") && language.name !== "C" && language.name !== "C++";
        const name = target.startsWith(".")
          ? posix.join(dirname(file.path), target)
          : dotted
            ? target.replaceAll(".", "/")
            : target.replaceAll("::", "/");
        if (name === "" || name.length > 200) continue;
        stems.add(key(name));
        // An import of a folder means its index.
        stems.add(`${stem(name)}/index`);
        if (language.name === "Python") stems.add(`${stem(name)}/__init__`);
      }
    } else if (!file.test && !untestable(file.path, language)) {
      row.sourceFiles += 1;
      row.sourceCode += code;
      // Types alone run nothing either.
      const runs =
        language.name !== "TypeScript" ||
        /\b(function|class|const|let|var|return|enum)\b|=>\s*[{(]/.test(
          text.replace(/\bconst\b(?=\s+\w+\s*:\s*unique symbol)/g, ""),
        );
      if (code >= 5 && runs) sources.push({ path: file.path, code, inline });
    }
  }
  return {
    rows: [...rows.values()],
    sources,
    stems: [...stems].filter((name) => name !== "" && !name.startsWith("/")).slice(0, 20_000),
    folders: [...folders],
  };
};

export const mergeTests = (parts: readonly TestPart[]): Tests => {
  const rows = new Map<string, TestRow>();
  for (const row of parts.flatMap((part) => part.rows)) {
    const sum = rows.get(row.language);
    if (!sum) rows.set(row.language, { ...row });
    else
      for (const name of ["sourceFiles", "sourceCode", "testFiles", "testCode", "cases", "skipped"] as const)
        sum[name] += row[name];
  }
  const stems = new Set(parts.flatMap((part) => part.stems));
  const sources = parts.flatMap((part) => part.sources);
  const wholeFolders = new Set(parts.flatMap((part) => part.folders));
  const reached = (source: TestPart["sources"][number]) =>
    source.inline || stems.has(key(source.path)) || wholeFolders.has(dirname(source.path));
  const folders = new Map<string, { path: string; files: number; code: number; tested: number }>();
  let code = 0;
  let tested = 0;
  const untested: Tests["untested"] = [];
  for (const source of sources) {
    const yes = reached(source);
    const names = dirname(source.path).split("/").filter(Boolean);
    const path = names.slice(0, 2).join("/") || "(top level)";
    const folder = folders.get(path) ?? { path, files: 0, code: 0, tested: 0 };
    folders.set(path, folder);
    folder.files += 1;
    folder.code += source.code;
    code += source.code;
    if (yes) {
      tested += source.code;
      folder.tested += source.code;
    } else untested.push({ path: source.path, code: source.code });
  }
  const list = [...rows.values()].sort((a, b) => b.sourceCode + b.testCode - a.sourceCode - a.testCode);
  const sum = (name: "cases" | "skipped" | "sourceFiles" | "testFiles") =>
    list.reduce((total, row) => total + row[name], 0);
  return {
    rows: list,
    cases: sum("cases"),
    skipped: sum("skipped"),
    sourceFiles: sum("sourceFiles"),
    testFiles: sum("testFiles"),
    reached: code > 0 ? tested / code : 0,
    untested: untested.sort((a, b) => b.code - a.code).slice(0, 40),
    folders: [...folders.values()]
      .map(({ tested: part, ...folder }) => ({ ...folder, reached: folder.code > 0 ? part / folder.code : 0 }))
      .sort((a, b) => b.code - a.code)
      .slice(0, 30),
  };
};
