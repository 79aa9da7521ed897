export { page } from "./export.ts";
export * from "./file.ts";
export { type Result, take } from "./import.ts";
export * as Transfer from "./index.ts";
export * from "./request.ts";
export * from "./schema.ts";
