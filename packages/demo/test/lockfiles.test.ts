import { describe, expect, it } from "vitest";
import { summarise } from "../src/analyse/dependencies.ts";
import { parsers } from "../src/analyse/lockfiles.ts";

const parse = (name: string, text: string, near: Record<string, string> = {}) => parsers[name]!.parse(text, near);

describe("lock files", () => {
  it("npm: direct ones of every workspace, what is nested, and what deserves a look", () => {
    const lock = {
      lockfileVersion: 3,
      packages: {
        "": { dependencies: { a: "^1" } },
        "packages/x": { devDependencies: { "@s/b": "1" } },
        "node_modules/x": { link: true, resolved: "packages/x" },
        "node_modules/a": { version: "1.0.0", license: "MIT", resolved: "https://registry.npmjs.org/a" },
        "node_modules/@s/b": { version: "2.0.0", dev: true, hasInstallScript: true },
        "node_modules/a/node_modules/@s/b": { version: "1.0.0", deprecated: "no more" },
        "node_modules/alias": { name: "real", version: "3.0.0", resolved: "git+ssh://git@host/real.git" },
      },
    };
    expect(parse("package-lock.json", JSON.stringify(lock))).toEqual([
      { name: "a", version: "1.0.0", direct: true, license: "MIT" },
      { name: "@s/b", version: "2.0.0", direct: true, dev: true, flag: "install script" },
      { name: "@s/b", version: "1.0.0", direct: false, flag: "deprecated" },
      { name: "real", version: "3.0.0", direct: false, flag: "not from a registry" },
    ]);
  });
  it("npm, version 1: the whole tree", () => {
    const lock = {
      lockfileVersion: 1,
      dependencies: { a: { version: "1.0.0", dependencies: { b: { version: "2.0.0", dev: true } } } },
    };
    expect(parse("package-lock.json", JSON.stringify(lock))).toEqual([
      { name: "a", version: "1.0.0" },
      { name: "b", version: "2.0.0", dev: true },
    ]);
  });
  it("yarn: classic and berry", () => {
    const manifest = JSON.stringify({ dependencies: { "@s/a": "^1" } });
    const classic =
      '# yarn lockfile v1\n\n"@s/a@^1.0.0", "@s/a@^1.1.0":\n  version "1.2.0"\n  dependencies:\n    b "^2"\n\nb@^2:\n  version "2.0.1"\n';
    const berry =
      '__metadata:\n  version: 8\n\n"@s/a@npm:^1.0.0":\n  version: 1.2.0\n  resolution: "@s/a@npm:1.2.0"\n\n"b@npm:^2":\n  version: 2.0.1\n\n"own@workspace:.":\n  version: 0.0.0-use.local\n';
    const expected = [
      { name: "@s/a", version: "1.2.0", direct: true },
      { name: "b", version: "2.0.1", direct: false },
    ];
    expect(parse("yarn.lock", classic, { "package.json": manifest })).toEqual(expected);
    expect(parse("yarn.lock", berry, { "package.json": manifest })).toEqual(expected);
  });
  it("pnpm: old and new keys, importers or none", () => {
    const nine =
      "lockfileVersion: '9.0'\n\nimporters:\n\n  .:\n    dependencies:\n      '@s/a':\n        specifier: ^1\n        version: 1.2.0\n\npackages:\n\n  '@s/a@1.2.0':\n    resolution: {integrity: x}\n    deprecated: gone\n\n  b@2.0.1:\n    resolution: {integrity: x}\n\nsnapshots:\n\n  b@2.0.1: {}\n";
    const five =
      "lockfileVersion: 5.4\n\ndependencies:\n  '@s/a': 1.2.0\n\npackages:\n\n  /@s/a/1.2.0_react@18.0.0:\n    dev: false\n\n  /b/2.0.1:\n    dev: false\n";
    const six =
      "lockfileVersion: '6.0'\n\ndependencies:\n  '@s/a':\n    specifier: ^1\n    version: 1.2.0\n\npackages:\n\n  /@s/a@1.2.0(react@18.0.0):\n    dev: false\n\n  /b@2.0.1:\n    dev: false\n";
    expect(parse("pnpm-lock.yaml", nine)).toEqual([
      { name: "@s/a", version: "1.2.0", direct: true, flag: "deprecated" },
      { name: "b", version: "2.0.1", direct: false },
    ]);
    for (const text of [five, six])
      expect(parse("pnpm-lock.yaml", text)).toEqual([
        { name: "@s/a", version: "1.2.0", direct: true },
        { name: "b", version: "2.0.1", direct: false },
      ]);
  });
  it("bun: its JSON with commas left over", () => {
    const text =
      '{\n "workspaces": {"": {"dependencies": {"a": "^1",},},},\n "packages": {\n  "a": ["a@1.0.0", "", {}, "sha"],\n  "b/a": ["a@2.0.0", "", {}, "sha"],\n  "own": ["own@workspace:packages/own"],\n },\n}\n';
    expect(parse("bun.lock", text)).toEqual([
      { name: "a", version: "1.0.0", direct: true },
      { name: "a", version: "2.0.0", direct: false },
    ]);
  });
  it("Cargo: what the own crates ask for is direct, the own crates are not dependencies", () => {
    const text =
      'version = 3\n\n[[package]]\nname = "own"\nversion = "0.1.0"\ndependencies = [\n "serde",\n "rand 0.8.5",\n]\n\n[[package]]\nname = "serde"\nversion = "1.0.0"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n\n[[package]]\nname = "rand"\nversion = "0.8.5"\nsource = "git+https://github.com/rust-random/rand"\n\n[[package]]\nname = "libc"\nversion = "0.2.0"\nsource = "registry+x"\n';
    expect(parse("Cargo.lock", text)).toEqual([
      { name: "serde", version: "1.0.0", direct: true },
      { name: "rand", version: "0.8.5", direct: true, flag: "not from a registry" },
      { name: "libc", version: "0.2.0", direct: false },
    ]);
  });
  it("Go: sums with the direct ones from go.mod, or go.mod alone", () => {
    const mod =
      "module x\n\ngo 1.22\n\nrequire github.com/a/b v1.0.0\n\nrequire (\n\tgolang.org/x/c v0.1.0 // indirect\n\tgithub.com/d/e v2.0.0+incompatible\n)\n";
    const sum =
      "github.com/a/b v1.0.0 h1:x=\ngithub.com/a/b v1.0.0/go.mod h1:x=\ngolang.org/x/c v0.1.0 h1:x=\ngolang.org/x/c v0.0.9/go.mod h1:x=\n";
    expect(parse("go.sum", sum, { "go.mod": mod })).toEqual([
      { name: "github.com/a/b", version: "v1.0.0", direct: true },
      { name: "golang.org/x/c", version: "v0.1.0", direct: false },
    ]);
    expect(parse("go.mod", mod).map((entry) => [entry.name, entry.direct])).toEqual([
      ["github.com/a/b", true],
      ["golang.org/x/c", false],
      ["github.com/d/e", true],
    ]);
  });
  it("Poetry and uv: direct ones from pyproject.toml", () => {
    const lock =
      '[[package]]\nname = "Typing_Extensions"\nversion = "4.0.0"\n\n[package.dependencies]\nversion = "no"\n\n[[package]]\nname = "requests"\nversion = "2.31.0"\n\n[[package]]\nname = "own"\nversion = "0.1"\nsource = { editable = "." }\n';
    const project = '[project]\nname = "own"\ndependencies = [\n  "requests>=2",\n]\n';
    const poetry =
      '[tool.poetry.dependencies]\npython = "^3"\nrequests = "^2"\n\n[tool.poetry.group.dev.dependencies]\ntyping-extensions = "*"\n';
    expect(parse("uv.lock", lock, { "pyproject.toml": project }).map((entry) => [entry.name, entry.direct])).toEqual([
      ["Typing_Extensions", false],
      ["requests", true],
    ]);
    expect(parse("poetry.lock", lock, { "pyproject.toml": poetry }).map((entry) => entry.direct)).toEqual([true, true]);
    expect(parse("poetry.lock", lock)[0]).not.toHaveProperty("direct");
  });
  it("requirements.txt: what is pinned and what is not", () => {
    const text =
      "# c\nrequests==2.31.0\nDjango>=4,<5  # why\nflask[async]\n-r other.txt\ngit+https://x/y\nnumpy==1.0 ; python_version < '3'\n";
    const packages = parse("requirements.txt", text);
    expect(packages.map((entry) => [entry.name, entry.version])).toEqual([
      ["requests", "2.31.0"],
      ["Django", ">=4,<5"],
      ["flask", "any"],
      ["numpy", "1.0"],
    ]);
    expect(summarise(packages).unpinned).toBe(2);
  });
  it("Bundler: platform variants are one version", () => {
    const text =
      "GEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.16.0-x86_64-linux)\n      racc (~> 1.4)\n    nokogiri (1.16.0)\n    racc (1.7.3)\n\nPATH\n  remote: .\n  specs:\n    own (0.1.0)\n\nDEPENDENCIES\n  nokogiri (~> 1.16)\n  own!\n";
    expect(summarise(parse("Gemfile.lock", text))).toMatchObject({ packages: 2, direct: 1, duplicates: [] });
  });
  it("Composer: abandoned packages stand out", () => {
    const lock = {
      packages: [{ name: "a/b", version: "1.0", license: ["MIT"], abandoned: "c/d" }],
      "packages-dev": [{ name: "e/f", version: "2.0" }],
    };
    expect(parse("composer.lock", JSON.stringify(lock), { "composer.json": '{"require":{"a/b":"*"}}' })).toEqual([
      { name: "a/b", version: "1.0", direct: true, license: "MIT", flag: "deprecated" },
      { name: "e/f", version: "2.0", direct: false, dev: true },
    ]);
  });
  it("Pipenv: default and develop", () => {
    expect(parse("Pipfile.lock", '{"default":{"a":{"version":"==1.0"}},"develop":{"b":{"version":"==2.0"}}}')).toEqual([
      { name: "a", version: "1.0" },
      { name: "b", version: "2.0", dev: true },
    ]);
  });
  it("are summed up: several versions of one name are told, the same twice is one", () => {
    const summary = summarise([
      { name: "a", version: "10.0.0", direct: true },
      { name: "a", version: "9.0.0", direct: false },
      { name: "a", version: "9.0.0", direct: false },
      { name: "__proto__", version: "1" },
    ]);
    expect(summary).toMatchObject({
      packages: 3,
      direct: 1,
      duplicates: [{ name: "a", versions: ["9.0.0", "10.0.0"] }],
    });
  });
});
