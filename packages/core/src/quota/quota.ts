import { requestErrors } from "../error.ts";
import { firstTenant } from "../key/key.ts";
import { changePolicy, policyOf } from "../policy.ts";
import type { Scope } from "../scope.ts";
import type { Info, Quotas } from "./schema.ts";
import { usage } from "./usage.ts";

/** The caller's own, or with a key of the first tenant any tenant's. */
function scopeOf(scope: Scope, tenant: string): Scope {
  if (tenant !== scope.tenant && scope.tenant !== firstTenant)
    throw requestErrors.forbidden("only a key of the first tenant may see the quotas of another");
  return { ...scope, tenant };
}

/** What a tenant may have, and what it has. @throws `auth.forbidden` */
export async function get(scope: Scope, tenant: string): Promise<Info> {
  const own = scopeOf(scope, tenant);
  return { tenant, quotas: (await policyOf(scope.ports, tenant)).quotas, usage: await usage(own) };
}

/** Sets what a tenant may have, all of it. What is there already stays. @throws `auth.forbidden` */
export async function put(scope: Scope, tenant: string, quotas: Quotas): Promise<Info> {
  if (scope.tenant !== firstTenant) throw requestErrors.forbidden("only an admin of the first tenant may set quotas");
  await changePolicy(scope.ports, tenant, () => ({ quotas }));
  return get(scope, tenant);
}
