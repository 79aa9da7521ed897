import { stickyAgentOf } from "../match/choice.ts";
import type { Directory } from "../match/directory.ts";
import * as Gate from "../match/gate.ts";
import type { Lane } from "../match/lane.ts";
import { keepsSlots, largerAhead } from "../match/larger.ts";
import { freeSlots } from "../match/member.ts";
import { open } from "../match/open.ts";
import { needOf, refusal } from "../match/requirement.ts";
import { score } from "../match/strategy.ts";
import { gateKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { missing } from "./error.ts";
import { held, type Row, terminal, toInfo } from "./row.ts";
import { readTask } from "./stored.ts";

/** Agents listed in an explanation, those that may serve the task first; more are only counted. */
const explained = 50;

/** Why it waits, or why this agent: in words and numbers. */
export async function explain(scope: Scope, id: string): Promise<Record<string, unknown>> {
  const row = await readTask(scope, id);
  if (!row) throw missing(id);
  const directory = await open(scope.ports, scope.tenant);
  const ahead = row.status === "queued" ? await largerAhead(scope, directory, row) : [];
  const { eligible, free, candidates } = candidatesOf(row, directory, ahead, await stickyAgentOf(scope, row));
  // What was so when it came to wait may have changed since.
  const gate =
    row.gate === undefined ? undefined : await Gate.enter(scope.ports, scope.tenant, row, scope.ports.clock.now());
  const limits = await limitsOf(scope, row, gate?.blocked);
  const need = needOf(row);
  const info = toInfo(row);
  return {
    taskId: id,
    status: row.status,
    summary: summary(row, { eligible, free, blocked: gate?.blocked }),
    ...(info.waiting && { waiting: info.waiting }),
    ...(info.decision && { decision: info.decision }),
    ...(row.agentId !== undefined && { agentId: row.agentId }),
    requirement: {
      requires: need.requires,
      labels: need.labels,
      slots: need.slots,
      ...(need.role && { role: need.role }),
      ...(need.agentId && { agentId: need.agentId }),
    },
    lane: row.lane,
    agents: { known: directory.members.size, eligible, free },
    candidates,
    ...(limits.length > 0 && { limits }),
    ...(row.unmet && { unmetDependencies: row.unmet }),
  };
}

/** The agents there are, the eligible ones first, each with its score or why it is not one. */
function candidatesOf(row: Row, { members }: Directory, ahead: readonly Lane[], stickyAgentId: string | undefined) {
  const need = needOf(row);
  const wish = { requires: row.requires ?? [], labels: row.labels ?? [], stickyAgentId };
  let eligible = 0;
  let free = 0;
  const fitting: (Record<string, unknown> & { readonly score: number })[] = [];
  const refused: Record<string, unknown>[] = [];
  for (const member of members.values()) {
    const why = refusal(need, member);
    const who = { agentId: member.id, name: member.row.name, eligible: why === undefined };
    if (why !== undefined) {
      if (refused.length < explained) refused.push({ ...who, refusal: why });
      continue;
    }
    const slots = freeSlots(member);
    eligible++;
    const kept = keepsSlots(member, ahead);
    if (slots >= row.slots && !kept) free++;
    if (fitting.length >= explained) continue;
    fitting.push({
      ...who,
      score: Math.round(score[row.strategy](wish, member) * 1000) / 1000,
      freeSlots: slots,
      ...(slots < row.slots
        ? { refusal: absent(member.row.state, member) }
        : kept && { refusal: "keeps its free slots for a larger task that comes first" }),
    });
  }
  fitting.sort((a, b) => b.score - a.score);
  return { eligible, free, candidates: [...fitting, ...refused].slice(0, explained) };
}

/** @param blocked what it waits for; `roomAt` is when there will be room, if nothing else takes it */
const limitsOf = (scope: Scope, row: Row, blocked: Gate.Blocked | undefined) =>
  Promise.all(
    Gate.asks(row).map(async (ask) => {
      const gate = (await scope.ports.store.get(gateKey(scope.tenant, ask.key))) as Gate.Row | undefined;
      const { limit, rate } = Gate.of(ask, gate);
      return {
        key: ask.key,
        running: gate?.running ?? 0,
        waiting: gate?.waiting ?? 0,
        ...(limit !== undefined && { concurrency: limit }),
        ...(rate && { rate, weight: ask.weight }),
        ...(blocked?.key === ask.key &&
          blocked.nextAt !== undefined && { roomAt: new Date(blocked.nextAt).toISOString() }),
      };
    }),
  );

function absent(state: string, member: { used: number; maxConcurrency: number; connected: boolean }): string {
  if (state !== "active") return `is ${state}`;
  if (member.used >= member.maxConcurrency) return `all ${member.maxConcurrency} slots are in use`;
  return member.connected ? "has too few free slots" : "is not connected and not asking for work";
}

function summary(
  row: Row,
  { eligible, free, blocked }: { eligible: number; free: number; blocked: Gate.Blocked | undefined },
): string {
  if (terminal.has(row.status)) return `it has ended ${row.status}${row.error ? `: ${row.error.message}` : ""}`;
  if (held.has(row.status)) return `agent ${row.agentId} has it, chosen by ${row.decision?.[0] ?? row.strategy}`;
  if (row.unmet?.length) return `it waits for ${row.unmet.length} task${row.unmet.length === 1 ? "" : "s"} to end`;
  if (row.status === "scheduled") return `it waits until ${new Date(row.scheduledAt ?? row.createdAt).toISOString()}`;
  if (row.gate !== undefined) return blocked?.reason ?? `it is about to be let through by limit ${row.gate}`;
  if (eligible === 0) return "no agent may serve it: see the refusals";
  return free > 0
    ? "it is about to be assigned"
    : `it waits for one of ${eligible} eligible agent${eligible === 1 ? "" : "s"} to be free`;
}
