import { defineError } from "../error.ts";

export const notFound = defineError("agent.not_found", { status: 404, title: "Agent not found", retry: "never" });
export const exists = defineError("agent.exists", { status: 409, title: "Agent name is taken", retry: "never" });
export const stopped = defineError("agent.stopped", { status: 409, title: "Agent is stopped", retry: "never" });
/** A removed agent does not come back: its name may be registered anew. @throws `agent.stopped` */
export function refuseStopped({ name, state }: { readonly name: string; readonly state: string }): void {
  if (state === "stopped") throw stopped(`agent ${name} is stopped; register it again`);
}
export const conflict = defineError("agent.conflict", {
  status: 409,
  title: "Agent is being changed by others",
  retry: "later",
});
