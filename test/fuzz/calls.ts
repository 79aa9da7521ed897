import fc from "fast-check";
import { apply, changes, type Place, places } from "./change.ts";
import { evilStrings } from "./evil.ts";
import { fitting, type Known, print, type Schema, type Tree } from "./schema.ts";

export interface Parameter {
  readonly $ref?: string;
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly schema: Schema;
}
export interface Operation {
  readonly operationId: string;
  readonly "x-roles": readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required: boolean; readonly content: Record<string, { readonly schema: Schema }> };
  readonly responses: Readonly<
    Record<
      string,
      { readonly content?: Record<string, { readonly schema?: { readonly properties?: { code?: Schema } } }> }
    >
  >;
}
/** What the server serves at /openapi.json. */
export interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: {
    readonly schemas: Readonly<Record<string, Schema>>;
    readonly parameters: Readonly<Record<string, Parameter>>;
  };
}

export interface Input {
  readonly operation: string;
  readonly method: string;
  /** Path and query, as sent. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  /** The one place that was changed, when that is in the body or a parameter of the query. */
  readonly wrong?: string;
  /** The same without the change. */
  readonly unchanged?: Pick<Input, "target" | "body">;
}

/** What the inputs of a round are about. */
export interface Subjects {
  readonly agents: readonly { readonly id: string; readonly token: string }[];
  /** May be removed. */
  readonly victims: readonly string[];
  readonly tasks: readonly string[];
  readonly keys: readonly string[];
  readonly admin: string;
  /** The tenant of all these. */
  readonly tenant: string;
  /** Another one, whose quotas are set to anything. */
  readonly limited: { readonly tenant: string; readonly admin: string };
  /** Of the first tenant: may set quotas. */
  readonly root: string;
}

/** Values by field: those that are there, and short waits. */
function known(subjects: Subjects): Known {
  const tasks = subjects.tasks;
  const agents = subjects.agents.map(({ id }) => id);
  const byField: Readonly<Record<string, readonly unknown[]>> = {
    agentId: agents,
    parentId: tasks,
    taskId: tasks,
    taskIds: tasks,
    dependsOn: tasks,
    waitSeconds: [0, 0, 0, 0.05],
    fence: [1, 1, 1, 2],
    version: [1, 1, 1, 2],
    // Made in a tenant of its own only.
    tenant: [],
    id: [],
  };
  return (field) => (byField[field]?.length === 0 ? undefined : byField[field]);
}

type Part = readonly [name: string, value: string];
interface Draft {
  /** For the parameter in the path, if there is one. */
  readonly segment: string;
  readonly query: readonly Part[];
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Tree | undefined;
}

const scalarText = (tree: Tree): string => {
  const text = print(tree);
  return text.startsWith('"') ? (JSON.parse(text) as string) : text;
};
const encode = (text: string) => encodeURIComponent(text.toWellFormed());

const pathValues = (path: string, operation: Operation, subjects: Subjects): readonly string[] => {
  if (path.endsWith("{key}")) return ["gpu", "a%2Fb", "two%20words"];
  if (operation.operationId === "putQuotas") return [subjects.limited.tenant];
  if (path.endsWith("{tenant}")) return [subjects.tenant, subjects.limited.tenant];
  if (operation.operationId === "removeAgent") return subjects.victims;
  if (path.startsWith("/v1/agents/")) return subjects.agents.map(({ id }) => id);
  return path.startsWith("/v1/keys/") ? subjects.keys : subjects.tasks;
};

