import type { z } from "zod/mini";
import { delivered } from "../delivery/error.ts";
import { isCalled } from "../delivery/schema.ts";
import { take } from "../match/dispatch.ts";
import type { Member } from "../match/member.ts";
import { open, openFor } from "../match/open.ts";
import { toAssignment } from "../match/push.ts";
import { parkedChannel } from "../match/shared.ts";
import type { Scope } from "../scope.ts";
import { takeBack } from "../task/end.ts";
import type { Row } from "../task/row.ts";
import type { Assignment } from "../task/schema.ts";
import { readTask } from "../task/stored.ts";
import { unnamed } from "./commands.ts";
import { stopped } from "./error.ts";
import { heardLately, seen } from "./liveness.ts";
import { read } from "./manage.ts";
import { agentChannel } from "./message.ts";
import type { Lease } from "./schema.ts";

/**
 * Work for an agent that asks: what waits for it now, else what comes within `waitSeconds`. One that is paused, draining or
 * full waits, too: answered at once, it would ask again at once.
 * @throws `agent.stopped`, `agent.delivered`
 */
export async function lease(
  scope: Scope,
  id: string,
  input: z.output<typeof Lease>,
  signal?: AbortSignal,
): Promise<Assignment[]> {
  if (scope.ports.shared) return leaseShared(scope, id, input, signal);
  const directory = await open(scope.ports, scope.tenant);
  const member = directory.members.get(id);
  if (!member) {
    const row = await read(scope, id);
    throw stopped(`agent ${row.name} is ${row.state}; register it again`);
  }
  if (isCalled(member.row)) throw delivered(member.row);
  if (!heardLately(member.row, scope.ports.clock.now(), false)) await seen(scope, id);
  if (input.holding && member.used > input.holding.length + member.mailbox.length) {
    const again = await unanswered(scope, member, input);
    if (again.length > 0) return again;
  }
  // What comes from the moment on that another registers under its name is that one's.
  const { registeredAt } = member.row;
  const isOwn = () => member.row.registeredAt === registeredAt;
  const found = async () => {
    const left = await unpack(scope, member, input.max);
    return left.length < input.max
      ? [...left, ...(await take(scope, directory, member, input.max - left.length))]
      : left;
  };
  let tasks = await found();
  if (tasks.length === 0 && input.waitSeconds > 0 && !signal?.aborted) {
    member.asked += input.max;
    directory.refresh(member);
    const woken = wait(scope, member, input.waitSeconds, signal);
    try {
      // A task may have been parked between the look and the wait.
      tasks = await found();
      while (tasks.length === 0 && (await woken.next()) && isOwn()) tasks = await unpack(scope, member, input.max);
    } finally {
      woken.end();
      member.asked -= input.max;
      directory.refresh(member);
    }
    // What came while the call was ending goes along with it, unless nobody is there to take it.
    if (tasks.length === 0 && !signal?.aborted && isOwn()) tasks = await unpack(scope, member, input.max);
    if (signal?.aborted) {
      member.mailbox.unshift(...tasks);
      return [];
    }
  }
  return Promise.all(tasks.map((task) => toAssignment(scope, task, member)));
}

const pollMs = 1000;

