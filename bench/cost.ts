import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root } from "../test/support/root.ts";
import { type Fleet, measureIdle } from "./cost/idle.ts";
import { limitsAt } from "./cost/limits.ts";
import { measureSteps, type Step } from "./cost/steps.ts";
import { dollarsOf, sum, type Units, unitNames } from "./cost/units.ts";
import { assumed, prices, pricesReadOn } from "./prices.ts";

const help = `npm run bench -- cost [options]

Counts what one task, and an idle fleet, take of AWS: by the engine's own meter, in the units AWS bills, with the handlers that
a deployment runs. Times of functions are assumed, see bench/prices.ts. The same in each run.

  --json      one JSON line a figure on stdout; the table goes to stderr
  --dynamodb  beside it what DynamoDB Local reports as consumed
  --scale     which limits of AWS a load meets: --tasks a second (10,000), --agents connected (1,000 or 100,000)
  --write     keep the counts as the baseline that npm test holds every step to
  --help`;

export interface Cost {
  readonly pricesReadOn: string;
  readonly steps: readonly Step[];
  readonly fleets: readonly Fleet[];
}

export const baselineFile = join(root, "bench/results/cost.json");
export const baseline = (): Cost => JSON.parse(readFileSync(baselineFile, "utf8"));

export const measureCost = async (): Promise<Cost> => ({
  pricesReadOn,
  steps: await measureSteps("embedded"),
  fleets: await measureIdle("embedded"),
});

/** What takes more than it did, in words. A step that is new is no dearer. */
export function dearer(before: Cost, now: Cost): string[] {
  const name = (of: Step | Fleet) => ("agents" in of ? `${of.name} ${of.agents} ${of.what}` : of.name);
  const known = new Map([...before.steps, ...before.fleets].map((each) => [name(each), each.units]));
  return [...now.steps, ...now.fleets].flatMap((each) => {
    const had = known.get(name(each));
    if (had === undefined) return [];
    return unitNames
      .filter((unit) => each.units[unit] > had[unit] * (1 + 1e-9))
      .map((unit) => `${name(each)}: ${each.units[unit]} ${unit}, not ${had[unit]}`);
  });
}

interface Way {
  readonly name: string;
  readonly units: Units;
  /** Dollars a million tasks, at most. */
  readonly goal?: number;
}

/** Whole tasks, put together from steps. */
export function ways(steps: readonly Step[]): Way[] {
  const of = (name: string): Units => {
    const found = steps.find((step) => step.name === name);
    if (found === undefined) throw new Error(`there is no step ${name}`);
    return found.units;
  };
  const [single, batched] = [of("submit"), of("submit, batch")].map((submit) =>
    sum(unpushed(submit), of("complete")),
  ) as [Units, Units];
  return [
    { name: "submit, dispatch, complete", units: single, goal: 4 },
    { name: "… submitted by tens", units: batched, goal: 2.5 },
    { name: "… with events, lists and counters", units: sum(single, of("follow")), goal: 4 },
    { name: "… the same, submitted by tens, quick tasks", units: sum(batched, of("follow, quick")), goal: 2.5 },
    {
      name: "submit, dispatch, complete, where tasks wait",
      units: sum(of("submit, nobody free"), of("dispatch, parked"), unpushed(of("complete, next"))),
    },
    {
      name: "all of it, agent on a WebSocket",
      units: sum(of("submit"), of("complete, socket"), of("follow")),
    },
    { name: "all of it, webhook", units: sum(unpushed(of("submit")), of("deliver"), of("follow, called")) },
  ];
}

/** The same for an agent that is called, or asks: nothing is pushed. */
const unpushed = (units: Units): Units => ({ ...units, socketMessages: 0 });

const perConnectedThousand = (1000 * assumed.daysPerMonth * 1440 * prices.socketMinutes.dollars) / 1e6;
const fleetGoal = ({ name, agents }: Fleet): number | undefined =>
  agents === 0 ? undefined : (agents / 1000) * (name === "idle, called" ? 0.3 : 1.5 * perConnectedThousand);

const money = (dollars: number): string =>
  dollars >= 1000 ? Math.round(dollars).toLocaleString("en-US") : dollars.toFixed(2);
const amount = (value: number): string => {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return value === 0 ? "" : String(Number(value.toFixed(2)));
};
const judged = (dollars: number, goal: number | undefined): string =>
  goal === undefined ? "" : `≤ ${money(goal)} ${dollars <= goal ? "met" : "MISSED"}`;

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => (row[at] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, at) =>
        at < 2 || at === row.length - 1 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
      )
      .join("  ")
      .trimEnd();
  return [line(head), ...rows.map(line)].join("\n");
}

const unitHead = ["W", "R", "SQS", "events", "calls", "GB-s", "messages"];
const unitCells = (units: Units): string[] =>
  [
    units.writeUnits,
    units.readUnits,
    units.queueRequests,
    units.busEvents,
    units.lambdaCalls,
    units.lambdaGbSeconds * 1000,
    units.socketMessages,
  ].map(amount);

