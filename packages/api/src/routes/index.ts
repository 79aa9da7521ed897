import type { Route } from "../route.ts";
import { agentRoutes } from "./agent.ts";
import { deadLetterRoutes } from "./deadletter.ts";
import { systemRoutes } from "./system.ts";
import { taskRoutes } from "./task.ts";
import { transferRoutes } from "./transfer.ts";

/** Every call of the API, in the order of the docs. */
export const routes: readonly Route[] = [
  ...agentRoutes,
  ...taskRoutes,
  ...deadLetterRoutes,
  ...systemRoutes,
  ...transferRoutes,
];
