export { type EmbeddedEngine, type EmbeddedOptions, openEmbedded } from "./engine.ts";
