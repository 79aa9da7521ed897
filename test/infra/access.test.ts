import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Access,
  type FunctionEntry,
  type FunctionName,
  functions,
  type Rows,
  rows,
} from "../../infra/manifest.ts";
import type { Call } from "./calls.ts";
import { type Cloud, openCloud } from "./cloud.ts";
import { graphOf, installPlatform } from "./graph.ts";
import { allows, fits, ofType, rolesOf, type Statement } from "./policy.ts";
import { play } from "./scenarios.ts";

/*
 * Whether each function may do what it does, and no more: all that a deployment can be asked to do is done by the functions' own
 * handlers, and each call of AWS that comes of it is judged by the policies the deployment would have.
 */

const stage = "access";
const names = Object.keys(functions) as FunctionName[];
const groups = Object.keys(rows) as Rows[];
const calls = new Map<FunctionName, Map<string, Call>>(names.map((name) => [name, new Map()]));
let statements: ReadonlyMap<FunctionName, readonly Statement[]>;
let cloud: Cloud;
let missedRoutes: readonly string[];

type Variables = Readonly<Record<string, string>>;
/** With a secret among them, Pulumi wraps them. */
type Environment = { readonly variables: Variables } | { readonly value: { readonly variables: Variables } };
const variablesOf = (of: Environment): Variables => ("value" in of ? of.value : of).variables;

beforeAll(async () => {
  await installPlatform();
  const graph = await graphOf({ stage });
  const lambdas = ofType(graph, "aws:lambda/function:Function").map(({ inputs }) => inputs);
  const envOf = (name: FunctionName) =>
    variablesOf(lambdas.find((each) => each.name === `waggle-${stage}-${name}`)?.environment as Environment);
  const roles = rolesOf(graph);
  statements = new Map(
    names.map((name) => [
      name,
      roles.find((role) => role.name.toLowerCase() === `${name}functionrole`)?.statements ?? [],
    ]),
  );
  cloud = await openCloud(envOf, (name, call) => {
    calls.get(name)?.set(`${call.action} ${call.key ?? call.resource}`, call);
  });
  missedRoutes = await play(cloud);
}, 600_000);
afterAll(() => cloud?.close());

const callsOf = (name: FunctionName): Call[] => [...(calls.get(name)?.values() ?? [])];

const known = new Map<string, readonly Rows[]>();
function groupsOf(key: string): readonly Rows[] {
  const found = known.get(key) ?? groups.filter((group) => rows[group].keys.some((pattern) => fits(pattern, key)));
  known.set(key, found);
  return found;
}

/** What AWS does itself as a function, by what calls it. */
function byAws(name: FunctionName): string[] {
  const { trigger }: FunctionEntry = functions[name];
  switch (trigger.type) {
    case "queue":
      return ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"];
    case "stream":
      return ["DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"]
        .map((each) => `dynamodb:${each}`)
        .concat("sqs:SendMessage");
    case "schedule":
      return ["sqs:SendMessage"];
    default:
      return [];
  }
}
const toLogs = ["logs:CreateLogStream", "logs:PutLogEvents"];

test("every route of the API, every queue, every schedule and the stream are served while it is watched", () => {
  expect(missedRoutes).toEqual([]);
  for (const name of names) expect(callsOf(name).length, name).toBeGreaterThan(0);
});

test("nothing fails on the way but what is meant to", () => {
  expect(cloud.errors).toEqual([]);
});

test("each row is of one group, so that a pattern opens no other's rows", () => {
  const keys = new Set(names.flatMap((name) => callsOf(name).flatMap(({ key }) => (key === undefined ? [] : [key]))));
  expect([...keys].filter((key) => groupsOf(key).length !== 1)).toEqual([]);
  expect(new Set([...keys].flatMap(groupsOf))).toEqual(new Set(groups));
});

test.each(names)("%s may do all that it does", (name) => {
  const denied = callsOf(name).filter((call) => !statements.get(name)?.some((each) => allows(each, call, stage)));
  expect(denied).toEqual([]);
});

test("tasks are deleted by nobody, for which the right to write many at once would do: the API alone has it, to take batches", () => {
  const deleting = names.filter((name) =>
    statements
      .get(name)
      ?.some(
        ({ actions, conditions = [] }) =>
          actions.some((action) => /:(DeleteItem|BatchWriteItem)$/.test(action)) &&
          conditions.some(({ values }) => values.includes("*#T#*")),
      ),
  );
  expect(deleting).toEqual(["api"]);
});

