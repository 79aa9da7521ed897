import type * as W from "../types.ts";
import { type Caller, part } from "./caller.ts";
import type { CallOptions, CreateOptions } from "./options.ts";

/** What an agent works on, by task and fence. */
type Holding = { taskId: string; fence: number }[];

export function agentCalls({ call, every }: Caller) {
  const agentCall = (id: string, verb: string, how: CallOptions = {}) =>
    call<{ agent: W.Agent }>({ method: "POST", path: `/v1/agents/${part(id)}/${verb}`, body: {}, ...how }).then(
      ({ agent }) => agent,
    );
  const agents = {
    /** @returns the agent and its token, shown this once, as is the secret of a webhook for which none was given */
    register: (agent: W.RegisterAgent, how: CreateOptions = {}) =>
      call<{ agent: W.Agent; token: string; secret?: string }>({
        method: "POST",
        path: "/v1/agents",
        body: agent,
        creates: true,
        ...how,
      }),
    get: (id: string, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ path: `/v1/agents/${part(id)}`, ...how }).then(({ agent }) => agent),
    list: (query: W.AgentQuery = {}, how: CallOptions = {}) =>
      call<W.Page<W.Agent>>({ path: "/v1/agents", query, ...how }),
    all: (query: W.AgentQuery = {}, how?: CallOptions) => every(agents.list, query, how),
    update: (id: string, patch: W.PatchAgent, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ method: "PATCH", path: `/v1/agents/${part(id)}`, body: patch, ...how }).then(
        ({ agent }) => agent,
      ),
    /** How work reaches it from now on. @returns the secret too of a webhook that had none, shown this once */
    setDelivery: (id: string, delivery: W.Delivery, how: CallOptions = {}) =>
      call<{ agent: W.Agent; secret?: string }>({
        method: "PATCH",
        path: `/v1/agents/${part(id)}`,
        body: { delivery },
        // Made again, it would keep the secret that the lost answer showed.
        once: true,
        ...how,
      }),
    /** No new work; what runs goes on. */
    drain: (id: string, how?: CallOptions) => agentCall(id, "drain", how),
    pause: (id: string, how?: CallOptions) => agentCall(id, "pause", how),
    resume: (id: string, how?: CallOptions) => agentCall(id, "resume", how),
    /** `graceful` (default): finishes what runs, then stops. `force`: what runs is given to others now. */
    remove: (id: string, query: { mode?: "graceful" | "force"; graceSeconds?: number } = {}, how: CallOptions = {}) =>
      call<{ agent: W.Agent }>({ method: "DELETE", path: `/v1/agents/${part(id)}`, query, ...how }).then(
        (answer) => answer?.agent,
      ),
    lease: (id: string, body: { max?: number; waitSeconds?: number; holding?: Holding } = {}, how: CallOptions = {}) =>
      call<{ assignments: W.Assignment[] }>({
        method: "POST",
        path: `/v1/agents/${part(id)}/lease`,
        body,
        waitSeconds: body.waitSeconds ?? 0,
        ...how,
      }).then(({ assignments }) => assignments),
    heartbeat: (id: string, body: { holding?: Holding } = {}, how: CallOptions = {}) =>
      call<{ commands: W.Commands }>({ method: "POST", path: `/v1/agents/${part(id)}/heartbeat`, body, ...how }).then(
        ({ commands }) => commands,
      ),
  };
  return agents;
}
