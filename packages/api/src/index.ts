export { type App, type AppOptions, createApp } from "./app.ts";
export type { Answer, Route } from "./route.ts";
export { routes } from "./routes/index.ts";
export { createServer, type RunningServer, type ServerOptions } from "./server.ts";
