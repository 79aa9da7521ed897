export { type EmbeddedEngine, type EmbeddedOptions, openEmbedded } from "./engine.ts";
export { diskFiles, type LogFiles } from "./log.ts";
