/** How a language is recognised and how its comments look. Colours are those GitHub shows, so that they are familiar. */
export type Language = {
  name: string;
  kind: "code" | "markup" | "data" | "prose";
  color: string;
  extensions: readonly string[];
  filenames?: readonly string[];
  shebangs?: readonly string[];
  line?: readonly string[];
  block?: readonly (readonly [open: string, close: string])[];
  /** Characters that open a string in which comment marks mean nothing; the backquote's may span lines. */
  quotes?: string;
};

const c = [["/*", "*/"]] as const;
const html = [["<!--", "-->"]] as const;
const slashes = { line: ["//"], block: c, quotes: "\"'" };
const script = { line: ["//"], block: c, quotes: "\"'`" };
const hash = { line: ["#"], quotes: "\"'" };

export const languages: readonly Language[] = [
  {
    name: "TypeScript",
    kind: "code",
    color: "#3178c6",
    extensions: ["ts", "tsx", "mts", "cts"],
    shebangs: ["deno", "bun"],
    ...script,
  },
  {
    name: "JavaScript",
    kind: "code",
    color: "#e3b341",
    extensions: ["js", "jsx", "mjs", "cjs"],
    shebangs: ["node"],
    ...script,
  },
  { name: "Vue", kind: "code", color: "#41b883", extensions: ["vue"], line: ["//"], block: [...html, ...c] },
  { name: "Svelte", kind: "code", color: "#ff3e00", extensions: ["svelte"], line: ["//"], block: [...html, ...c] },
  { name: "Astro", kind: "code", color: "#ff5a03", extensions: ["astro"], line: ["//"], block: [...html, ...c] },
  {
    name: "Python",
    kind: "code",
    color: "#3572a5",
    extensions: ["py", "pyi", "pyw"],
    shebangs: ["python", "python3"],
    line: ["#"],
    block: [
      ['"""', '"""'],
      ["'''", "'''"],
    ],
    quotes: "\"'",
  },
  { name: "Go", kind: "code", color: "#00add8", extensions: ["go"], line: ["//"], block: c, quotes: '"`' },
  { name: "Rust", kind: "code", color: "#dea584", extensions: ["rs"], line: ["//"], block: c, quotes: '"' },
  { name: "Java", kind: "code", color: "#b07219", extensions: ["java"], ...slashes },
  { name: "Kotlin", kind: "code", color: "#a97bff", extensions: ["kt", "kts"], ...slashes },
  { name: "Scala", kind: "code", color: "#c22d40", extensions: ["scala", "sbt"], line: ["//"], block: c, quotes: '"' },
  { name: "Groovy", kind: "code", color: "#4298b8", extensions: ["groovy", "gradle"], ...slashes },
  { name: "Clojure", kind: "code", color: "#db5855", extensions: ["clj", "cljs", "cljc"], line: [";"], quotes: '"' },
  { name: "C", kind: "code", color: "#777777", extensions: ["c", "h"], ...slashes },
  { name: "C++", kind: "code", color: "#f34b7d", extensions: ["cc", "cpp", "cxx", "hpp", "hh", "hxx"], ...slashes },
  { name: "C#", kind: "code", color: "#178600", extensions: ["cs"], ...slashes },
  { name: "F#", kind: "code", color: "#b845fc", extensions: ["fs", "fsx"], line: ["//"], block: [["(*", "*)"]] },
  { name: "Objective-C", kind: "code", color: "#438eff", extensions: ["m", "mm"], ...slashes },
  { name: "Swift", kind: "code", color: "#f05138", extensions: ["swift"], line: ["//"], block: c, quotes: '"' },
  { name: "Dart", kind: "code", color: "#00b4ab", extensions: ["dart"], ...slashes },
  {
    name: "PHP",
    kind: "code",
    color: "#4f5d95",
    extensions: ["php"],
    shebangs: ["php"],
    ...slashes,
    line: ["//", "#"],
  },
  {
    name: "Ruby",
    kind: "code",
    color: "#c0392b",
    extensions: ["rb", "rake", "gemspec"],
    filenames: ["Rakefile", "Gemfile", "Guardfile", "Podfile", "Vagrantfile"],
    shebangs: ["ruby"],
    ...hash,
    block: [["=begin", "=end"]],
  },
  { name: "Elixir", kind: "code", color: "#6e4a7e", extensions: ["ex", "exs"], ...hash },
  { name: "Erlang", kind: "code", color: "#b83998", extensions: ["erl", "hrl"], line: ["%"], quotes: '"' },
  {
    name: "Haskell",
    kind: "code",
    color: "#5e5086",
    extensions: ["hs"],
    line: ["--"],
    block: [["{-", "-}"]],
    quotes: '"',
  },
  { name: "OCaml", kind: "code", color: "#ef7a08", extensions: ["ml", "mli"], block: [["(*", "*)"]], quotes: '"' },
  {
    name: "Lua",
    kind: "code",
    color: "#3b3bb0",
    extensions: ["lua"],
    line: ["--"],
    block: [["--[[", "]]"]],
    quotes: "\"'",
  },
  { name: "Perl", kind: "code", color: "#0298c3", extensions: ["pl", "pm"], shebangs: ["perl"], ...hash },
  { name: "R", kind: "code", color: "#198ce7", extensions: ["r"], ...hash },
  { name: "Julia", kind: "code", color: "#a270ba", extensions: ["jl"], ...hash, block: [["#=", "=#"]] },
  { name: "Zig", kind: "code", color: "#ec915c", extensions: ["zig"], line: ["//"], quotes: '"' },
  { name: "Nim", kind: "code", color: "#d9b600", extensions: ["nim"], ...hash, block: [["#[", "]#"]] },
  { name: "Solidity", kind: "code", color: "#aa6746", extensions: ["sol"], ...slashes },
  {
    name: "Shell",
    kind: "code",
    color: "#89e051",
    extensions: ["sh", "bash", "zsh", "fish", "bats"],
    shebangs: ["sh", "bash", "zsh", "dash", "fish", "bats"],
    line: ["#"],
  },
  {
    name: "PowerShell",
    kind: "code",
    color: "#2b6ab0",
    extensions: ["ps1", "psm1"],
    line: ["#"],
    block: [["<#", "#>"]],
  },
  { name: "Batch", kind: "code", color: "#7fae1b", extensions: ["bat", "cmd"], line: ["rem ", "REM ", "::"] },
  { name: "SQL", kind: "code", color: "#e38c00", extensions: ["sql"], line: ["--"], block: c, quotes: "'" },
  { name: "GraphQL", kind: "code", color: "#e10098", extensions: ["graphql", "gql"], line: ["#"] },
  { name: "Protocol Buffers", kind: "code", color: "#6a9fb5", extensions: ["proto"], ...slashes },
  {
    name: "Terraform",
    kind: "code",
    color: "#844fba",
    extensions: ["tf", "tfvars", "hcl"],
    line: ["#", "//"],
    block: c,
  },
  { name: "Nix", kind: "code", color: "#7e7eff", extensions: ["nix"], line: ["#"], block: c, quotes: '"' },
  {
    name: "Dockerfile",
    kind: "code",
    color: "#384d54",
    extensions: ["dockerfile"],
    filenames: ["Dockerfile", "Containerfile"],
    line: ["#"],
  },
  {
    name: "Makefile",
    kind: "code",
    color: "#427819",
    extensions: ["mk", "mak"],
    filenames: ["Makefile", "makefile", "GNUmakefile", "justfile"],
    line: ["#"],
  },
  { name: "CMake", kind: "code", color: "#da3434", extensions: ["cmake"], filenames: ["CMakeLists.txt"], line: ["#"] },
  { name: "HTML", kind: "markup", color: "#e34c26", extensions: ["html", "htm", "xhtml", "hbs", "ejs"], block: html },
  { name: "CSS", kind: "markup", color: "#663399", extensions: ["css"], block: c, quotes: "\"'" },
  { name: "SCSS", kind: "markup", color: "#c6538c", extensions: ["scss", "sass", "less"], line: ["//"], block: c },
  { name: "XML", kind: "data", color: "#0060ac", extensions: ["xml", "xsd", "xsl", "plist", "csproj"], block: html },
  { name: "SVG", kind: "data", color: "#ff9900", extensions: ["svg"], block: html },
  {
    name: "JSON",
    kind: "data",
    color: "#8a8f98",
    extensions: ["json", "jsonc", "json5", "geojson", "webmanifest", "ndjson", "jsonl"],
    filenames: [".babelrc", ".eslintrc", ".prettierrc"],
  },
  { name: "YAML", kind: "data", color: "#cb171e", extensions: ["yml", "yaml"], line: ["#"] },
  { name: "TOML", kind: "data", color: "#9c4221", extensions: ["toml"], line: ["#"] },
  { name: "INI", kind: "data", color: "#a3b1c2", extensions: ["ini", "cfg", "conf", "properties"], line: ["#", ";"] },
  { name: "CSV", kind: "data", color: "#237346", extensions: ["csv", "tsv"] },
  { name: "Markdown", kind: "prose", color: "#2f6db5", extensions: ["md", "mdx", "markdown"], block: html },
  { name: "reStructuredText", kind: "prose", color: "#7d8a99", extensions: ["rst"] },
  { name: "Text", kind: "prose", color: "#9aa4b0", extensions: ["txt", "adoc", "org"] },
];

