import { seen } from "../agent/liveness.ts";
import { change } from "../agent/manage.ts";
import { type Row as Agent, heard } from "../agent/row.ts";
import { isError } from "../error.ts";
import { serveAgent } from "../match/dispatch.ts";
import type { Ports, Target, Value } from "../port/index.ts";
import { agentKey, taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { refused, takeBack, undelivered } from "../task/end.ts";
import { leaseLost, notFound } from "../task/error.ts";
import { type Row as Task, toInfo, toJson } from "../task/row.ts";
import { complete, fail, release, start } from "../task/run.ts";
import { readBlob } from "../task/stored.ts";
import { fromFunction, fromHttp, type Outcome } from "./answer.ts";
import { deliveryErrors, deliveryOutcome } from "./error.ts";
import { type Order, readOrder } from "./order.ts";
import { isCalled } from "./schema.ts";
import { signatureHeaders, unseal } from "./secret.ts";

/** Tries of one assignment, within about a minute: another agent may be there to do it. */
const tries = 5;
/** The nth try again comes after up to 3^(n-1) seconds: 1, 3, 9, 27. */
const backoffSeconds = (failed: number) => 3 ** (failed - 1) * (0.5 + Math.random() / 2);
const longestRetryAfterSeconds = 60;
/** An agent is lost after so many failures in a row, of whichever tasks, once they go on for so long: a restart is none. */
const lostAfter = { misses: 5, seconds: 6 } as const;
/** A lost agent is tried anew after this, then after twice as long each time. */
const probeSeconds = { first: 10, longest: 300 } as const;

/** An SQS message holds 1 MiB, as does the queue of the embedded engine. */
const queueBytes = 1024 * 1024;

/**
 * Does one order of the deliver queue: hands an assigned task to its agent and records what that answers, or tells the
 * agent to stop. An order that is stale is dropped. At least once: a receiver knows a repeated one by task and fence.
 */
export async function deliver(ports: Ports, body: Value): Promise<void> {
  const order = readOrder(body);
  const { tenant, agentId, taskId, fence } = order;
  const scope: Scope = { tenant, actor: { role: "agent", id: agentId }, ports, requestId: "deliver" };
  const [task, agent] = (await ports.store.batchGet([taskKey(tenant, taskId), agentKey(tenant, agentId)])) as [
    Task | undefined,
    Agent | undefined,
  ];
  if (!task || !agent) return;
  if (order.cancel) return isCalled(agent) ? tellCancelled(scope, task, agent, order) : undefined;
  if (task.status !== "assigned" || task.agentId !== agentId || task.fence !== fence) return;
  if (!isCalled(agent) || agent.state === "stopped")
    return settle(() => release(scope, taskId, { fence, reason: "its agent is not called any more" }));
  if (task.cancelAt !== undefined) return settle(() => release(scope, taskId, { fence, reason: "cancelled in time" }));
  if (agent.state === "lost") return settle(() => release(scope, taskId, { fence, reason: "its agent is lost" }));
  // What the agent is told must outlive a crash of this process.
  await ports.store.settled();
  const outcome = await hand(scope, task, agent);
  if (outcome.kind === "missed") return missed(scope, agent, order, outcome);
  if (agent.misses !== undefined || agent.probing) await reached(scope, agentId);
  else await seen(scope, agentId);
  await settle(() => record(scope, order, outcome));
}

/** Somebody else decided meanwhile: the outcome is theirs. */
async function settle(run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
  } catch (error) {
    if (!isError(error, leaseLost) && !isError(error, notFound)) throw error;
  }
}

function record(scope: Scope, { taskId, fence }: Order, outcome: Exclude<Outcome, { kind: "missed" }>) {
  switch (outcome.kind) {
    case "completed":
      return complete(scope, taskId, { fence, result: outcome.result, usage: outcome.usage });
    case "failed":
      return fail(scope, taskId, { fence, error: outcome.error, usage: outcome.usage });
    case "accepted":
      return start(scope, taskId, { fence });
    case "refused":
      return refused(scope, taskId, fence, outcome.reason);
  }
}

async function hand(scope: Scope, task: Task, agent: Agent & { delivery: Target }): Promise<Outcome> {
  const { outbound } = scope.ports;
  const { delivery } = agent;
  const body = await assignedMessage(scope, task, agent);
  const { runSeconds } = task.timeouts ?? {};
  try {
    if (delivery.type === "webhook") {
      const id = `msg_${task.id}_${task.fence}`;
      const headers = { ...signed(scope, agent, id, body), ...(task.traceparent && { traceparent: task.traceparent }) };
      const within = runSeconds !== undefined && { timeoutSeconds: runSeconds };
      return fromHttp(await outbound.http({ url: delivery.url, headers, body, ...within }));
    }
    if (delivery.type === "lambda") return fromFunction(await outbound.invoke(delivery.functionArn, body, runSeconds));
    const bytes = new TextEncoder().encode(body).length;
    if (bytes > queueBytes) return tooLarge(`the task is ${bytes} bytes as a message; a queue takes ${queueBytes}`);
    await outbound.send(delivery.queueUrl, body);
    return { kind: "accepted" };
  } catch (error) {
    if (isError(error, deliveryErrors.answerTooLarge)) return tooLarge(error.message);
    if (isError(error, deliveryErrors.failed)) return { kind: "missed", reason: error.message };
    throw error;
  }
}

