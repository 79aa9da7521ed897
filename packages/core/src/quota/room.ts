import { createMemory } from "../memory.ts";
import type { Ports } from "../port/index.ts";
import type { Scope } from "../scope.ts";
import { exceeded, throttled } from "./error.ts";
import { takeRate } from "./rate.ts";
import type { Need, Room } from "./reserve.ts";
import { type Amounts, type Counted, counted, type Quotas } from "./schema.ts";
import { usage } from "./usage.ts";

const none = (): Amounts => ({ tasks: 0, bytes: 0, waiting: 0, agents: 0 });

/** What is known of a tenant's use: counted by the store, and stored or being stored by this process since then. */
interface Tally {
  base: Amounts | undefined;
  readAt: number;
  /** Of the store: what was counted before it changed may have been taken back. */
  generation: number;
  readonly added: Amounts;
  readonly coming: Amounts;
  looking: Promise<void> | undefined;
}
const tallies = createMemory<Tally>();

/** What took room without asking is learned of after this: results, imports, what is tried again, and other processes on a shared store. */
const knownMs = 1_000;
/** After so many looks at what others change meanwhile it is refused, for now. */
const looks = 5;
/** Waiting tasks leave in their own time. */
const retryAfterSeconds = 1;

/** @throws `quota.exceeded`, `quota.throttled` */
export async function makeRoom(scope: Scope, quotas: Quotas, names: readonly Counted[], need: Need): Promise<Room> {
  const tally = tallyOf(scope.ports, scope.tenant);
  const used = (name: Counted) => (tally.base?.[name] ?? 0) + tally.added[name] + tally.coming[name];
  const over = () => names.find((name) => used(name) + (need[name] ?? 0) > (quotas[name] as number));
  const { clock, store } = scope.ports;
  if (!tally.base || tally.generation !== store.generation() || clock.now() - tally.readAt > knownMs)
    await look(scope, tally);
  for (let looked = 0, name = over(); name !== undefined; name = over()) {
    // What was stored while the counters were read may be counted twice, and what was before and is not told of yet.
    const settled = tally.added[name] === 0 && tally.coming[name] === 0;
    if (looked === looks || (looked > 0 && settled)) throw refusal(name, quotas[name] as number, used(name));
    await look(scope, tally);
    looked++;
  }
  let open = true;
  const change = (amounts: Amounts, by: 1 | -1) => {
    for (const name of counted) amounts[name] += by * (need[name] ?? 0);
  };
  change(tally.coming, 1);
  const close = (stored: boolean) => {
    if (!open) return;
    open = false;
    change(tally.coming, -1);
    if (stored) change(tally.added, 1);
  };
  return { taken: () => close(true), release: () => close(false) };
}

const refusal = (name: Counted, limit: number, used: number) => {
  const data = { quota: name, limit, used };
  const text = `the tenant's quota of ${limit} ${name === "waiting" ? "waiting tasks" : name} is used up: there are ${used}`;
  return name === "waiting" ? throttled(text, { retryAfterSeconds, data }) : exceeded(text, { data });
};

function tallyOf(ports: Ports, tenant: string): Tally {
  const tenants = tallies.of(ports);
  let tally = tenants.get(tenant);
  if (!tally) {
    tally = { base: undefined, readAt: 0, generation: 0, added: none(), coming: none(), looking: undefined };
    tenants.set(tenant, tally);
  }
  return tally;
}

function look(scope: Scope, tally: Tally): Promise<void> {
  tally.looking ??= (async () => {
    try {
      const before = { ...tally.added };
      const generation = scope.ports.store.generation();
      tally.base = await usage(scope);
      tally.generation = generation;
      tally.readAt = scope.ports.clock.now();
      for (const name of counted) tally.added[name] -= before[name];
    } finally {
      tally.looking = undefined;
    }
  })();
  return tally.looking;
}

/** @throws `quota.throttled` */
export async function takeOfRate(scope: Scope, rate: NonNullable<Quotas["submits"]>, count: number): Promise<void> {
  const waitSeconds = await takeRate(scope, rate, count);
  if (waitSeconds === 0) return;
  throw throttled(`at most ${rate.limit} tasks may be submitted in ${rate.perSeconds} s`, {
    retryAfterSeconds: waitSeconds,
    data: { quota: "submits", limit: rate.limit },
  });
}
