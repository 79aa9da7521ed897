export { page } from "./export.ts";
export * from "./file.ts";
export { take } from "./import.ts";
export * as Transfer from "./index.ts";
export * from "./request.ts";
export type { Result } from "./result.ts";
export * from "./schema.ts";