function people({ steps, fleets }: Cost): string {
  const perMillion = (units: Units) => dollarsOf(units) * 1e6;
  const heads = unitHead.map((name) => (name === "GB-s" ? "mGB-s" : name));
  return [
    `one task; prices of us-east-1 as of ${pricesReadOn}, times of functions assumed`,
    table(
      ["step", "", ...heads, "$ a million", ""],
      steps.map(({ name, what, units }) => [name, what, ...unitCells(units), money(perMillion(units)), ""]),
    ),
    "",
    table(
      ["whole tasks", "", ...heads, "$ a million", "goal"],
      ways(steps).map(({ name, units, goal }) => [
        name,
        "",
        ...unitCells(units),
        money(perMillion(units)),
        judged(perMillion(units), goal),
      ]),
    ),
    "",
    table(
      ["a month of", "", ...unitHead, "$", "goal"],
      fleets.map((fleet) => [
        fleet.agents === 0 ? "nobody" : `${fleet.agents.toLocaleString("en-US")} agents`,
        fleet.what,
        ...unitCells({ ...fleet.units, lambdaGbSeconds: fleet.units.lambdaGbSeconds / 1000 }),
        money(dollarsOf(fleet.units)),
        judged(dollarsOf(fleet.units), fleetGoal(fleet)),
      ]),
    ),
  ].join("\n");
}

function scale({ steps, fleets }: Cost, perSecond: number, agents: number): string {
  if (!(perSecond > 0) || !fleets.some((fleet) => fleet.agents === agents))
    throw new Error("--tasks takes a rate, --agents 1000 or 100000");
  const rows = limitsAt(steps, fleets, perSecond, agents).map(({ name, needs, allows, unit, raise }) => [
    name,
    raise,
    Math.round(needs).toLocaleString("en-US"),
    Math.round(allows).toLocaleString("en-US"),
    `${((100 * needs) / allows).toFixed(0)} %`,
    Math.round((perSecond * allows) / needs).toLocaleString("en-US"),
    unit,
  ]);
  const head = ["limit", "what raises it", "needs", "allows", "used", "met at tasks/s", "unit"];
  return `${perSecond} tasks/s of one tenant, ${agents} agents connected\n${table(head, rows)}`;
}

/** The queues there keep real time, which the steps that wait for a timer do not. */
const onDynamo = (name: string): boolean => name !== "timer" && name !== "retry";

/** `npm run bench -- cost`: see `help`. */
export async function reportCost(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: { type: "boolean", default: false },
      dynamodb: { type: "boolean", default: false },
      write: { type: "boolean", default: false },
      scale: { type: "boolean", default: false },
      tasks: { type: "string", default: "10000" },
      agents: { type: "string", default: "100000" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return console.log(help);
  const say = (text: string) => (values.json ? console.error(text) : console.log(text));
  const cost = await measureCost();
  say(values.scale ? scale(cost, Number(values.tasks), Number(values.agents)) : people(cost));
  if (values.json) {
    const line = (of: object, units: Units, dollars: object) =>
      console.log(JSON.stringify({ ...of, units, ...dollars }));
    for (const { name, what, units } of cost.steps)
      line({ figure: name, what }, units, { dollarsPerMillion: dollarsOf(units) * 1e6 });
    for (const { name, units, goal } of ways(cost.steps))
      line({ figure: name }, units, { dollarsPerMillion: dollarsOf(units) * 1e6, goal });
    for (const { name, what, agents, units } of cost.fleets)
      line({ figure: name, what, agents }, units, { dollarsPerMonth: dollarsOf(units) });
  }
  if (values.dynamodb) {
    // Fewer tasks, for both: an emulator takes its time.
    const counted = await measureSteps("embedded", 2);
    const reported = await measureSteps("dynamodb-local", 2);
    const rows = counted.flatMap(({ name, units }, at) => {
      const told = (reported[at] as Step).units;
      const cells = [units.writeUnits, told.writeUnits, units.readUnits, told.readUnits].map(amount);
      return onDynamo(name) ? [[name, "", ...cells, ""]] : [];
    });
    say(`\n${table(["counted, and as DynamoDB Local reports", "", "W", "reported", "R", "reported", ""], rows)}`);
    if (values.json)
      for (const { name, units } of reported.filter((step) => onDynamo(step.name)))
        console.log(JSON.stringify({ figure: name, reportedBy: "DynamoDB Local", units }));
  }
  const worse = dearer(baseline(), cost);
  if (values.write) writeFileSync(baselineFile, `${JSON.stringify(cost, null, 1)}\n`);
  else if (worse.length > 0) {
    console.error(`dearer than bench/results/cost.json:\n${worse.join("\n")}`);
    process.exitCode = 1;
  }
}