const byExtension = new Map(
  languages.flatMap((entry) => entry.extensions.map((extension) => [extension, entry] as const)),
);
const byFilename = new Map(languages.flatMap((entry) => (entry.filenames ?? []).map((name) => [name, entry] as const)));
const byShebang = new Map(languages.flatMap((entry) => (entry.shebangs ?? []).map((name) => [name, entry] as const)));
const byName = new Map(languages.map((entry) => [entry.name, entry]));

export const basename = (path: string) => path.slice(path.lastIndexOf("/") + 1);
export const dirname = (path: string) => (path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");
export const extension = (path: string) => {
  const name = basename(path);
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1).toLowerCase();
};

export const languageNamed = (name: string) => byName.get(name);

export const languageOf = (path: string): Language | undefined => {
  const name = basename(path);
  return (
    byFilename.get(name) ??
    (name.startsWith("Dockerfile.") ? byFilename.get("Dockerfile") : undefined) ??
    byExtension.get(extension(path))
  );
};

/** For files with no telling name: the interpreter named in their first line. */
export const languageOfShebang = (firstLine: string): Language | undefined => {
  const match = /^#!\s*(\S+)(?:\s+(?:-\S+\s+)*(\S+))?/.exec(firstLine);
  if (!match) return undefined;
  const program = basename(match[1]!) === "env" ? match[2] : match[1];
  return program === undefined
    ? undefined
    : (byShebang.get(basename(program).replace(/[\d.]+$/, "")) ?? byShebang.get(basename(program)));
};

