/** One locked (or merely wished for) package. `direct` is left out where the file does not say. */
export type Package = {
  name: string;
  version: string;
  direct?: boolean;
  dev?: boolean;
  license?: string;
  flag?: "deprecated" | "install script" | "not from a registry";
};

/** Text of neighbouring files that say which packages are direct: a manifest by its name. */
export type Neighbours = Readonly<Record<string, string | undefined>>;
type Parse = (text: string, near: Neighbours) => Package[];

const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
const string = (value: unknown) => (typeof value === "string" ? value : undefined);
const keysOf = (value: unknown, ...names: string[]) =>
  names.flatMap((name) => Object.keys(record(record(value)[name])));
const json = (text: string | undefined): Record<string, unknown> => {
  try {
    return record(JSON.parse(text ?? "{}"));
  } catch {
    return {};
  }
};
const npmKinds = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];

const npm: Parse = (text) => {
  const lock = record(JSON.parse(text));
  const entries = Object.entries(record(lock.packages));
  if (entries.length === 0) {
    // Version 1 has a tree of `dependencies`, with no word on which are direct.
    const walk = (tree: unknown): Package[] =>
      Object.entries(record(tree)).flatMap(([name, value]) => {
        const entry = record(value);
        return [
          { name, version: string(entry.version) ?? "?", ...(entry.dev === true ? { dev: true } : {}) },
          ...walk(entry.dependencies),
        ];
      });
    return walk(lock.dependencies);
  }
  const direct = new Set(
    entries.filter(([path]) => !path.includes("node_modules/")).flatMap(([, value]) => keysOf(value, ...npmKinds)),
  );
  return entries.flatMap(([path, value]) => {
    const entry = record(value);
    const at = path.lastIndexOf("node_modules/");
    if (at < 0 || entry.link === true) return [];
    const name = string(entry.name) ?? path.slice(at + "node_modules/".length);
    const resolved = string(entry.resolved);
    const flag =
      entry.deprecated !== undefined
        ? "deprecated"
        : entry.hasInstallScript === true
          ? "install script"
          : resolved && /^(git|github:|file:|http:)/.test(resolved)
            ? "not from a registry"
            : undefined;
    const license = string(entry.license);
    return [
      {
        name,
        version: string(entry.version) ?? "?",
        direct: direct.has(name) && path.indexOf("node_modules/") === at,
        ...(entry.dev === true ? { dev: true } : {}),
        ...(license ? { license } : {}),
        ...(flag ? { flag } : {}),
      },
    ];
  });
};

const yarn: Parse = (text, near) => {
  const direct = new Set(keysOf(json(near["package.json"]), ...npmKinds));
  const packages: Package[] = [];
  let names: string[] = [];
  let local = false;
  for (const row of text.split(/\r?\n/)) {
    if (/^\S.*:$/.test(row) && !row.startsWith("#")) {
      names = row
        .slice(0, -1)
        .replaceAll('"', "")
        .split(/,\s*/)
        .map((key) => key.slice(0, key.indexOf("@", 1)));
      local = /@workspace:/.test(row) || row.startsWith("__metadata");
      continue;
    }
    const version = /^ {2}version:? "?([^"\s]+)"?$/.exec(row)?.[1];
    if (version === undefined || local) continue;
    const name = names[0]!;
    packages.push({ name, version, direct: names.some((entry) => direct.has(entry)) });
  }
  return packages;
};

const pnpm: Parse = (text) => {
  const packages: Package[] = [];
  const direct = new Set<string>();
  let section = "";
  let inside = false;
  for (const row of text.split(/\r?\n/)) {
    const top = /^(\w+):/.exec(row)?.[1];
    if (top) {
      section = top;
      inside = npmKinds.includes(top);
      continue;
    }
    if (section === "packages") {
      // `/name@1.2.3(peer@1):`, `name@1.2.3:` or, before version 6, `/name/1.2.3_peer:`
      const key = /^ {2}'?\/?((?:@[^/'@]+\/)?[^/'@(]+)[@/]([^'(:_]+)[^:]*'?:/.exec(row);
      if (key) packages.push({ name: key[1]!, version: key[2]! });
      else if (/^ {4}deprecated:/.test(row) && packages.length > 0) packages.at(-1)!.flag = "deprecated";
      else if (/^ {4}requiresBuild: true/.test(row) && packages.length > 0) packages.at(-1)!.flag ??= "install script";
      continue;
    }
    const importers = section === "importers";
    const heading = importers ? /^ {4}(\w+):$/.exec(row)?.[1] : undefined;
    if (heading) {
      inside = npmKinds.includes(heading);
      continue;
    }
    if (importers && /^ {2}\S/.test(row)) inside = false;
    const name = inside ? (importers ? /^ {6}'?([^\s:']+)'?:/ : /^ {2}'?([^\s:']+)'?:/).exec(row)?.[1] : undefined;
    if (name) direct.add(name);
  }
  const seen = new Set<string>();
  return packages.flatMap((entry) => {
    const key = `${entry.name}@${entry.version}`;
    if (seen.has(key)) return [];
    seen.add(key);
    return [{ ...entry, direct: direct.has(entry.name) }];
  });
};