/** Where nobody could hand it over, what waits is taken, and looked for again until the time is up. */
async function leaseShared(
  scope: Scope,
  id: string,
  input: z.output<typeof Lease>,
  signal: AbortSignal | undefined,
): Promise<Assignment[]> {
  const { clock, live } = scope.ports;
  const until = clock.now() + input.waitSeconds * 1000;
  let registeredAt: number | undefined;
  let pending = false;
  let wake = () => {};
  const nudge = () => {
    pending = true;
    wake();
  };
  const offs = [parkedChannel(scope.tenant), agentChannel(scope.tenant, id)].map((channel) =>
    live.subscribe(channel, nudge),
  );
  signal?.addEventListener("abort", nudge);
  try {
    for (;;) {
      pending = false;
      const directory = await openFor(scope.ports, scope.tenant, id);
      const member = directory.members.get(id);
      if (!member) {
        const row = await read(scope, id);
        throw stopped(`agent ${row.name} is ${row.state}; register it again`);
      }
      if (isCalled(member.row)) throw delivered(member.row);
      // As long as it waits it is there.
      if (!heardLately(member.row, clock.now(), true)) await seen(scope, id);
      const again = registeredAt === undefined && input.holding ? await unanswered(scope, member, input) : [];
      if (again.length > 0) return again;
      registeredAt ??= member.row.registeredAt;
      // Another registered under its name: what comes is that one's.
      if (member.row.registeredAt !== registeredAt) return [];
      const tasks = await take(scope, directory, member, input.max);
      if (tasks.length > 0 && signal?.aborted) {
        const own = new Set(tasks.map((task) => task.id));
        await takeBack(scope, id, "released", "the call that asked for it has ended", (task) => !own.has(task.id));
        return [];
      }
      if (tasks.length > 0) return await Promise.all(tasks.map((task) => toAssignment(scope, task, member)));
      const leftMs = until - clock.now();
      if (leftMs <= 0 || signal?.aborted) return [];
      if (pending) continue;
      const cancel = clock.after(Math.min(leftMs, live.pollMs ?? pollMs), nudge);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      cancel();
    }
  } finally {
    for (const off of offs) off();
    signal?.removeEventListener("abort", nudge);
  }
}

/** What it was given and neither begins nor names: the answer that brought it was lost. */
async function unanswered(
  scope: Scope,
  member: Member,
  { holding, max }: z.output<typeof Lease>,
): Promise<Assignment[]> {
  const waiting = new Set(member.mailbox.map((task) => task.id));
  const tasks = (await unnamed(scope, member.row, holding)).filter(
    (task) => task.status === "assigned" && !waiting.has(task.id),
  );
  return Promise.all(tasks.slice(0, max).map((task) => toAssignment(scope, task, member)));
}

/** Takes from the mailbox what is still the agent's. */
async function unpack(scope: Scope, member: Member, max: number): Promise<Row[]> {
  const tasks: Row[] = [];
  while (tasks.length < max) {
    const given = member.mailbox.shift();
    if (!given) break;
    const now = await readTask(scope, given.id);
    if (now?.status === "assigned" && now.agentId === member.id && now.fence === given.fence) tasks.push(now);
  }
  return tasks;
}

/** Agents that ask without end wait as long as they may. */
const longSeconds = 10;

/** `next` resolves true when there may be something, false when the time is up or the caller or the agent has gone. */
function wait(scope: Scope, member: Member, seconds: number, signal: AbortSignal | undefined) {
  let wake: (more: boolean) => void = () => {};
  let pending = false;
  let over = false;
  const nudge = () => {
    pending = true;
    wake(true);
  };
  const stop = () => {
    over = true;
    wake(false);
  };
  member.waiters.add(nudge);
  // Long ones up to a twentieth early: agents whom a stall brought together would else come together for ever.
  const earlyMs = seconds < longSeconds ? 0 : Math.random() * 50 * seconds;
  const cancelTimer = scope.ports.clock.after(seconds * 1000 - earlyMs, stop);
  const off = scope.ports.live.subscribe(agentChannel(scope.tenant, member.id), (message: { stop?: true }) => {
    if (message.stop) stop();
  });
  signal?.addEventListener("abort", stop);
  return {
    next(): Promise<boolean> {
      if (over) return Promise.resolve(false);
      if (pending) {
        pending = false;
        return Promise.resolve(true);
      }
      return new Promise((resolve) => {
        wake = (more) => {
          pending = false;
          resolve(more);
        };
      });
    },
    end(): void {
      member.waiters.delete(nudge);
      cancelTimer();
      off();
      signal?.removeEventListener("abort", stop);
    },
  };
}