test("what nobody was given is refused: another's rows, another bucket, an agent without the stage's tag", () => {
  const [one, ...more] = statements.get("deliver") as [Statement, ...Statement[]];
  const refused = (call: Call) => ![one, ...more].some((each) => allows(each, call, stage));
  const row = callsOf("deliver").find(({ action }) => action === "dynamodb:GetItem") as Call;
  const agent = callsOf("deliver").find(({ action }) => action === "lambda:InvokeFunction") as Call;
  expect([row, agent].map(refused)).toEqual([false, false]);
  expect(refused({ ...row, key: "default#K" })).toBe(true);
  expect(refused({ ...row, action: "dynamodb:DeleteItem", key: "default#T#3" })).toBe(true);
  expect(refused({ ...row, resource: `${row.resource}-other` })).toBe(true);
  expect(refused({ action: agent.action, resource: agent.resource })).toBe(true);
});

/** What a function may do, must be able to, and has no occasion for here. */
const idle: Partial<Record<FunctionName, { readonly what: readonly string[]; readonly why: string }>> = {
  outbox: {
    what: [
      "read connections",
      "read lists",
      "read shares",
      "remove connections",
      "s3:GetObject",
      "s3:ListBucket",
      "execute-api:ManageConnections",
    ],
    why:
      "A called agent gets its next work here. Where that has to wait for a limit that comes free at that very moment, it goes to " +
      "whoever is free for it: over a connection, with its payload.",
  },
};
const isIdle = (name: FunctionName, what: string): boolean => idle[name]?.what.includes(what) === true;

const levels = ["read", "write", "remove", "batch"] as const;
type Level = (typeof levels)[number];
const actionsOf = (group: Rows, level: Level): readonly string[] =>
  level === "remove" ? ["DeleteItem"] : level === "batch" ? ["BatchWriteItem"] : rows[group][level];

const usedOn = (name: FunctionName, group: Rows): Set<string> =>
  new Set(
    callsOf(name)
      .filter(({ key }) => key !== undefined && groupsOf(key).includes(group))
      .map(({ action }) => action.slice("dynamodb:".length)),
  );

test.each(names)("%s uses the rows it is given, but for the few where the reason is written down", (name) => {
  const may: Access = functions[name].may;
  const granted = levels.flatMap((level) => (may[level] ?? []).map((group) => ({ level, group })));
  const unused = granted.filter(({ level, group }) => {
    const used = usedOn(name, group);
    return !actionsOf(group, level).some((action) => used.has(action));
  });
  expect(unused.map(({ level, group }) => `${level} ${group}`).filter((what) => !isIdle(name, what))).toEqual([]);
});

test("each way to read and write a kind of row is used by somebody", () => {
  const never = groups.flatMap((group) => {
    const used = new Set(names.flatMap((name) => [...usedOn(name, group)]));
    return [...rows[group].read, ...rows[group].write]
      .filter((action) => !used.has(action))
      .map((action) => `${action} ${group}`);
  });
  expect(never).toEqual([]);
});

test.each(names)("%s uses each queue, bus, bucket, connection and agent it may", (name) => {
  const left = (statements.get(name) ?? []).flatMap((each) =>
    each.actions
      .filter((action) => !isIdle(name, action))
      .filter((action) => !(action.startsWith("dynamodb:") && (each.conditions ?? []).length > 0))
      .filter((action) => ![...toLogs, ...byAws(name)].includes(action) || action === "sqs:SendMessage")
      .flatMap((action) => each.resources.map((resource) => ({ action, resource, each })))
      .filter(
        ({ action, resource }) =>
          !callsOf(name).some(
            (call) =>
              call.action === action && allows({ ...each, actions: [action], resources: [resource] }, call, stage),
          ),
      )
      .filter(({ action, resource }) => !(byAws(name).includes(action) && resource.endsWith("-failed")))
      .map(({ action, resource }) => `${action} ${resource}`),
  );
  expect(left).toEqual([]);
});

test("who reads and writes which rows is in the table that people read", async () => {
  const lines = [
    "# Who touches which rows",
    "",
    "What each function does to the rows of each group, as seen while `scenarios.ts` plays, and what it may do all the same. Made by",
    "`npx vitest run test/infra -u`; a change of it shows in review.",
    "",
    "| function | reads | writes | deletes | writes many at once | may too |",
    "|---|---|---|---|---|---|",
  ];
  for (const name of names) {
    const may: Access = functions[name].may;
    const done = (level: Level) =>
      (may[level] ?? [])
        .filter((group) => !isIdle(name, `${level} ${group}`))
        .toSorted()
        .join(" ");
    const { what = [], why = "" } = idle[name] ?? {};
    lines.push(`| ${name} | ${levels.map(done).join(" | ")} | ${what.join(", ")}${why && `: ${why}`} |`);
  }
  lines.push("", "| rows | keys | read by | written by |", "|---|---|---|---|");
  for (const group of groups) {
    const { keys, read, write } = rows[group];
    lines.push(`| ${group} | ${keys.map((key) => `\`${key}\``).join(" ")} | ${read.join(" ")} | ${write.join(" ")} |`);
  }
  await expect(`${lines.join("\n")}\n`).toMatchFileSnapshot("access.golden.md");
});
