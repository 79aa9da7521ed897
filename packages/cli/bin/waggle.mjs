#!/usr/bin/env node
import { existsSync } from "node:fs";
import module from "node:module";

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
const main = new URL("../dist/main.mjs", import.meta.url);
if (major < 20 || (major === 20 && minor < 15)) {
  process.stderr.write(`waggle: needs Node 20.15 or newer; this is ${process.versions.node}. See https://nodejs.org\n`);
  process.exitCode = 2;
} else if (!existsSync(main)) {
  process.stderr.write("waggle: not built yet. Run: node build.mjs\n");
  process.exitCode = 2;
} else {
  // Keeps compiled code between starts; Node 22.1 and newer.
  module.enableCompileCache?.();
  const { main: run } = await import(main.href);
  await run();
}