/** Parts of a path that are not what they should be. Sent as they are. */
const evilSegments = fc.oneof(
  fc.constantFrom("%00", "%", "%zz", "%c3%28", "%e0%a4%a", "..%2f..%2fetc", "%2e%2e", "..;", "x".repeat(3000), "%20"),
  fc.constantFrom(
    "tsk_0000000000000000000000",
    "agt_0000000000000000000000",
    "{id}",
    "*",
    "a+b",
    "a;b=c",
    "%F0%9F%90%9D",
  ),
  evilStrings.filter((text) => text.length > 0 && text.length < 4000).map(encode),
);
const evilQuery: fc.Arbitrary<Part> = fc.oneof(
  fc.tuple(
    fc.constantFrom("limit", "cursor", "__proto__", "constructor", "x", ""),
    evilStrings.filter((t) => t.length < 2000).map(encode),
  ),
  fc.constantFrom<Part>(
    ["limit", "1&limit=2"],
    ["limit", "%"],
    ["%zz", "1"],
    ["a[b]", "1"],
    ["limit", "1#x"],
    ["limit", "1;2"],
  ),
);
const latin = evilStrings.map((text) =>
  text
    .replaceAll(/[^\x20-\x7e\xa0-\xff]/g, "?")
    .slice(0, 2000)
    .trim(),
);
const evilHeaders: fc.Arbitrary<Part> = fc.oneof(
  fc.tuple(
    fc.constantFrom(
      ..."authorization content-type content-encoding accept idempotency-key last-event-id traceparent x-request-id".split(
        " ",
      ),
      ..."origin range if-none-match cookie x-forwarded-for x-http-method-override accept-encoding host te".split(" "),
    ),
    latin,
  ),
  fc.constantFrom<Part>(
    ["content-type", "application/x-www-form-urlencoded"],
    ["content-type", "multipart/form-data; boundary=x"],
    ["content-type", "application/json; charset=utf-16"],
    ["content-type", "application/problem+json"],
    ["content-encoding", "gzip"],
    ["content-encoding", "br, gzip"],
    ["accept", "text/event-stream"],
    ["accept", "text/event-stream;q=0"],
    ["accept", "application/xml"],
    ["last-event-id", "-1"],
    ["last-event-id", "999999999999999"],
    ["idempotency-key", "again"],
    ["expect", "100-continue"],
    ["authorization", "Basic Og=="],
    ["authorization", "Bearer"],
    ["authorization", `Bearer wgk_${"A".repeat(27)}`],
    ["upgrade-insecure-requests", "1"],
    ["x-http-method-override", "DELETE"],
  ),
);

type Twist =
  | { readonly what: "none" | "method" }
  | { readonly what: "body"; readonly at: number; readonly change: Parameters<typeof apply>[2] }
  | { readonly what: "segment"; readonly text: string }
  | { readonly what: "query"; readonly part: Part }
  | { readonly what: "value"; readonly at: number; readonly text: string }
  | { readonly what: "header"; readonly part: Part }
  | { readonly what: "raw"; readonly text: string };

/** What can be done to a call, as often as there is something it could be done to. */
function twists(has: {
  readonly body: boolean;
  readonly query: boolean;
  readonly segment: boolean;
}): fc.Arbitrary<Twist> {
  const when = <T extends Twist>(there: boolean, weight: number, arbitrary: fc.Arbitrary<T>) => ({
    weight: there ? weight : 0,
    arbitrary,
  });
  const given = evilStrings.filter(({ length }) => length < 2000);
  return fc.oneof(
    when(true, 2, fc.constant({ what: "none" } as const)),
    when(true, 1, fc.constant({ what: "method" } as const)),
    when(has.body, 12, fc.record({ what: fc.constant("body" as const), at: fc.nat(500), change: changes })),
    when(has.segment, 2, fc.record({ what: fc.constant("segment" as const), text: evilSegments })),
    when(true, 1, fc.record({ what: fc.constant("query" as const), part: evilQuery })),
    when(has.query, 8, fc.record({ what: fc.constant("value" as const), at: fc.nat(20), text: given })),
    when(true, 2, fc.record({ what: fc.constant("header" as const), part: evilHeaders })),
    when(true, 1, fc.record({ what: fc.constant("raw" as const), text: evilBodies })),
  );
}

const evilBodies = fc.constantFrom(
  ...["", "{", "null", "1", '"x"', "[]", "{}{}", "{'a':1}", "\ufeff{}", "NaN", '{"a":1,}', "/**/{}", "{}\0"],
);

const methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/** Inputs for every operation of the document: fit but for one thing, and now and then wholly fit. */
export function inputs(document: Document, subjects: Subjects): fc.Arbitrary<Input> {
  const all = Object.entries(document.paths).flatMap(([path, byMethod]) =>
    Object.entries(byMethod).map(([method, operation]) =>
      inputOf(document, subjects, path, method.toUpperCase(), operation),
    ),
  );
  return fc.oneof(...all);
}

