import { parseArgs } from "node:util";
import { callRound, described, noFigures, type RoundFailure } from "./round.ts";
import { socketRound } from "./sockets.ts";
import { openTarget, type Target } from "./target.ts";

const help = `npm run fuzz -- [--inputs N] [--seed N] [--only calls|frames]

Sends a server what it should refuse, made from the OpenAPI document it serves: calls and the frames of agents, each fit but
for one thing. Fails on a 5xx, a call without an answer, a refusal that is no problem or names no field, and on a row that is not as
before after a refused call.

  --inputs N   in all (default 1,000,000), in rounds of 1,000 on a tenant of their own
  --seed N     of the first round; the next one has the next. A round that fails prints its own, to run it again`;

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "1000000" },
    seed: { type: "string" },
    only: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (values.help) {
  console.log(help);
  process.exit(0);
}
const wanted = Number(values.inputs);
const firstSeed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 30));
if (![wanted, firstSeed].every(Number.isSafeInteger)) throw new Error("--inputs and --seed take whole numbers");
const only = values.only;
if (only !== undefined && only !== "calls" && only !== "frames") throw new Error("--only takes calls or frames");

const roundInputs = 1000;
/** Of ten rounds. The others are calls. */
const frameRounds = 1;
/** So that a server does not have to keep what a million inputs left behind. */
const inputsOfServer = 100_000;
const failuresShown = 10;

const figures = noFigures();
const began = performance.now();
const seconds = () => (performance.now() - began) / 1000;
const tell = (text: string) => process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${text}` : `${text}\n`);
let toldAt = 0;
const progress = () => {
  if (seconds() - toldAt < (process.stderr.isTTY ? 1 : 30)) return;
  toldAt = seconds();
  tell(
    `${figures.inputs} of ${wanted} inputs, ${Math.round(figures.inputs / seconds())} a second, ${failures} failures`,
  );
};

let failures = 0;
function report(seed: number, kind: string, failure: RoundFailure): void {
  failures++;
  console.log(`\n${described(failure)}`);
  console.log(`again: npm run fuzz -- --only ${kind} --inputs ${roundInputs} --seed ${seed}`);
}

let target: Target | undefined;
let servedFrom = 0;
for (let round = 0; figures.inputs < wanted && failures < failuresShown; round++) {
  if (target !== undefined && figures.inputs - servedFrom > inputsOfServer) {
    await target.stop();
    target = undefined;
  }
  if (target === undefined) {
    target = await openTarget();
    servedFrom = figures.inputs;
  }
  const seed = firstSeed + round;
  const kind = only ?? (round % 10 < frameRounds ? "frames" : "calls");
  const inputs = Math.min(roundInputs, wanted - figures.inputs);
  const run = kind === "frames" ? socketRound : callRound;
  const failure = await run(target, { seed, inputs, figures, progress });
  if (failure !== undefined) report(seed, kind, failure);
  else if (target.errors.length > 0) report(seed, kind, { input: undefined, faults: target.errors });
  target.errors.length = 0;
}
await target?.stop();

const most = (process.resourceUsage().maxRSS / 1024).toFixed(0);
console.log(
  `\n${figures.inputs} inputs in ${seconds().toFixed(0)} s from seed ${firstSeed}, at most ${most} MiB with the server`,
);
for (const [status, count] of Object.entries(figures.byStatus)) console.log(`  ${status.padEnd(12)}${count}`);
const { called, done } = figures;
const never = [...called].filter((operation) => !done.has(operation));
console.log(`${called.size} operations called; never done: ${never.join(", ") || "none"}`);
console.log(failures === 0 ? "the server kept its word" : `${failures} failures`);
process.exit(failures === 0 ? 0 : 1);