export type Count = { lines: number; code: number; comment: number; blank: number };

/** Counts as cloc does: a line with any code on it is code; a line inside or wholly of comments is a comment. */
export const countLines = (
  text: string,
  language: Language | undefined,
  visit?: (line: number, code: string, comment: string) => void,
): Count => {
  const count: Count = { lines: 0, code: 0, comment: 0, blank: 0 };
  if (text === "") return count;
  const line = language?.line ?? [];
  const block = language?.block ?? [];
  const quotes = language?.quotes ?? "";
  const python = language?.name === "Python";
  let inside: string | undefined;
  let template = false;
  const rows = text.split(/\r\n|\n|\r/);
  if (rows.at(-1) === "") rows.pop();
  for (const row of rows) {
    count.lines += 1;
    let code = "";
    let comment = "";
    let at = 0;
    while (at < row.length) {
      if (inside !== undefined) {
        const end = row.indexOf(inside, at);
        const stop = end < 0 ? row.length : end + inside.length;
        comment += row.slice(at, stop);
        at = stop;
        if (end >= 0) inside = undefined;
        continue;
      }
      if (template) {
        const end = closing(row, at, "`");
        code += row.slice(at, end < 0 ? row.length : end + 1);
        at = end < 0 ? row.length : end + 1;
        if (end >= 0) template = false;
        continue;
      }
      const opened = block.find(([open]) => row.startsWith(open, at));
      // A Python string is documentation only where a statement could stand.
      if (opened && !(python && code.trim() !== "")) {
        inside = opened[1];
        comment += opened[0];
        at += opened[0].length;
        continue;
      }
      if (line.some((mark) => row.startsWith(mark, at) && (mark !== "#" || at === 0 || /\s/.test(row[at - 1]!)))) {
        comment += row.slice(at);
        break;
      }
      const letter = row[at]!;
      if (quotes.includes(letter)) {
        const end = closing(row, at + 1, letter);
        if (end < 0 && letter === "`") template = true;
        // An apostrophe that nothing closes on its line is no string (a lifetime, a word in text).
        const stop = end < 0 ? (letter === "`" ? row.length : at + 1) : end + 1;
        code += row.slice(at, stop);
        at = stop;
        continue;
      }
      code += letter;
      at += 1;
    }
    if (code.trim() !== "") count.code += 1;
    else if (comment.trim() !== "") count.comment += 1;
    else if (row.trim() === "" && template) count.code += 1;
    else count.blank += 1;
    visit?.(count.lines, code, comment);
  }
  return count;
};

const closing = (row: string, from: number, quote: string) => {
  for (let at = from; at < row.length; at += 1) {
    if (row[at] === "\\") at += 1;
    else if (row[at] === quote) return at;
  }
  return -1;
};
