import type { Call } from "./calls.ts";
import type { Graph, Resource } from "./harness.ts";

export interface Statement {
  readonly actions: readonly string[];
  readonly resources: readonly string[];
  readonly conditions?: readonly {
    readonly test: string;
    readonly variable: string;
    readonly values: readonly string[];
  }[];
  readonly principals?: readonly { readonly type: string; readonly identifiers: readonly string[] }[];
  readonly effect?: string;
}

interface Written {
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly Resource: string | readonly string[];
  readonly Principal: Readonly<Record<string, string>>;
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

const list = <T>(value: T | readonly T[]): readonly T[] => (Array.isArray(value) ? value : [value as T]);

/** The statements of a policy document, as the provider's data source has them or as AWS writes them. */
export function statementsOf(document: string): Statement[] {
  const parsed = JSON.parse(document) as { statements?: Statement[]; Statement?: Written[] };
  if (parsed.statements !== undefined) return parsed.statements;
  return (parsed.Statement ?? []).map(({ Action, Resource = [], Principal, Condition = {}, Effect }) => ({
    effect: Effect,
    actions: list(Action),
    resources: list(Resource),
    principals: Object.entries(Principal ?? {}).map(([type, id]) => ({ type, identifiers: list(id) })),
    conditions: Object.entries(Condition).flatMap(([test, of]) =>
      Object.entries(of).map(([variable, value]) => ({ test, variable, values: list(value) })),
    ),
  }));
}

export interface Role {
  readonly name: string;
  readonly statements: readonly Statement[];
  readonly managed: readonly string[];
  readonly assumedBy: string;
}

export const ofType = (graph: Graph, type: string): Resource[] => graph.resources.filter((each) => each.type === type);

export const rolesOf = (graph: Graph): Role[] =>
  ofType(graph, "aws:iam/role:Role")
    .map(({ name, inputs }) => ({
      name,
      statements: (inputs.inlinePolicies ?? []).flatMap(({ policy }) => statementsOf(policy)),
      managed: inputs.managedPolicyArns ?? [],
      assumedBy: statementsOf(
        typeof inputs.assumeRolePolicy === "string" ? inputs.assumeRolePolicy : JSON.stringify(inputs.assumeRolePolicy),
      )
        .flatMap(({ principals = [] }) => principals.flatMap(({ identifiers }) => identifiers))
        .join(", "),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));

/** Whether a text is as a pattern of IAM says: `*` is any text, `?` one character. */
export const fits = (pattern: string, text: string): boolean =>
  new RegExp(
    `^${pattern
      .replaceAll(/[.+^${}()|[\]\\]/g, "\\$&")
      .replaceAll("*", ".*")
      .replaceAll("?", ".")}$`,
  ).test(text);

/** Whether a statement allows a call. An agent's function or queue that is called carries the stage's tag. */
export function allows({ actions, resources, conditions = [] }: Statement, call: Call, stage: string): boolean {
  if (!actions.includes(call.action) || !resources.some((each) => fits(each, call.resource))) return false;
  const context: Readonly<Record<string, string | undefined>> = {
    "dynamodb:LeadingKeys": call.key,
    "aws:ResourceTag/waggle:agent": call.ofAgent ? stage : undefined,
  };
  return conditions.every(({ test, variable, values }) => {
    const actual = context[variable];
    if (actual === undefined) return false;
    if (test === "StringEquals") return values.includes(actual);
    if (test === "ForAllValues:StringLike") return values.some((each) => fits(each, actual));
    throw new Error(`what does ${test} mean?`);
  });
}

/** Without account, region and what SST adds at random to a name. */
export const plain = (text: string): string =>
  text
    .replace(/^arn:aws:/, "")
    .replaceAll(/\b(us-east-1)?:123456789012:/g, " ")
    .replaceAll("123456789012", "<account>")
    .replaceAll(/(waggle-[\w-]+?(?:Table|Blobs\w*|Topic|tablets?))-[a-z]{8}\b/gi, "$1");

const when = ({ conditions = [] }: Statement): string =>
  conditions
    .map(({ test, variable, values }) => `${variable} ${test} ${values.map((each) => `\`${each}\``).join(" ")}`)
    .join("; ");

const tableOf = (statements: readonly Statement[]): string[] => [
  "| may | on | where |",
  "|---|---|---|",
  ...statements.map(
    (each) => `| ${each.actions.join(" ")} | ${each.resources.map(plain).join("<br>")} | ${when(each)} |`,
  ),
];

/** Every permission of a deployment, for people to read. */
export function describe(graph: Graph): string {
  const lines = [
    "# Who may do what",
    "",
    "Every permission of a stage, as a deployment would make it. Made by `npx vitest run test/infra -u`; a change of it shows in review.",
    "",
  ];
  for (const role of rolesOf(graph)) {
    lines.push(
      `## ${role.name}`,
      "",
      `Assumed by ${role.assumedBy}.${role.managed.length ? ` Managed: ${role.managed.join(" ")}` : ""}`,
      "",
    );
    lines.push(...tableOf(role.statements), "");
  }
  lines.push("## Who may call in", "", "| what | who | what for | where |", "|---|---|---|---|");
  for (const { inputs } of ofType(graph, "aws:lambda/permission:Permission")) {
    const { action, principal, functionUrlAuthType, sourceArn, invokedViaFunctionUrl } = inputs as Record<
      string,
      string
    >;
    const where = [
      sourceArn && plain(sourceArn),
      functionUrlAuthType && "through its URL",
      invokedViaFunctionUrl && "through its URL",
    ];
    lines.push(`| ${plain(inputs.function)} | ${principal} | ${action} | ${where.filter(Boolean).join("; ")} |`);
  }
  const policies = [
    "aws:sqs/queuePolicy:QueuePolicy",
    "aws:s3/bucketPolicy:BucketPolicy",
    "aws:sns/topicPolicy:TopicPolicy",
  ];
  for (const { name, inputs } of policies.flatMap((type) => ofType(graph, type))) {
    for (const each of statementsOf(inputs.policy)) {
      const who = each.principals?.flatMap(({ identifiers }) => identifiers).join(", ");
      const verb = each.effect === "Deny" ? "never: " : "";
      lines.push(`| ${name} | ${who} | ${verb}${each.actions.join(" ")} | ${plain(when(each))} |`);
    }
  }
  return `${lines.join("\n")}\n`;
}
