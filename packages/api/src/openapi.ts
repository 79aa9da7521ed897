import {
  Agent,
  AgentFrame,
  DeadLetter,
  type ErrorKind,
  EventLog,
  errorKinds,
  jsonLimits,
  Key,
  Limit,
  problemType,
  requestErrors,
  ServerFrame,
  storeErrors,
  Task,
  TransferRequest,
} from "@waggle/core";
import { Transfer } from "@waggle/core/transfer";
import * as z from "zod/mini";
import * as answers from "./answers.ts";
import type { Route } from "./route.ts";

type Json = Record<string, unknown>;

/** Schemas of requests and of answers have names of their own: a default makes a field optional in one alone. */
const requestNames: Readonly<Record<string, z.ZodMiniType>> = {
  RegisterAgent: Agent.Register,
  UpdateAgent: Agent.Patch,
  Capability: Agent.Capability,
  Delivery: Agent.Delivery,
  LeaseTasks: Agent.Lease,
  AgentHeartbeat: Agent.Heartbeat,
  AgentFrame,
  CreateTask: Task.Create,
  CreateTasks: Task.CreateBatch,
  CreateTaskEntry: Task.BatchEntry,
  Requirement: Task.Requirement,
  LabelSelector: Task.Selector,
  RetryPolicy: Task.Retry,
  Timeouts: Task.Timeouts,
  ConcurrencyLimit: Task.ConcurrencyLimit,
  RateLimit: Task.RateLimit,
  StartTask: Task.Start,
  TaskHeartbeat: Task.Heartbeat,
  CompleteTask: Task.Complete,
  FailTask: Task.Fail,
  TaskError: Task.Problem,
  ReleaseTask: Task.Release,
  CancelTask: Task.Cancel,
  Redrive: DeadLetter.Redrive,
  CreateKey: Key.Create,
  PutLimit: Limit.Put,
  ImportRecords: TransferRequest.Import,
};
const answerNames: Readonly<Record<string, z.ZodMiniType>> = {
  Agent: Agent.Info,
  AgentDelivery: Agent.DeliveryInfo,
  AgentAnswer: answers.AgentAnswer,
  AgentList: answers.AgentList,
  AgentRegistered: answers.RegisteredAnswer,
  AgentUpdated: answers.UpdatedAnswer,
  Assignment: Task.Assignment,
  Assignments: answers.AssignmentsAnswer,
  Commands: Agent.Commands,
  CommandsAnswer: answers.CommandsAnswer,
  ServerFrame,
  Task: Task.Info,
  TaskAnswer: answers.TaskAnswer,
  TaskList: answers.TaskList,
  TaskEnded: answers.EndedAnswer,
  TasksCreated: answers.BatchAnswer,
  Explanation: answers.Explanation,
  Event: EventLog.Info,
  EventList: answers.EventList,
  RedriveAnswer: answers.RedriveAnswer,
  Health: answers.Health,
  Status: answers.FleetStatus,
  Key: Key.Info,
  KeyCreated: answers.KeyAnswer,
  KeyList: answers.KeyList,
  Limit: Limit.Info,
  LimitAnswer: answers.LimitAnswer,
  LimitList: answers.LimitList,
  TransferRecord: Transfer.Record,
  ExportPage: answers.ExportAnswer,
  ImportAnswer: answers.ImportAnswer,
};

const ref = (name: string) => `#/components/schemas/${name}`;
const options = {
  target: "draft-2020-12",
  unrepresentable: "any",
  override({ zodSchema, jsonSchema }: { zodSchema: z.core.$ZodTypes; jsonSchema: z.core.JSONSchema.BaseSchema }) {
    const payload = jsonSchema.payload === true;
    if (payload) for (const key of Object.keys(jsonSchema)) delete jsonSchema[key];
    // A regular expression that only ECMAScript's `u` flag understands is no use to others.
    if (zodSchema._zod.def.type === "string" && jsonSchema.pattern?.includes("\\p{")) delete jsonSchema.pattern;
  },
} as const;

