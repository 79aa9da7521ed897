export { type EmbeddedEngine, type EmbeddedOptions, openEmbedded } from "./engine.ts";
export { diskFiles, type LogFiles, syncFolder } from "./log.ts";
