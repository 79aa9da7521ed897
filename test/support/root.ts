import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const above = (folder: string): string => (existsSync(join(folder, "ts.mjs")) ? folder : above(dirname(folder)));

/** The repository's folder, wherever the compiled file lies. */
export const root = above(dirname(fileURLToPath(import.meta.url)));
