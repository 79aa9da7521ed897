import type { Route } from "../route.ts";
import { agentRoutes } from "./agent.ts";
import { deadLetterRoutes } from "./deadletter.ts";
import { docsRoutes } from "./docs.ts";
import { statusRoutes } from "./status.ts";
import { taskRoutes } from "./task.ts";
import { tenantRoutes } from "./tenant.ts";
import { transferRoutes } from "./transfer.ts";

/** Every call of the API, in the order of the docs. */
export const routes: readonly Route[] = [
  ...agentRoutes,
  ...taskRoutes,
  ...deadLetterRoutes,
  ...statusRoutes,
  ...tenantRoutes,
  ...docsRoutes,
  ...transferRoutes,
];
