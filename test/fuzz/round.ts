import fc from "fast-check";
import { apiOf } from "../support/api.ts";
import { type Document, type Input, inputs, type Subjects } from "./calls.ts";
import { createClient } from "./client.ts";
import { type Answer, createJudge } from "./judge.ts";
import { markHeader, type Target } from "./target.ts";

export interface RoundFailure {
  /** The smallest found that does it. */
  readonly input: unknown;
  readonly faults: readonly string[];
}
export interface Figures {
  inputs: number;
  readonly byStatus: Record<string, number>;
  /** Operations that were done at least once, and those that were called. */
  readonly done: Set<string>;
  readonly called: Set<string>;
}
export const noFigures = (): Figures => ({ inputs: 0, byStatus: {}, done: new Set(), called: new Set() });

export interface RoundOptions {
  /** Decides the inputs. */
  readonly seed: number;
  /** About so many. */
  readonly inputs: number;
  readonly figures: Figures;
  readonly progress?: () => void;
}

/** Sent at once. Of a group that fails, smaller ones are tried. */
const together = 24;

/**
 * One round: a new tenant with a few agents, tasks and keys, and inputs about them that the seed decides.
 * @returns the smallest input found that the server does not answer as it promises
 */
export async function callRound(target: Target, options: RoundOptions): Promise<RoundFailure | undefined> {
  const document = (await (await fetch(`${target.url}/openapi.json`)).json()) as Document;
  const subjects = await makeSubjects(target, options.seed);
  const judge = createJudge(document);
  const client = createClient(target.url, together);
  let marks = 0;
  const namesIt = async (input: Input, answer: Answer): Promise<boolean> => {
    if (judge.names(input, answer)) return true;
    const before = await client.send({ ...input, ...input.unchanged }, {});
    // Refused as it was, whatever for, it says nothing of what was done to it.
    return before.status >= 400;
  };
  const faultsOf = async (input: Input): Promise<readonly string[]> => {
    const mark = `${options.seed}-${marks++}`;
    const changed = target.watch(mark);
    const { figures } = options;
    figures.inputs++;
    try {
      const answer = await client.send(input, { [markHeader]: mark });
      const rows = changed();
      figures.byStatus[answer.status] = (figures.byStatus[answer.status] ?? 0) + 1;
      figures.called.add(input.operation);
      if (answer.status < 400 && judge.asMeant(input)) figures.done.add(input.operation);
      const faults = [...judge.faults(input, answer)];
      if (faults.length === 0 && !(await namesIt(input, answer))) faults.push(`${input.wrong} is not named`);
      if (answer.status >= 400 && rows.length > 0)
        faults.push(`refused with ${answer.status}, and changed ${rows.join(", ")}`);
      if (faults.length > 0) faults.push(answer.text.slice(0, 1000));
      return faults;
    } catch (error) {
      changed();
      return [error instanceof Error ? error.message : String(error)];
    }
  };
  const groups = fc.array(inputs(document, subjects), { minLength: 1, maxLength: together, size: "max" });
  const failure = await check(groups, options.seed, Math.ceil((options.inputs * 2) / together), async (group) => {
    const faults = await Promise.all(group.map(faultsOf));
    options.progress?.();
    return faults.flat();
  });
  client.close();
  return failure;
}

/** What was wrong and with which input, in short; empty for nothing. */
export const described = (failure: RoundFailure | undefined): string =>
  failure === undefined
    ? ""
    : `${failure.faults.join("\n")}\n${JSON.stringify(failure.input, undefined, 2).slice(0, 4000)}`;

/** Looking for a smaller input than the one that failed may take this long. */
const shrinkMs = 60_000;

/** @returns the smallest input found that has faults */
export async function check<T>(
  arbitrary: fc.Arbitrary<T>,
  seed: number,
  numRuns: number,
  faultsOf: (input: T) => Promise<readonly string[]>,
): Promise<RoundFailure | undefined> {
  let smallest: RoundFailure | undefined;
  let failedAt: number | undefined;
  const property = fc.asyncProperty(arbitrary, async (input) => {
    if (failedAt !== undefined && performance.now() - failedAt > shrinkMs) return;
    const faults = await faultsOf(input);
    if (faults.length === 0) return;
    failedAt ??= performance.now();
    smallest = { input, faults };
    throw new Error(faults.join("; "));
  });
  await fc.check(property, { seed, numRuns });
  return smallest;
}

/** Who acts in a round, and on what. */
async function makeSubjects(target: Target, seed: number): Promise<Subjects> {
  const root = apiOf(target.url, target.adminKey);
  const tenant = `fuzz-${seed >>> 0}-${process.pid}-${performance.now().toFixed(0)}`;
  const adminOf = async (tenant: string) =>
    (await root.post<{ key: string }>("/v1/keys", { role: "admin", tenant })).body.key;
  const admin = root.as(await adminOf(tenant));
  const limited = { tenant: `${tenant}-limited`, admin: await adminOf(`${tenant}-limited`) };
  const able = { capabilities: [{ name: "held" }], maxConcurrency: 4, leaseSeconds: 3600 };
  const agents = [await admin.register(able), await admin.register(able), await admin.register({ leaseSeconds: 3600 })];
  const victims = [];
  for (let n = 0; n < 3; n++) victims.push((await admin.register()).id);
  const keys = [];
  for (let n = 0; n < 3; n++) keys.push((await admin.post<{ id: string }>("/v1/keys", { role: "reader" })).body.id);
  const tasks = [];
  for (let n = 0; n < 4; n++) tasks.push((await admin.delegate({ requires: [{ capability: "held" }] })).id);
  await agents[0]?.lease(2);
  await agents[1]?.lease(2);
  for (let n = 0; n < 2; n++) tasks.push((await admin.delegate({ delaySeconds: 3600 })).id);
  return { agents, victims, tasks, keys, tenant, limited, admin: admin.key, root: root.key };
}
