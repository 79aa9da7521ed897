import { EventLog, Key, Limit, Quota, Retention, requestErrors } from "@waggle/core";
import { KeyAnswer, KeyList, LimitAnswer, LimitList, QuotaAnswer, RetentionAnswer } from "../answers.ts";
import { admins, everyone, json, operators, type Param, type Route, route } from "../route.ts";
import { declared, idParam, Page } from "./common.ts";

const limitKey: Param = {
  schema: Limit.LimitKey,
  missing: () =>
    requestErrors.invalid("the limit's key is empty, too long or has control characters", {
      errors: [{ path: "key", message: "expected 1 to 256 characters, no control characters" }],
    }),
};
const tenantParam: Param = {
  schema: Key.tenantName,
  missing: () =>
    requestErrors.invalid("that is no name of a tenant", {
      errors: [{ path: "tenant", message: "expected 1 to 63 of a-z, 0-9 and -, not starting with -" }],
    }),
};
const keyNotFound = declared("key.not_found");

/** What is settled for a tenant: keys, events for the bus, retention, quotas, limits. */
export const tenantRoutes: readonly Route[] = [
  route({
    method: "POST",
    path: "/v1/keys",
    id: "createKey",
    tag: "System",
    summary: "Create a key",
    description:
      "The answer carries the key, which is shown only once. Only an admin of the first tenant may name another tenant.",
    roles: admins,
    body: Key.Create,
    idempotent: "answer",
    responses: { 201: { description: "The key", schema: KeyAnswer } },
    errors: [],
    async handler({ scope, body }) {
      const { info, key } = await Key.create(scope, body);
      return json(JSON.stringify({ ...info, key }), 201);
    },
  }),
  route({
    method: "GET",
    path: "/v1/keys",
    id: "listKeys",
    tag: "System",
    summary: "List the tenant's keys, never the secrets",
    roles: admins,
    query: Page,
    responses: { 200: { description: "A page of keys", schema: KeyList } },
    errors: [],
    handler: async ({ scope, query }) => json(JSON.stringify(await Key.list(scope, query))),
  }),
  route({
    method: "DELETE",
    path: "/v1/keys/{id}",
    id: "revokeKey",
    tag: "System",
    summary: "Revoke a key, at once",
    roles: admins,
    params: { id: idParam("key", "key", keyNotFound) },
    responses: { 204: { description: "Revoked" } },
    errors: [keyNotFound, declared("key.last_admin")],
    async handler({ scope, params }) {
      await Key.revoke(scope, params.id as string);
      return { status: 204 };
    },
  }),
  route({
    method: "PUT",
    path: "/v1/subscriptions",
    id: "putSubscriptions",
    tag: "System",
    summary: "Set which events go to the event bus",
    description:
      "EventBridge rules can act on them: the source is `waggle`, and the type is in `detail-type`. `task.*` stands for a family; an empty list " +
      "stops them. The event log always has all events.",
    roles: operators,
    body: EventLog.Subscription,
    responses: { 200: { description: "What goes to the bus from now on", schema: EventLog.Subscription } },
    errors: [],
    handler: async ({ scope, body }) => json(JSON.stringify(await EventLog.subscribe(scope, body))),
  }),
  route({
    method: "GET",
    path: "/v1/subscriptions",
    id: "getSubscriptions",
    tag: "System",
    summary: "Show which events go to the event bus",
    roles: everyone,
    responses: { 200: { description: "What goes to the bus", schema: EventLog.Subscription } },
    errors: [],
    handler: async ({ scope }) => json(JSON.stringify(await EventLog.subscription(scope))),
  }),
  route({
    method: "PUT",
    path: "/v1/retention",
    id: "putRetention",
    tag: "System",
    summary: "Set how long finished tasks and events are kept",
    description:
      "In seconds; 0 means for ever, and what is left out stays as it is. Tasks that have already finished follow in the background; events " +
      "already written keep their time.",
    roles: operators,
    body: Retention.Put,
    responses: { 200: { description: "What holds from now on", schema: RetentionAnswer } },
    errors: [],
    handler: async ({ scope, body }) => json(JSON.stringify({ retention: await Retention.put(scope, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/retention",
    id: "getRetention",
    tag: "System",
    summary: "Show how long finished tasks and events are kept",
    roles: everyone,
    responses: { 200: { description: "Seconds; 0: for ever", schema: RetentionAnswer } },
    errors: [],
    handler: async ({ scope }) => json(JSON.stringify({ retention: await Retention.get(scope) })),
  }),
  route({
    method: "PUT",
    path: "/v1/quotas/{tenant}",
    id: "putQuotas",
    tag: "System",
    summary: "Set the quotas of a tenant",
    description:
      "For admins of the first tenant. What is left out is not limited. What exceeds a quota is refused: with 403 if something has to be " +
      "deleted first, with 429 if it passes by itself.",
    roles: admins,
    params: { tenant: tenantParam },
    body: Quota.Quotas,
    responses: { 200: { description: "The quotas and what is used of them", schema: QuotaAnswer } },
    errors: [],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ quota: await Quota.put(scope, params.tenant as string, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/quotas/{tenant}",
    id: "getQuotas",
    tag: "System",
    summary: "Show the quotas of a tenant and what is used of them",
    description: "Another tenant's only with a key of the first tenant.",
    roles: operators,
    params: { tenant: tenantParam },
    responses: { 200: { description: "The quotas and what is used of them", schema: QuotaAnswer } },
    errors: [],
    handler: async ({ scope, params }) =>
      json(JSON.stringify({ quota: await Quota.get(scope, params.tenant as string) })),
  }),
  route({
    method: "PUT",
    path: "/v1/limits/{key}",
    id: "putLimit",
    tag: "System",
    summary: "Set the limits of a key",
    description: "They override what tasks ask for. What is left out no longer applies.",
    roles: operators,
    params: { key: limitKey },
    body: Limit.Put,
    responses: { 200: { description: "The limit and its use", schema: LimitAnswer } },
    errors: [],
    handler: async ({ scope, params, body }) =>
      json(JSON.stringify({ limit: await Limit.put(scope, params.key as string, body) })),
  }),
  route({
    method: "GET",
    path: "/v1/limits/{key}",
    id: "getLimit",
    tag: "System",
    summary: "Show the limits of a key and their use",
    description: "For a key that nobody has used, all counts are zero.",
    roles: everyone,
    params: { key: limitKey },
    responses: { 200: { description: "The limit and its use", schema: LimitAnswer } },
    errors: [],
    handler: async ({ scope, params }) => json(JSON.stringify({ limit: await Limit.get(scope, params.key as string) })),
  }),
  route({
    method: "DELETE",
    path: "/v1/limits/{key}",
    id: "removeLimit",
    tag: "System",
    summary: "Remove the limits of a key",
    description: "What tasks ask for applies again, at once.",
    roles: operators,
    params: { key: limitKey },
    responses: { 204: { description: "Removed" } },
    errors: [declared("limit.not_found")],
    async handler({ scope, params }) {
      await Limit.remove(scope, params.key as string);
      return { status: 204 };
    },
  }),
  route({
    method: "GET",
    path: "/v1/limits",
    id: "listLimits",
    tag: "System",
    summary: "List the limits that operators have set, by key",
    roles: everyone,
    query: Page,
    responses: { 200: { description: "A page of limits", schema: LimitList } },
    errors: [],
    handler: async ({ scope, query }) => json(JSON.stringify(await Limit.list(scope, query))),
  }),
];