const tooLarge = (message: string): Outcome => ({
  kind: "failed",
  error: { code: deliveryOutcome.badAnswer, message },
});

const signed = ({ ports }: Scope, agent: Agent, id: string, body: string): Record<string, string> =>
  signatureHeaders(unseal(agent.deliverySecret ?? "", ports.outbound.secretKey()), id, ports.clock.now(), body);

const message = (type: string, at: number, data: string): string =>
  `{"type":"${type}","timestamp":"${new Date(at).toISOString()}","data":${data}}`;

async function assignedMessage(scope: Scope, task: Task, agent: Agent): Promise<string> {
  const { clock, outbound } = scope.ports;
  const info = toInfo(task);
  if (task.inputBlob !== undefined) info.input = await readBlob(scope, task.inputBlob);
  const at = `${outbound.publicUrl() ?? ""}/v1/tasks/${task.id}`;
  const callbacks = Object.fromEntries(
    ["start", "heartbeat", "complete", "fail", "release"].map((verb) => [verb, `${at}/${verb}`]),
  );
  const expiresAt = new Date(clock.now() + agent.leaseSeconds * 1000).toISOString();
  const rest = JSON.stringify({ fence: task.fence, attempt: task.attempt, agentId: agent.id, expiresAt, callbacks });
  return message("task.assigned", task.assignedAt ?? clock.now(), `{"task":${toJson(info)},${rest.slice(1)}`);
}

/** Once and no more: an agent that did not hear of it is fenced off when the grace time is over. */
async function tellCancelled(
  scope: Scope,
  task: Task,
  agent: Agent & { delivery: Target },
  { taskId, fence }: Order,
): Promise<void> {
  const { outbound, store, clock } = scope.ports;
  await store.settled();
  const reason = task.error?.message ?? "";
  const until = task.cancelAt === undefined ? {} : { fencedAt: new Date(task.cancelAt).toISOString() };
  const body = message("task.cancelled", clock.now(), JSON.stringify({ taskId, fence, reason, ...until }));
  const { delivery } = agent;
  try {
    if (delivery.type === "webhook") {
      const headers = signed(scope, agent, `msg_${taskId}_${fence}_cancelled`, body);
      await outbound.http({ url: delivery.url, headers, body });
    } else if (delivery.type === "queue") await outbound.send(delivery.queueUrl, body);
  } catch (error) {
    if (!isError(error, deliveryErrors.failed) && !isError(error, deliveryErrors.answerTooLarge)) throw error;
  }
}

/** It was reached after deliveries that failed: it is there again, with all it has room for. */
async function reached(scope: Scope, agentId: string): Promise<void> {
  await change(scope, agentId, (row, now) => (row.state === "stopped" ? undefined : heard(row, now)));
  await serveAgent(scope, agentId);
}

/** One try failed: another follows, or the attempt has failed; and an agent that fails too often is lost. */
async function missed(
  scope: Scope,
  agent: Agent,
  order: Order,
  { reason, retryAfterSeconds = 0 }: Extract<Outcome, { kind: "missed" }>,
): Promise<void> {
  const { taskId, fence } = order;
  const failed = (order.failed ?? 0) + 1;
  const over = failed >= tries;
  if (over) await undelivered(scope, taskId, fence, `agent ${agent.name} could not be reached: ${reason}`);
  if (await countMiss(scope, agent, reason)) {
    await settle(() => release(scope, taskId, { fence, reason: "its agent could not be reached" }));
    await takeBack(scope, agent.id, "released", "its agent is lost", (task) => task.status !== "assigned");
  } else if (!over) {
    const delaySeconds = Math.max(backoffSeconds(failed), Math.min(retryAfterSeconds, longestRetryAfterSeconds));
    await scope.ports.queues.deliver.send([{ body: { ...order, failed }, delaySeconds }]);
  }
}

/** @returns whether the agent is lost */
async function countMiss(scope: Scope, agent: Agent, reason: string): Promise<boolean> {
  const { id: agentId } = agent;
  const at = scope.ports.clock.now();
  const counted = await scope.ports.store.write({
    update: agentKey(scope.tenant, agentId),
    kind: "agent",
    add: { misses: 1 },
    set: { missReason: reason.slice(0, 500), ...(agent.misses === undefined && { missedAt: at }) },
    if: { exists: true },
  });
  const row = counted.ok ? (counted.item as Agent) : undefined;
  const often = (row?.misses ?? 0) >= lostAfter.misses && (row?.missedAt ?? at) <= at - lostAfter.seconds * 1000;
  if (!row || (!row.probing && !often)) return row?.state === "lost";
  const { state } = await change(scope, agentId, (row, now) => {
    // One that is paused or draining gets nothing new anyhow, and keeps what it was set to.
    if (row.state !== "active") return undefined;
    const probes = (row.probes ?? 0) + 1;
    const waitSeconds = Math.min(probeSeconds.longest, probeSeconds.first * 2 ** (probes - 1));
    return { state: "lost", probing: undefined, probes, probeAt: now + waitSeconds * 1000 };
  });
  return state === "lost";
}
