export { commands } from "./commands.ts";
export { type AgentMessage, type Connection, connect } from "./connect.ts";
export * from "./frame.ts";
export * as Agent from "./index.ts";
export { lease } from "./lease.ts";
export { heartbeat, seen, timeUp } from "./liveness.ts";
export { drain, get, list, pause, register, remove, resume, update } from "./manage.ts";
export { type Row, toJson } from "./row.ts";
export * from "./schema.ts";
