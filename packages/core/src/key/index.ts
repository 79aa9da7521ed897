export { hashOf, onRevoked } from "../secret.ts";
export { bearerOf } from "./bearer.ts";
export * as Key from "./index.ts";
export { adopt, authenticate, bootstrap, create, firstTenant, list, revoke } from "./key.ts";
export * from "./schema.ts";