function inputOf(
  document: Document,
  subjects: Subjects,
  path: string,
  method: string,
  operation: Operation,
): fc.Arbitrary<Input> {
  const values = known(subjects);
  const defs = document.components.schemas;
  const parameters = (operation.parameters ?? []).map(({ $ref, ...given }) =>
    $ref === undefined ? given : (document.components.parameters[$ref.split("/").at(-1) as string] as Parameter),
  );
  const query = parameters.filter((each) => each.in === "query");
  const has = {
    body: operation.requestBody !== undefined,
    query: query.length > 0,
    segment: path.includes("{"),
  };
  const drafts = fc.record({
    segment: fc.constantFrom(...pathValues(path, operation, subjects)),
    query: fc
      .tuple(
        ...query.map(({ name, schema }) =>
          fc.oneof(
            { weight: 3, arbitrary: fc.constant(undefined) },
            {
              weight: 1,
              arbitrary: fitting(schema, defs, values, name).map((tree) => [name, scalarText(tree)] as Part),
            },
          ),
        ),
      )
      .map((parts) => parts.filter((part) => part !== undefined)),
    headers: credentials(operation, subjects, !has.segment),
    body: bodyOf(operation, defs, values),
  }) as fc.Arbitrary<Draft>;
  return fc.tuple(drafts, twists(has), fc.constantFrom(...methods)).map(([draft, twist, other]) =>
    twisted(
      { operation: operation.operationId, method, path },
      draft,
      twist,
      other,
      query.map(({ name }) => name),
    ),
  );
}

/** @param anywhere it is about no subject, so that any tenant will do */
function credentials(
  operation: Operation,
  { admin, agents, limited, root }: Subjects,
  anywhere: boolean,
): fc.Arbitrary<Record<string, string>> {
  const roles = operation["x-roles"];
  if (roles.length === 0) return fc.constant({});
  const admins = operation.operationId === "putQuotas" ? [root] : [admin, admin, ...(anywhere ? [limited.admin] : [])];
  const bearers = [
    ...(roles.includes("admin") ? admins : []),
    ...(roles.includes("agent") ? agents.map(({ token }) => token) : []),
  ];
  return fc.constantFrom(...bearers).map((bearer) => ({ authorization: `Bearer ${bearer}` }));
}

function bodyOf({ requestBody }: Operation, defs: Document["components"]["schemas"], values: Known) {
  const schema = requestBody?.content["application/json"]?.schema;
  if (schema === undefined) return fc.constant(undefined);
  // Entries of a batch are checked one by one, so the document cannot say what they are where it says what a batch is.
  const entries: Record<string, string> = { tasks: "CreateTaskEntry", records: "TransferRecord" };
  const known: Record<string, Schema> = { ...defs };
  for (const name of ["CreateTasks", "ImportRecords"]) {
    const batch = defs[name];
    if (batch === undefined) continue;
    const properties = Object.entries(batch.properties ?? {}).map(([field, inner]) =>
      entries[field] === undefined ? [field, inner] : [field, { ...inner, items: { $ref: entries[field] } }],
    );
    known[name] = { ...batch, properties: Object.fromEntries(properties) };
  }
  return fitting(schema, known, values);
}

function twisted(
  { operation, method, path }: { readonly operation: string; readonly method: string; readonly path: string },
  draft: Draft,
  twist: Twist,
  other: string,
  fields: readonly string[],
): Input {
  let { segment, query, headers } = draft;
  let wrong: string | undefined;
  let sent = method;
  let body = draft.body === undefined ? undefined : print(draft.body);
  switch (twist.what) {
    case "method":
      sent = other;
      break;
    case "body": {
      if (draft.body === undefined) break;
      const all = places(draft.body);
      const place = all[twist.at % all.length] as Place;
      const changed = apply(draft.body, place, twist.change);
      body = changed === undefined ? "" : print(changed);
      wrong = place.join(".");
      break;
    }
    case "segment":
      segment = twist.text;
      break;
    case "query":
      query = [...query, twist.part];
      break;
    case "value": {
      const name = fields[twist.at % Math.max(1, fields.length)];
      if (name === undefined) break;
      query = [...query.filter(([each]) => each !== name), [name, twist.text]];
      wrong = name;
      break;
    }
    case "header":
      headers = { ...headers, [twist.part[0]]: twist.part[1] };
      break;
    case "raw":
      body = twist.text;
      break;
  }
  const target = targetOf(path, segment, query, twist.what === "query" ? twist.part : undefined);
  return {
    operation,
    method: sent,
    target,
    headers:
      body === undefined || "content-type" in headers ? headers : { ...headers, "content-type": "application/json" },
    ...(body !== undefined && { body }),
    ...(wrong !== undefined && {
      wrong,
      unchanged: {
        target: targetOf(path, segment, draft.query),
        ...(draft.body !== undefined && { body: print(draft.body) }),
      },
    }),
  };
}

/** @param raw goes in as it is */
function targetOf(path: string, segment: string, query: readonly Part[], raw?: Part): string {
  const at = path.replace(/\{\w+\}/, () => segment);
  const parts = query.map((part) => (part === raw ? part.join("=") : `${encode(part[0])}=${encode(part[1])}`));
  return parts.length === 0 ? at : `${at}?${parts.join("&")}`;
}