function components(names: Readonly<Record<string, z.ZodMiniType>>, io: "input" | "output"): Record<string, Json> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(names)) registry.add(schema, { id });
  const { schemas } = z.toJSONSchema(registry, { ...options, io, uri: ref });
  return Object.fromEntries(
    Object.entries(schemas).map(([id, { $schema: _, $id: __, ...schema }]) => [id, schema as Json]),
  );
}

function inline(schema: z.ZodMiniType): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { ...options, io: "input" });
  return rest as Json;
}

/** What any call with a key can meet. */
const common: readonly ErrorKind[] = [
  requestErrors.invalid,
  requestErrors.unauthenticated,
  requestErrors.forbidden,
  requestErrors.tooMany,
  requestErrors.internal,
  requestErrors.notReady,
  storeErrors.unavailable,
];

/** @returns the problems a call can answer */
export function errorsOf(route: Route): ErrorKind[] {
  const kinds = new Set<ErrorKind>(route.roles === "public" ? [requestErrors.internal] : common);
  for (const kind of route.errors) kinds.add(kind);
  if (route.body !== undefined)
    kinds.add(requestErrors.unsupportedMediaType).add(requestErrors.tooLarge).add(storeErrors.itemTooLarge);
  if (route.idempotent !== undefined) kinds.add(requestErrors.idempotencyMismatch);
  if (route.idempotent === "answer") kinds.add(requestErrors.idempotencyBusy);
  return [...kinds];
}