const bun: Parse = (text) => {
  // JSON with commas at the end of lists, and nothing else that JSON has not.
  const lock = record(JSON.parse(text.replace(/,(\s*[}\]])/g, "$1")));
  const direct = new Set(Object.values(record(lock.workspaces)).flatMap((entry) => keysOf(entry, ...npmKinds)));
  return Object.entries(record(lock.packages)).flatMap(([path, value]) => {
    const locked = Array.isArray(value) ? string(value[0]) : undefined;
    const at = locked?.indexOf("@", 1) ?? -1;
    if (!locked || at < 0 || locked.slice(at + 1).startsWith("workspace:")) return [];
    const name = locked.slice(0, at);
    return [{ name, version: locked.slice(at + 1), direct: path === name && direct.has(name) }];
  });
};

/** The `[[package]]` tables of Cargo, Poetry and uv, of which a few plain keys are needed. */
const tomlPackages = (text: string) =>
  text
    .split(/^\[\[package\]\]\s*$/m)
    .slice(1)
    .map((body) => {
      const own = body.split(/^\[(?!\[?package\.)/m)[0]!;
      const value = (key: string) => new RegExp(`^${key}\\s*=\\s*"([^"\\n]*)"`, "m").exec(own)?.[1];
      const list = /^dependencies\s*=\s*\[([\s\S]*?)\n?\]/m.exec(own)?.[1] ?? "";
      return { name: value("name"), version: value("version"), source: value("source"), own, dependencies: list };
    });

const cargo: Parse = (text) => {
  const tables = tomlPackages(text);
  const local = tables.filter((table) => table.source === undefined);
  const direct = new Set(
    local.flatMap((table) => [...table.dependencies.matchAll(/"([^" ]+)/g)].map((match) => match[1]!)),
  );
  return tables.flatMap(({ name, version, source }) =>
    name && version && source
      ? [
          {
            name,
            version,
            direct: direct.has(name),
            ...(source.startsWith("git+") ? { flag: "not from a registry" as const } : {}),
          },
        ]
      : [],
  );
};

