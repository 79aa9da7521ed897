import { createHash } from "node:crypto";
import * as z from "zod/mini";
import { requestErrors } from "./error.ts";
import { isId } from "./id.ts";
import type { JsonText } from "./json.ts";
import { find } from "./key/key.ts";
import { tenantName } from "./key/schema.ts";
import type { Ports, Value } from "./port/index.ts";
import { parse } from "./problem.ts";
import type { Scope } from "./scope.ts";
import { create } from "./task/create.ts";
import * as task from "./task/schema.ts";

/** An event may cause a task, whose event causes another: so many times at most. */
const hopsMax = 8;

/**
 * What the intake queue carries: an event that a rule of EventBridge made a task of. The rule's input transformer says for
 * whom: the tenant, and the id of a key of it, which the task is submitted by. Who writes events says nothing of that, since
 * anybody who may put events on the bus could then act for any tenant.
 *
 * The task is `task`, or `detail.task`, or the whole `detail`.
 * @example {"tenant": "acme", "key": "key_…", "id": <id>, "task": {"type": "report", "input": <detail>}}
 */
const Intake = z.looseObject({
  tenant: tenantName,
  key: z.string().check(z.refine((id) => isId("key", id), "expected the id of a key: key_ and 22 characters")),
  /** The event's. A repeated one makes no second task, for 24 h; a rule that makes another task of it makes its own. */
  id: z.optional(z.string().check(z.minLength(1), z.maxLength(128))),
  task: z.optional(z.record(z.string(), z.unknown())),
  detail: z.optional(z.record(z.string(), z.unknown())),
});

/**
 * Submits the task of one message of the intake queue.
 * @param messageId stands for the event's id where the rule does not pass it on
 * @throws `request.invalid`, `auth.required`, `auth.forbidden`, and what `Task.create` throws
 */
export async function intake(ports: Ports, body: Value, messageId: string): Promise<task.Info> {
  const { tenant: named, key: by } = (body ?? {}) as { tenant?: unknown; key?: unknown };
  if (named === undefined || by === undefined)
    throw requestErrors.invalid("the rule's input transformer has to name the tenant and the id of a key of it");
  const { tenant, key, id = messageId, detail, task: given } = parse(Intake, body);
  const actor = await find(ports, tenant, key);
  if (!actor) throw requestErrors.unauthenticated(`tenant ${tenant} has no key ${key}`);
  if (actor.role === "reader" || actor.role === "agent")
    throw requestErrors.forbidden(`a ${actor.role} submits no tasks`);
  const wanted = given ?? record(detail?.task) ?? detail;
  if (!wanted) throw requestErrors.invalid("the event has no task: give task, detail.task or detail");
  const hops = Math.max(hopsOf(detail), hopsOf(ownEvent(wanted.input))) + 1;
  if (hops > hopsMax)
    throw requestErrors.invalid(`${hops} tasks caused one another by their events; at most ${hopsMax} may`);
  const { input, metadata, ...rest } = wanted;
  const text = (value: unknown) => (value === undefined ? undefined : (JSON.stringify(value) as JsonText));
  const made = parse(task.Create, { ...rest, input: text(input), metadata: text(metadata) });
  const hash = createHash("sha256").update(JSON.stringify(wanted)).digest("hex");
  const scope: Scope = { tenant, actor, ports, requestId: id };
  const idempotency = { key: `event/${key}/${id}/${hash}`, hash };
  // On AWS whoever takes events may not touch agents.
  return (await create(scope, made, { idempotency, hops, queued: ports.shared })).task;
}

const record = (value: unknown): Readonly<Record<string, unknown>> | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;

/** A rule on our own bus may make the task's input of the event. What others send may say anything of `hops`. */
function ownEvent(input: unknown): Readonly<Record<string, unknown>> | undefined {
  const event = record(input);
  const { subject, sequence } = record(event?.metadata) ?? {};
  return typeof subject === "string" && typeof sequence === "number" ? event : undefined;
}

/** Our own events say how many came before. */
function hopsOf(detail: Readonly<Record<string, unknown>> | undefined): number {
  const hops = record(detail?.metadata)?.hops;
  return typeof hops === "number" && hops > 0 ? Math.floor(hops) : 0;
}
