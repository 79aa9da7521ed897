import { json, type Route, route } from "../route.ts";

/** The API about itself. What these answer is loaded when it is first asked for: a start should not wait for it. */
export const docsRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/openapi.json",
    id: "getOpenApi",
    tag: "System",
    summary: "Get this API as an OpenAPI 3.1 document; no key needed",
    roles: "public",
    responses: { 200: { description: "The document", type: "application/json" } },
    errors: [],
    async handler({ shared }) {
      const { openApiText } = await import("../openapi.ts");
      return json(openApiText(shared.version, shared.routes));
    },
  }),
  route({
    method: "GET",
    path: "/docs",
    id: "getDocs",
    tag: "System",
    summary: "Get a page to read and try this API; no key needed",
    roles: "public",
    responses: { 200: { description: "The page", type: "text/html" } },
    errors: [],
    handler: async () => (await import("../docs/index.ts")).docsPage(),
  }),
];