const pythonName = (name: string) => name.toLowerCase().replace(/[-_.]+/g, "-");
const pyprojectDirect = (text: string | undefined) => {
  const direct = new Set<string>();
  if (!text) return direct;
  for (const list of text.matchAll(/^[\w-]+\s*=\s*\[([\s\S]*?)^\s*\]|^dependencies\s*=\s*\[(.*)\]/gm))
    for (const item of (list[1] ?? list[2] ?? "").matchAll(/["']([A-Za-z0-9][\w.-]*)/g))
      direct.add(pythonName(item[1]!));
  for (const table of text.matchAll(
    /^\[tool\.poetry(?:\.group\.[\w-]+)?\.(?:dev-)?dependencies\]\n([\s\S]*?)(?=^\[|$(?![\s\S]))/gm,
  ))
    for (const item of table[1]!.matchAll(/^([A-Za-z0-9][\w.-]*)\s*=/gm)) direct.add(pythonName(item[1]!));
  return direct;
};
const poetry: Parse = (text, near) => {
  const direct = pyprojectDirect(near["pyproject.toml"]);
  return tomlPackages(text).flatMap(({ name, version, own }) =>
    name && version && !/source\s*=\s*\{\s*(editable|virtual|workspace)/.test(own)
      ? [{ name, version, ...(near["pyproject.toml"] === undefined ? {} : { direct: direct.has(pythonName(name)) }) }]
      : [],
  );
};

const pipenv: Parse = (text) => {
  const lock = record(JSON.parse(text));
  return [false, true].flatMap((dev) =>
    Object.entries(record(lock[dev ? "develop" : "default"])).map(([name, value]) => ({
      name,
      version: (string(record(value).version) ?? "?").replace(/^==/, ""),
      ...(dev ? { dev } : {}),
    })),
  );
};

const pip: Parse = (text) =>
  text.split(/\r?\n/).flatMap((row) => {
    const match =
      /^\s*([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?\s*(?:(===?)\s*([^\s;#,]+)|([<>~!][^;#]*))?\s*(?:[;#].*|--hash.*|\\)?$/.exec(
        row,
      );
    return match ? [{ name: match[1]!, version: match[3] ?? (match[4]?.trim() || "any"), direct: true }] : [];
  });

const go: Parse = (text) => {
  const rows = [...text.matchAll(/^require\s*\(([\s\S]*?)^\)|^require\s+([^\s(].*)$/gm)].flatMap((match) =>
    (match[1] ?? match[2] ?? "").split("\n"),
  );
  return rows.flatMap((row) => {
    const match = /^\s*([^\s/]\S*)\s+(v\S+)(\s*\/\/\s*indirect)?/.exec(row);
    return match ? [{ name: match[1]!, version: match[2]!, direct: match[3] === undefined }] : [];
  });
};

const goSum: Parse = (text, near) => {
  const direct = new Map(go(near["go.mod"] ?? "", {}).map((entry) => [entry.name, entry.direct === true]));
  return text.split(/\r?\n/).flatMap((row) => {
    const match = /^(\S+) (v\S+) h1:/.exec(row);
    return match && !match[2]!.endsWith("/go.mod")
      ? [
          {
            name: match[1]!,
            version: match[2]!,
            ...(near["go.mod"] === undefined ? {} : { direct: direct.get(match[1]!) ?? false }),
          },
        ]
      : [];
  });
};

const bundler: Parse = (text) => {
  const direct = new Set(
    [...(/^DEPENDENCIES\n((?: {2}.*\n?)*)/m.exec(text)?.[1] ?? "").matchAll(/^ {2}([^\s!(]+)/gm)].map(
      (match) => match[1]!,
    ),
  );
  const specs = [...text.matchAll(/^(GEM|GIT|PATH)\n((?: {2}.*\n?|\n(?= ))*)/gm)].filter(
    (match) => match[1] !== "PATH",
  );
  return specs.flatMap((section) =>
    [...section[2]!.matchAll(/^ {4}(\S+) \(([^)]+)\)/gm)].map((match) => ({
      name: match[1]!,
      version: match[2]!.replace(/-(x86_64|arm64|aarch64|java|x64|universal)[-\w]*$/, ""),
      direct: direct.has(match[1]!),
      ...(section[1] === "GIT" ? { flag: "not from a registry" as const } : {}),
    })),
  );
};

const composer: Parse = (text, near) => {
  const lock = record(JSON.parse(text));
  const direct = new Set(keysOf(json(near["composer.json"]), "require", "require-dev"));
  return [false, true].flatMap((dev) => {
    const list = lock[dev ? "packages-dev" : "packages"];
    return (Array.isArray(list) ? list : []).map((value): Package => {
      const entry = record(value);
      const name = string(entry.name) ?? "?";
      const license = Array.isArray(entry.license)
        ? entry.license.filter((item) => typeof item === "string").join(" OR ")
        : undefined;
      return {
        name,
        version: string(entry.version) ?? "?",
        ...(near["composer.json"] === undefined ? {} : { direct: direct.has(name) }),
        ...(dev ? { dev } : {}),
        ...(license ? { license } : {}),
        ...(entry.abandoned !== undefined && entry.abandoned !== false ? { flag: "deprecated" as const } : {}),
      };
    });
  });
};

export const parsers: Readonly<Record<string, { manager: string; manifests: readonly string[]; parse: Parse }>> = {
  "package-lock.json": { manager: "npm", manifests: ["package.json"], parse: npm },
  "npm-shrinkwrap.json": { manager: "npm", manifests: ["package.json"], parse: npm },
  "yarn.lock": { manager: "yarn", manifests: ["package.json"], parse: yarn },
  "pnpm-lock.yaml": { manager: "pnpm", manifests: ["package.json"], parse: pnpm },
  "bun.lock": { manager: "bun", manifests: ["package.json"], parse: bun },
  "Cargo.lock": { manager: "cargo", manifests: ["Cargo.toml"], parse: cargo },
  "go.sum": { manager: "go", manifests: ["go.mod"], parse: goSum },
  "go.mod": { manager: "go", manifests: [], parse: go },
  "poetry.lock": { manager: "poetry", manifests: ["pyproject.toml"], parse: poetry },
  "uv.lock": { manager: "uv", manifests: ["pyproject.toml"], parse: poetry },
  "Pipfile.lock": { manager: "pipenv", manifests: ["Pipfile"], parse: pipenv },
  "requirements.txt": { manager: "pip", manifests: [], parse: pip },
  "Gemfile.lock": { manager: "bundler", manifests: ["Gemfile"], parse: bundler },
  "composer.lock": { manager: "composer", manifests: ["composer.json"], parse: composer },
};
