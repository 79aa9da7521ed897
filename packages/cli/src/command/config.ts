import { chmodSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { configPath, findConnection, readConfig } from "@waggle/sdk";
import { type CommonOptions, formatOf } from "../context.ts";
import { exit, Failure, usage } from "../failure.ts";
import { fields } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { readAll } from "../parse.ts";
import { document, formats, isDocument } from "../print.ts";

export const names = ["url", "key", "output"] as const;
type Name = (typeof names)[number];

function checked(name: string): Name {
  if (!names.includes(name as Name)) throw usage(`there is no setting "${name}"`, `one of ${names.join(", ")}`);
  return name as Name;
}

/** Beside the old file, then in its place: a crash leaves one or the other. The key in it is for its owner alone. */
function write(settings: Record<string, string>): void {
  const path = configPath();
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.new`, `${JSON.stringify(settings, null, 2)}\n`, { mode: 0o600 });
  chmodSync(`${path}.new`, 0o600);
  renameSync(`${path}.new`, path);
}

export async function getSetting(io: Io, name: string): Promise<number> {
  const value = readConfig()[checked(name)];
  if (value === undefined) throw new Failure(exit.notFound, `${name} is not set`, `waggle config set ${name} VALUE`);
  io.out(`${value}\n`);
  return exit.ok;
}

export async function setSetting(io: Io, text: string, given: string | undefined): Promise<number> {
  const name = checked(text);
  if (given === undefined && io.stdinIsTty)
    throw usage(`give a value for ${name}`, `waggle config set ${name} VALUE, or pipe it in`);
  const value = (given ?? (await readAll(io.stdin))).trim();
  if (value === "") throw usage(`the value of ${name} is empty`, `waggle config unset ${name} forgets it`);
  if (name === "output" && !(formats as readonly string[]).includes(value))
    throw usage(`output "${value}" is none of ${formats.join(", ")}`);
  if (name === "url" && !/^https?:\/\/[^\s/]+/.test(value))
    throw usage(`"${value}" is not a server address`, "write http://… or https://…");
  write({ ...readConfig(), [name]: value });
  return exit.ok;
}

export async function unsetSetting(_io: Io, text: string): Promise<number> {
  const { [checked(text)]: _, ...rest } = readConfig();
  write(rest);
  return exit.ok;
}

/** Enough to tell a key by. */
export const masked = (key: string | undefined): string => (key === undefined ? "none" : `${key.slice(0, 8)}…`);

export async function listSettings(io: Io, options: CommonOptions): Promise<number> {
  const { key, ...rest } = readConfig();
  const settings = { ...rest, ...(key !== undefined && { key: masked(key) }) };
  const used = findConnection();
  const format = formatOf(options);
  if (isDocument(format)) {
    await document(io, format, {
      file: configPath(),
      settings,
      used: { url: used.url, key: masked(used.key), source: used.source },
    });
    return exit.ok;
  }
  const paint = painter(io.colour);
  io.out(`${paint("bold", configPath())}\n`);
  io.out(Object.keys(settings).length > 0 ? fields(Object.entries(settings), io, "  ") : "  nothing is set\n");
  io.out(`${paint("bold", "Used now")}\n`);
  io.out(
    fields(
      [
        ["url", `${used.url}  (from ${used.source.url})`],
        ["key", `${masked(used.key)}  (from ${used.source.key})`],
      ],
      io,
      "  ",
    ),
  );
  return exit.ok;
}