function operation(route: Route, names: ReadonlyMap<z.ZodMiniType, string>): Json {
  const schemaOf = (schema: z.ZodMiniType): Json => {
    const name = names.get(schema);
    return name === undefined ? inline(schema) : { $ref: ref(name) };
  };
  const parameters: Json[] = Object.entries(route.params ?? {}).map(([name, { schema }]) => ({
    name,
    in: "path",
    required: true,
    schema: inline(schema),
  }));
  if (route.query !== undefined) {
    const { properties = {}, required = [] } = inline(route.query) as { properties?: Json; required?: string[] };
    for (const [name, schema] of Object.entries(properties)) {
      parameters.push({ name, in: "query", required: required.includes(name), schema });
    }
  }
  if (route.idempotent !== undefined) parameters.push({ $ref: "#/components/parameters/IdempotencyKey" });
  if (route.streams) parameters.push({ $ref: "#/components/parameters/LastEventId" });
  const headers = { ...answerHeaders, ...(route.idempotent !== undefined && replayedHeader) };
  const responses: Json = {};
  for (const [status, { description, schema, type }] of Object.entries(route.responses)) {
    const content =
      schema === undefined ? type && { [type]: {} } : { [type ?? "application/json"]: { schema: schemaOf(schema) } };
    if (content && route.streams) {
      Object.assign(content, { "text/event-stream": { schema: { type: "string" } } });
    }
    responses[status] = { description, headers, ...(content && { content }) };
  }
  const byStatus = new Map<number, ErrorKind[]>();
  for (const kind of errorsOf(route)) byStatus.set(kind.status, [...(byStatus.get(kind.status) ?? []), kind]);
  for (const [status, kinds] of byStatus) {
    if (responses[status] !== undefined) continue;
    responses[status] = {
      description: kinds.map(({ code, title }) => `\`${code}\`: ${title}`).join("  \n"),
      headers: { ...answerHeaders, ...(status === 429 || status === 503 ? retryHeader : {}) },
      content: {
        [problemType]: {
          schema: {
            allOf: [{ $ref: ref("Problem") }],
            properties: { code: { enum: kinds.map(({ code }) => code) } },
          },
        },
      },
    };
  }
  return {
    operationId: route.id,
    tags: [route.tag],
    summary: route.summary,
    ...(route.description && { description: route.description }),
    "x-roles": route.roles === "public" ? [] : route.roles,
    security: route.roles === "public" ? [] : [{ bearer: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(route.body && {
      requestBody: {
        required: !route.bodyOptional,
        content: { "application/json": { schema: schemaOf(route.body) } },
      },
    }),
    responses,
  };
}

const answerHeaders = {
  "X-Request-Id": { $ref: "#/components/headers/RequestId" },
  "Server-Timing": { $ref: "#/components/headers/ServerTiming" },
} as const;
const replayedHeader = { "Idempotency-Replayed": { $ref: "#/components/headers/IdempotencyReplayed" } } as const;
const retryHeader = { "Retry-After": { $ref: "#/components/headers/RetryAfter" } } as const;

/** The OpenAPI 3.1 document of the routes. */
export function openApi(version: string, routes: readonly Route[]): Json {
  const paths: Record<string, Json> = {};
  const names = new Map(
    [...Object.entries(requestNames), ...Object.entries(answerNames)].map(([name, schema]) => [schema, name]),
  );
  for (const route of routes) {
    paths[route.path] ??= {};
    (paths[route.path] as Json)[route.method.toLowerCase()] = operation(route, names);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Waggle",
      version,
      description:
        "A control plane for fleets of AI agents.\n\n" +
        `A body has at most ${jsonLimits.bodyBytes} bytes and ${jsonLimits.depth} levels, an object in it outside payloads at most ` +
        `${jsonLimits.members} members. It is sent as it is, without Content-Encoding. Payloads (input, result, metadata, details) are any JSON ` +
        "and come back exactly as they were written. Unknown fields and unknown query parameters are refused. Times are RFC 3339 in UTC; " +
        "durations are numbers with the unit in the name.",
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    tags: ["Agents", "Tasks", "Dead letters", "System"].map((name) => ({ name })),
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", description: "A key, or the token of an agent." },
      },
      parameters: {
        IdempotencyKey: {
          name: "Idempotency-Key",
          in: "header",
          required: false,
          description: "Repeating the call with the same key and body within 24 h answers the same again.",
          schema: { type: "string", minLength: 1, maxLength: 255, pattern: "^[\\x20-\\x7e]+$" },
        },
        LastEventId: {
          name: "Last-Event-ID",
          in: "header",
          required: false,
          description: "For a stream: the sequence number of the last event that was read. It holds over `after`.",
          schema: { type: "string", pattern: "^\\d{1,15}$" },
        },
      },
      headers: {
        RequestId: { description: "The caller's, or a new one.", schema: { type: "string", maxLength: 128 } },
        ServerTiming: { description: "`app;dur=` milliseconds.", schema: { type: "string" } },
        IdempotencyReplayed: {
          description: "This was answered before, to the same Idempotency-Key.",
          schema: { const: "true" },
        },
        RetryAfter: { description: "Seconds.", schema: { type: "integer", minimum: 1 } },
      },
      schemas: { ...components(requestNames, "input"), ...components(answerNames, "output"), Problem: problem() },
    },
  };
}

const problem = (): Json => ({
  type: "object",
  description: "RFC 9457 problem details. Some codes carry further members, e.g. `task` with `task.lease_lost`.",
  required: ["type", "title", "status", "code", "detail"],
  properties: {
    type: { type: "string", format: "uri" },
    title: { type: "string" },
    status: { type: "integer" },
    code: { type: "string", enum: [...errorKinds.keys()].sort() },
    detail: { type: "string" },
    errors: {
      type: "array",
      items: {
        type: "object",
        required: ["path", "message"],
        properties: { path: { type: "string" }, message: { type: "string" } },
      },
    },
    requestId: { type: "string" },
  },
});

let made: { readonly version: string; readonly text: string } | undefined;

/** The document as text, made on first use. */
export function openApiText(version: string, routes: readonly Route[]): string {
  if (made?.version !== version) made = { version, text: JSON.stringify(openApi(version, routes)) };
  return made.text;
}
