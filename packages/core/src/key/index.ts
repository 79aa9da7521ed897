export type { Actor } from "../scope.ts";
export * as Key from "./index.ts";
export { authenticate, bootstrap, create, firstTenant, list, revoke } from "./key.ts";
export * from "./schema.ts";
