import { defineError, requestErrors } from "../error.ts";
import { createId } from "../id.ts";
import { decodeCursor, encodeCursor, pages } from "../page.ts";
import type { Item, Ports, Write } from "../port/index.ts";
import { adoptedKey, bearerKey, keyListPartition, tenantKey } from "../rows.ts";
import { type Actor, type Role, type Scope, systemScope } from "../scope.ts";
import { bearerRow, hashOf, newSecret, revokedRow, tellRevoked } from "../secret.ts";
import type { Create, Info } from "./schema.ts";

export const notFound = defineError("key.not_found", { status: 404, title: "Key not found", retry: "never" });
export const lastAdmin = defineError("key.last_admin", {
  status: 409,
  title: "The last admin key of a tenant",
  retry: "never",
});

interface Row extends Item {
  readonly kind: "key";
  readonly id: string;
  readonly tenant: string;
  readonly role: Info["role"];
  readonly hash: string;
  readonly hint: string;
  readonly createdAt: number;
  readonly name?: string;
}

/** The tenant of the first admin, who may make keys for new tenants. */
export const firstTenant = "default";

/** Makes an admin key of the first tenant, for whoever owns the machine or the account. */
export async function bootstrap(ports: Ports): Promise<string> {
  const { key } = await create(systemScope(ports, firstTenant, "bootstrap"), { role: "admin", name: "made at start" });
  return key;
}

/**
 * Makes whoever bears the text of this hash (`hashOf`) an admin of the first tenant, once: a key that was revoked stays void.
 * For a deployment, whose owner makes the key and tells nobody but its hash.
 * @returns whether it was made now
 */
export async function adopt(ports: Ports, hash: string): Promise<boolean> {
  const mark = adoptedKey(hash);
  if (await ports.store.get(mark)) return false;
  const row = newRow(ports, firstTenant, { role: "admin", hash, hint: "wgk_", name: "made by the deployment" });
  const adopted: Write = { put: { ...mark, kind: "adopted", at: row.createdAt }, if: { exists: false } };
  return (await ports.store.transact([adopted, ...writesOf(row)])).ok;
}

function newRow(
  { clock, random }: Ports,
  tenant: string,
  given: {
    readonly role: Info["role"];
    readonly hash: string;
    readonly hint: string;
    readonly name?: string | undefined;
  },
): Row {
  const now = clock.now();
  const id = createId("key", now, random);
  const { name, ...rest } = given;
  return {
    pk: keyListPartition(tenant),
    sk: id,
    kind: "key",
    id,
    tenant,
    ...rest,
    createdAt: now,
    ...(name !== undefined && { name }),
  };
}

/** A key, who is found by it, and its tenant, which it may be the first of. */
const writesOf = (row: Row): Write[] => [
  { put: row, if: { exists: false } },
  { put: bearerRow(row.hash, row.tenant, row), if: { exists: false } },
  { put: { ...tenantKey(row.tenant), kind: "tenant" } },
];

/** Who bears this text; undefined for nobody. One strongly consistent read, so that a revoked key is void at once. */
export async function authenticate(
  ports: Ports,
  bearer: string,
): Promise<{ tenant: string; actor: Actor } | undefined> {
  if (!/^wg[ak]_[A-Za-z0-9_-]{27}$/.test(bearer)) return undefined;
  const row = await ports.store.get(bearerKey(hashOf(bearer)));
  if (row?.kind !== "bearer") return undefined;
  return { tenant: row.tenant as string, actor: { role: row.role as Role, id: row.id as string } };
}

/** The bearer of a key, known by the key's id: for what the tenant's admin has set up to act by it. */
export async function find(ports: Ports, tenant: string, id: string): Promise<Actor | undefined> {
  const row = await ports.store.get({ pk: keyListPartition(tenant), sk: id });
  return row && { role: row.role as Role, id };
}

/** Makes a key. It is shown here and never again. Only the first tenant's admin may name another tenant. */
export async function create(scope: Scope, input: Create): Promise<{ info: Info; key: string }> {
  const tenant = input.tenant ?? scope.tenant;
  if (tenant !== scope.tenant && scope.tenant !== firstTenant)
    throw requestErrors.forbidden("only an admin of the first tenant may make keys for other tenants");
  const key = newSecret("wgk");
  const { role, name } = input;
  const row = newRow(scope.ports, tenant, { role, hash: hashOf(key), hint: key.slice(0, 8), name });
  const result = await scope.ports.store.transact(writesOf(row));
  if (!result.ok) throw requestErrors.internal("the key could not be stored");
  return { info: toInfo(row), key };
}

const toInfo = (row: Row): Info => ({
  id: row.id,
  role: row.role,
  tenant: row.tenant,
  createdAt: new Date(row.createdAt).toISOString(),
  hint: `${row.hint}…`,
  ...(row.name !== undefined && { name: row.name }),
});

/** The tenant's keys, newest first, without their secrets. */
export async function list(
  scope: Scope,
  query: { limit: number; cursor?: string | undefined },
): Promise<{ items: Info[]; nextCursor?: string }> {
  const page = await scope.ports.store.query({
    pk: keyListPartition(scope.tenant),
    reverse: true,
    limit: query.limit,
    ...(query.cursor !== undefined && { after: decodeCursor("keys", query.cursor) }),
  });
  return {
    items: page.items.map((item) => toInfo(item as Row)),
    ...(page.last !== undefined && { nextCursor: encodeCursor("keys", page.last) }),
  };
}

/** Voids a key at once, and ends what still goes on by it. The last admin key of a tenant stays: without it nobody could make another. */
export async function revoke(scope: Scope, id: string): Promise<void> {
  const { store } = scope.ports;
  for (;;) {
    const row = (await store.get({ pk: keyListPartition(scope.tenant), sk: id })) as Row | undefined;
    if (!row) throw notFound(`there is no key ${id}`);
    const other = row.role === "admin" ? await otherAdmin(scope, id) : undefined;
    if (row.role === "admin" && !other) throw lastAdmin("this is the tenant's last admin key; make another first");
    const { ok } = await store.transact([
      { delete: { pk: row.pk, sk: row.sk } },
      { put: revokedRow(row.hash) },
      // Written as it is: it must still be there, or two admins could revoke one another.
      ...(other ? [{ put: other, if: { exists: true } }] : []),
    ]);
    if (!ok) continue;
    tellRevoked(scope.ports, row.hash);
    return;
  }
}

async function otherAdmin(scope: Scope, id: string): Promise<Item | undefined> {
  for await (const keys of pages(scope.ports.store, keyListPartition(scope.tenant), 200)) {
    const other = keys.find((item) => item.role === "admin" && item.sk !== id);
    if (other) return other;
  }
  return undefined;
}
