export * from "./error.ts";
export * from "./id.ts";
export * from "./json.ts";
export * from "./port/index.ts";
export * from "./scope.ts";
