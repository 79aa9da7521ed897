import type { z } from "zod/mini";
import { type Delivery, isCalled } from "../delivery/schema.ts";
import { newWebhookSecret, seal } from "../delivery/secret.ts";
import { requestErrors } from "../error.ts";
import { createId } from "../id.ts";
import { checkInline } from "../json.ts";
import type { Directory } from "../match/directory.ts";
import { serveAgent } from "../match/dispatch.ts";
import { endConnection, openFor, openKnown } from "../match/open.ts";
import { offersMore, offerWrite, yieldTo } from "../match/shared.ts";
import { decodeCursor, encodeCursor, newest } from "../page.ts";
import type { Item, Write } from "../port/index.ts";
import { reserve } from "../quota/reserve.ts";
import { agentKey, agentNameKey, agentPartition, agentShards, bearerKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import { bearerRow, hashOf, newSecret, tellRevoked } from "../secret.ts";
import { whereIs } from "../task/change.ts";
import { takeBack } from "../task/end.ts";
import type { Row as TaskRow } from "../task/row.ts";
import { conflict, exists, notFound, refuseStopped } from "./error.ts";
import { stop } from "./leave.ts";
import { type AgentMessage, tell } from "./message.ts";
import { advance, back, type Row, reachable, statusOf, toInfo } from "./row.ts";
import type { Info, ListQuery, Patch, Register, RemoveQuery } from "./schema.ts";

const tries = 20;

export async function read(scope: Scope, id: string): Promise<Row> {
  const row = (await scope.ports.store.get(agentKey(scope.tenant, id))) as Row | undefined;
  if (!row) throw notFound(`there is no agent ${id}`);
  return row;
}

/** Reads, decides, writes on the condition that nobody changed the agent meanwhile; the directory learns of it. */
export async function change(
  scope: Scope,
  id: string,
  decide: (row: Row, now: number) => Parameters<typeof advance>[1] | undefined,
  also: (row: Row) => Write[] = () => [],
): Promise<Row> {
  const { shared } = scope.ports;
  for (let attempt = 0; attempt < tries; attempt++) {
    if (shared) await yieldTo(scope.ports, attempt);
    const row = await read(scope, id);
    const now = scope.ports.clock.now();
    const changes = decide(row, now);
    if (!changes) return row;
    const { next, write } = advance(row, changes, now);
    const offer = shared && offersMore(row, next) ? [offerWrite(scope, id)] : [];
    if (!(await scope.ports.store.transact([write, ...also(row), ...offer])).ok) continue;
    const directory = await openKnown(scope.ports, scope.tenant);
    if (next.state !== "stopped") directory.set(next);
    return next;
  }
  throw conflict(`agent ${id} is being changed by others; try again`);
}

/**
 * Checks where work is to be delivered to, and sees to the secret of a webhook: the one given, else `kept`, else a new one.
 * @returns what to store, and the secret when it was made here, to be shown once
 * @throws `request.invalid`
 */
async function prepare(scope: Scope, delivery: Delivery, kept?: string) {
  const { outbound } = scope.ports;
  if (delivery.type === "pull") return { settings: { delivery, deliverySecret: undefined } };
  const { target, given } =
    delivery.type === "webhook"
      ? { target: { type: delivery.type, url: delivery.url } as const, given: delivery.secret }
      : { target: delivery, given: undefined };
  const refused = await outbound.check(target);
  if (refused !== undefined) {
    const field = { webhook: "url", lambda: "functionArn", queue: "queueUrl" }[target.type];
    throw requestErrors.invalid(refused, { errors: [{ path: `delivery.${field}`, message: refused }] });
  }
  if (target.type !== "webhook") return { settings: { delivery: target, deliverySecret: undefined } };
  const made = given === undefined && kept === undefined ? newWebhookSecret() : undefined;
  const secret = given ?? made;
  const deliverySecret = secret === undefined ? kept : seal(secret, outbound.secretKey());
  return { settings: { delivery: target, deliverySecret }, ...(made !== undefined && { secret: made }) };
}

/** `secret`: of a webhook for which none was given. */
export interface Registered {
  readonly agent: Info;
  readonly token: string;
  readonly secret?: string;
}

/**
 * Makes an agent and its token, which is shown here and never again, as is the secret of a webhook.
 * With `onConflict: "replace"` a taken name keeps its id: the old token is void, and what it held is given to others.
 * @throws `agent.exists`, `request.invalid`, `store.item_too_large`
 */
export async function register(scope: Scope, input: Register): Promise<Registered> {
  checkInline("metadata", input.metadata);
  const { settings: delivery, ...secret } = await prepare(scope, input.delivery);
  for (let attempt = 0; attempt < tries; attempt++) {
    const token = newSecret("wga");
    const settings: Settings = {
      name: input.name,
      capabilities: input.capabilities as Row["capabilities"],
      labels: input.labels,
      maxConcurrency: input.maxConcurrency,
      ...delivery,
      leaseSeconds: input.leaseSeconds,
      role: input.role,
      type: input.type,
      description: input.description,
      metadata: input.metadata,
      tokenHash: hashOf(token),
    };
    const name = await scope.ports.store.get(agentNameKey(scope.tenant, input.name));
    if (name && input.onConflict === "reject")
      throw exists(`an agent named ${input.name} is registered already; use onConflict: "replace" to take its place`);
    const agent = await (name ? replace(scope, name.agentId as string, settings) : add(scope, settings));
    if (agent) return { agent, token, ...secret };
  }
  throw conflict(`agent ${input.name} is being registered by others; try again`);
}

/** What whoever registers an agent says of it, and the hash of its token. */
type Settings = Parameters<typeof advance>[1] &
  Pick<Row, "name" | "capabilities" | "delivery" | "leaseSeconds" | "tokenHash">;

/** The agent of a name is another from now on. undefined when others changed it meanwhile. */
async function replace(scope: Scope, id: string, settings: Settings): Promise<Info | undefined> {
  const { store, clock, shared } = scope.ports;
  const directory = await openKnown(scope.ports, scope.tenant);
  const now = clock.now();
  const old = (await store.get(agentKey(scope.tenant, id))) as Row | undefined;
  if (!old) return undefined;
  const { next, write } = advance(
    old,
    {
      ...settings,
      ...reachable,
      state: "active",
      lastSeenAt: undefined,
      // What the old one held is taken back below, or by this lease: the process may die before, and nobody come again.
      expiresAt: old.used > 0 && !isCalled(settings) ? now + settings.leaseSeconds * 1000 : undefined,
      stopAt: undefined,
      drainedAt: undefined,
      registeredAt: now,
      connectionId: undefined,
      carriedUntil: undefined,
    },
    now,
  );
  const { ok } = await store.transact([
    write,
    { put: bearerRow(settings.tokenHash, scope.tenant, { role: "agent", id }) },
    { delete: bearerKey(old.tokenHash) },
    ...(shared ? [offerWrite(scope, id)] : []),
  ]);
  if (!ok) return undefined;
  directory.set(next);
  await endConnection(scope.ports, scope.tenant, id);
  tell(scope, old, { stop: true, reason: "another process registered under this name" });
  tellRevoked(scope.ports, old.tokenHash);
  await takeBack(scope, id, "released", replacedReason);
  return toInfo(await read(scope, id));
}

/** A new agent. undefined when the name was taken meanwhile. */
async function add(scope: Scope, settings: Settings): Promise<Info | undefined> {
  const { store, clock, random, shared } = scope.ports;
  const directory = await openKnown(scope.ports, scope.tenant);
  const now = clock.now();
  const id = createId("agt", now, random);
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  const row = {
    ...agentKey(scope.tenant, id),
    kind: "agent",
    id,
    tenant: scope.tenant,
    rev: 1,
    state: "active",
    used: 0,
    completed: 0,
    failed: 0,
    busyMs: 0,
    createdAt: now,
    registeredAt: now,
    changedAt: now,
    ...Object.fromEntries(given),
  } as unknown as Row;
  const room = await reserve(scope, () => ({ agents: 1 }));
  try {
    const { ok } = await store.transact([
      { put: row, if: { exists: false } },
      { put: { ...agentNameKey(scope.tenant, settings.name), kind: "name", agentId: id }, if: { exists: false } },
      { put: bearerRow(settings.tokenHash, scope.tenant, { role: "agent", id }) },
      ...(shared ? [offerWrite(scope, id)] : []),
    ]);
    if (!ok) return undefined;
    room.taken();
  } finally {
    room.release();
  }
  directory.set(row);
  return toInfo(row);
}

/**
 * As callers see them. Each sign of life that is written costs a write, so where one process hears them all, most are only remembered;
 * on a shared store what is shown is up to a third of a lease old.
 */
async function shown({ ports, tenant }: Scope, rows: readonly Row[]): Promise<Info[]> {
  if (ports.shared) return rows.map(toInfo);
  const { members } = await openKnown(ports, tenant);
  return rows.map((row) => {
    const info = toInfo(row);
    const lastSeenAt = members.get(row.id)?.lastSeenAt ?? 0;
    if (row.lastSeenAt === undefined || lastSeenAt <= row.lastSeenAt) return info;
    info.lastSeenAt = new Date(lastSeenAt).toISOString();
    if (row.expiresAt !== undefined)
      info.leaseExpiresAt = new Date(Math.max(row.expiresAt, lastSeenAt + row.leaseSeconds * 1000)).toISOString();
    return info;
  });
}

export const get = async (scope: Scope, id: string): Promise<Info> =>
  (await shown(scope, [await read(scope, id)]))[0] as Info;

/** Keys may have colons in them, too. */
const isLabelled = ({ labels }: Row, label: string): boolean =>
  Object.entries(labels).some(([key, value]) => `${key}:${value}` === label);

/** Rows looked at for one page of a filtered list. */
const pageEffort = 2000;

/** Agents newest first. */
export async function list(
  scope: Scope,
  query: z.output<typeof ListQuery>,
): Promise<{ items: Info[]; nextCursor?: string }> {
  let last = query.cursor === undefined ? undefined : decodeCursor("agents", query.cursor);
  const partitions = Array.from({ length: agentShards }, (_, shard) => agentPartition(scope.tenant, shard));
  const wanted = (row: Row) =>
    (query.status === undefined || statusOf(row) === query.status) &&
    (query.role === undefined || row.role === query.role) &&
    (query.type === undefined || row.type === query.type) &&
    (query.capability === undefined || row.capabilities.some((own) => own.name === query.capability)) &&
    (query.label === undefined || isLabelled(row, query.label));
  const rows: Row[] = [];
  const page = async (more: boolean) => ({
    items: await shown(scope, rows),
    ...(more && { nextCursor: encodeCursor("agents", last as string) }),
  });
  for (let looked = 0; ; ) {
    const batch: Item[] = await newest(scope, partitions, query.limit + 1, last);
    for (const item of batch) {
      if (rows.length === query.limit) return page(true);
      if (wanted(item as Row)) rows.push(item as Row);
      last = item.sk;
    }
    looked += batch.length;
    if (batch.length <= query.limit) return page(false);
    if (looked >= pageEffort) return page(true);
  }
}

/**
 * Changes what the agent offers, or how work reaches it; work it has begun goes on. What was assigned and not begun is given back when
 * it is reached in another way from now on. One that asked for work and is called from now on gives back all it holds: whether
 * the process that began it is alive nobody hears any more.
 * @throws `agent.stopped`, `request.invalid`, `store.item_too_large`, and `auth.forbidden` to an agent that would have others called
 */
export async function update(scope: Scope, id: string, patch: Patch): Promise<Omit<Registered, "token">> {
  checkInline("metadata", patch.metadata);
  const { delivery: wanted, ...offer } = patch;
  if (wanted && scope.actor.role === "agent")
    throw requestErrors.forbidden("how work is delivered to an agent is for operators to change");
  const before = await read(scope, id);
  const kept = before.deliverySecret;
  const { settings, ...secret } = wanted ? await prepare(scope, wanted, kept) : { settings: undefined };
  const row = await change(scope, id, (row, now) => {
    refuseStopped(row);
    const given = Object.entries(offer).filter(([, value]) => value !== undefined);
    const changes = Object.fromEntries(given.map(([name, value]) => [name, value ?? undefined])) as Parameters<
      typeof advance
    >[1];
    if (!settings) return changes;
    const called = isCalled(settings);
    return {
      ...changes,
      ...settings,
      ...reachable,
      ...(called && { expiresAt: undefined, connectionId: undefined, carriedUntil: undefined }),
      ...(!called && isCalled(row) && { expiresAt: now + row.leaseSeconds * 1000 }),
      ...(called && back(row, now)),
    };
  });
  if (row.delivery.type !== before.delivery.type)
    await takeBack(
      scope,
      id,
      "released",
      deliveredReason,
      isCalled(row) && !isCalled(before) ? hasSilence : ({ status }) => status !== "assigned",
    );
  await serveAgent(scope, id);
  return { agent: toInfo(row), ...secret };
}

/**
 * An agent that asked for work is called from now on. What it was given before is given back, as nobody delivers it or hears of it.
 * For the outbox: whoever changed the agent does so, or died before.
 */
export async function takeBackAsked(scope: Scope, old: Row, next: Row): Promise<void> {
  const reason = old.registeredAt === next.registeredAt ? deliveredReason : replacedReason;
  await takeBack(scope, next.id, "released", reason, hasSilence);
}
/** It was given to the agent as one that is called. */
const hasSilence = ({ silenceSeconds }: TaskRow): boolean => silenceSeconds !== undefined;
const replacedReason = "its agent was replaced";
const deliveredReason = "it is delivered to in another way";

const settle = async (scope: Scope, id: string, message: AgentMessage) =>
  tell(scope, await whereIs(scope, id), message);

/** No new work; what runs goes on. */
export async function drain(scope: Scope, id: string): Promise<Info> {
  const row = await change(scope, id, (row, now) => {
    refuseStopped(row);
    if (row.state === "draining") return undefined;
    return { state: "draining", drainedAt: row.used === 0 ? now : undefined };
  });
  await settle(scope, id, { drain: true });
  return toInfo(row);
}

/** No new work until `resume`; what runs goes on. One that is being removed gets none anyway, and goes on to its end. */
export async function pause(scope: Scope, id: string): Promise<Info> {
  const row = await change(scope, id, (row) => {
    refuseStopped(row);
    return row.state === "paused" || row.stopAt !== undefined ? undefined : { state: "paused" };
  });
  await settle(scope, id, { pause: true });
  return toInfo(row);
}

/**
 * Takes work again, after a pause or a drain. A lost one that is not called does once it is heard of: that it is there nobody but
 * itself can say.
 */
export async function resume(scope: Scope, id: string): Promise<Info> {
  const row = await change(scope, id, (row) => {
    refuseStopped(row);
    if (row.state === "active") return undefined;
    const resumed = { drainedAt: undefined, stopAt: undefined };
    if (row.state !== "lost" || isCalled(row)) return { ...resumed, ...reachable, state: "active" };
    return row.lostFrom === undefined && row.stopAt === undefined ? undefined : { ...resumed, lostFrom: undefined };
  });
  await settle(scope, id, { pause: false });
  await serveAgent(scope, id);
  return toInfo(row);
}

/**
 * Removes an agent. `graceful`: it finishes what it runs, for `graceSeconds` at most. `force`: at once; what it held
 * goes to others, the attempts not counted. A stopped agent stays as it is.
 */
export async function remove(scope: Scope, id: string, query: z.output<typeof RemoveQuery>): Promise<Info> {
  const directory = await openFor(scope.ports, scope.tenant, id);
  const row = await change(scope, id, (row, now) => {
    if (row.state === "stopped") return undefined;
    const stopAt = query.mode === "force" ? now : now + query.graceSeconds * 1000;
    return { state: "draining", stopAt };
  });
  if (row.state === "stopped") return toInfo(row);
  if (query.mode === "graceful" && row.used > 0) {
    await settle(scope, id, { drain: true });
    return toInfo(row);
  }
  return toInfo(await finish(scope, directory, id));
}

/** Ends an agent whose time is up: what it still holds goes to others. */
export async function finish(scope: Scope, directory: Directory, id: string): Promise<Row> {
  await takeBack(scope, id, "released", "its agent was removed");
  for (let attempt = 0; attempt < tries; attempt++) {
    const row = await read(scope, id);
    if (row.state === "stopped") return row;
    const next = await stop(scope, directory, row);
    if (next) return next;
  }
  throw conflict(`agent ${id} is being changed by others; try again`);
}
