import { toApiError } from "../error.ts";
import type * as W from "../types.ts";
import { type Caller, part } from "./caller.ts";
import type { CallOptions, CreateOptions, FollowOptions } from "./options.ts";

/** Everything but tasks and agents. */
export function operateCalls({ call, every, follow, open, timeoutMs }: Caller) {
  const events = {
    list: (query: { after?: number; limit?: number; types?: string } = {}, how: CallOptions = {}) =>
      call<{ items: W.WaggleEvent[]; nextAfter: number }>({ path: "/v1/events", query, ...how }),
    /** History from `after`, then live, without a gap; reconnects by itself until the signal aborts. */
    follow: (how: FollowOptions = {}): AsyncIterable<W.WaggleEvent> => follow("/v1/events", how),
  };
  const deadLetters = {
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Task>>({ path: "/v1/dead-letters", query, ...how }),
    all: (how?: CallOptions) => every(deadLetters.list, undefined, how),
    redrive: (body: W.Redrive, how: CallOptions = {}) =>
      call<{ redriven: number; skipped: { taskId: string; code: string }[]; nextCursor?: string }>({
        method: "POST",
        path: "/v1/dead-letters/redrive",
        body,
        creates: true,
        ...how,
      }),
  };
  const limits = {
    put: (key: string, body: W.PutLimit, how: CallOptions = {}) =>
      call<{ limit: W.Limit }>({ method: "PUT", path: `/v1/limits/${part(key)}`, body, ...how }).then(
        ({ limit }) => limit,
      ),
    get: (key: string, how: CallOptions = {}) =>
      call<{ limit: W.Limit }>({ path: `/v1/limits/${part(key)}`, ...how }).then(({ limit }) => limit),
    /** What tasks ask holds again. */
    remove: (key: string, how: CallOptions = {}) =>
      call<void>({ method: "DELETE", path: `/v1/limits/${part(key)}`, removes: true, ...how }),
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Limit>>({ path: "/v1/limits", query, ...how }),
    all: (how?: CallOptions) => every(limits.list, undefined, how),
  };
  const retention = {
    /** Seconds; 0 keeps for ever, what is left out stays as it is. */
    put: (body: W.PutRetention, how: CallOptions = {}) =>
      call<{ retention: W.Retention }>({ method: "PUT", path: "/v1/retention", body, ...how }).then(
        ({ retention }) => retention,
      ),
    get: (how: CallOptions = {}) =>
      call<{ retention: W.Retention }>({ path: "/v1/retention", ...how }).then(({ retention }) => retention),
  };
  const quotas = {
    /** All of a tenant's quotas; what is left out is not limited. By an admin of the first tenant. */
    put: (tenant: string, body: W.Quotas, how: CallOptions = {}) =>
      call<{ quota: W.Quota }>({ method: "PUT", path: `/v1/quotas/${part(tenant)}`, body, ...how }).then(
        ({ quota }) => quota,
      ),
    get: (tenant: string, how: CallOptions = {}) =>
      call<{ quota: W.Quota }>({ path: `/v1/quotas/${part(tenant)}`, ...how }).then(({ quota }) => quota),
  };
  const keys = {
    /** @returns the key, which is shown this once */
    create: (body: W.CreateKey, how: CreateOptions = {}) =>
      call<W.Key & { key: string }>({ method: "POST", path: "/v1/keys", body, creates: true, ...how }),
    list: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.Page<W.Key>>({ path: "/v1/keys", query, ...how }),
    all: (how?: CallOptions) => every(keys.list, undefined, how),
    revoke: (id: string, how: CallOptions = {}) =>
      call<void>({ method: "DELETE", path: `/v1/keys/${part(id)}`, removes: true, ...how }),
  };
  const status = {
    get: (how: CallOptions = {}) => call<W.Status>({ path: "/v1/status", ...how }),
    /** Reads the whole store, which may take minutes. Admins alone. */
    audit: (query: { tenant?: string } = {}, how: CallOptions = {}) =>
      call<W.AuditReport>({ path: "/v1/audit", query, timeoutSeconds: 900, ...how }),
    /** Needs no key. An unhealthy server answers 503 with the same body, which is returned, not thrown. */
    async health({ signal, timeoutSeconds }: CallOptions = {}): Promise<W.Health> {
      const { transport, headers } = open();
      const reply = await transport.send({
        method: "GET",
        path: "/health",
        headers,
        timeoutMs: timeoutSeconds === undefined ? timeoutMs : timeoutSeconds * 1000,
        signal,
      });
      try {
        const health = JSON.parse(reply.text) as W.Health;
        if (typeof health.status === "string") return health;
      } catch {
        // told below
      }
      throw toApiError(reply.status, reply.text, reply.header);
    },
  };
  /** Moving to another server; `waggle export` and `waggle import` do it by files. Admins alone. */
  const transfer = {
    export: (query: { limit?: number; cursor?: string } = {}, how: CallOptions = {}) =>
      call<W.ExportPage>({ path: "/v1/export", query, ...how }),
    import: (body: W.ImportRecords, how: CallOptions = {}) =>
      call<W.ImportAnswer>({ method: "POST", path: "/v1/import", body, ...how }),
  };
  return { events, deadLetters, limits, retention, quotas, keys, status, transfer };
}
