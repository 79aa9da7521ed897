import type { z } from "zod";
import { open } from "../match/directory.ts";
import { agentChannel, take, toAssignment } from "../match/dispatch.ts";
import type { Scope } from "../scope.ts";
import type { Assignment } from "../task/schema.ts";
import { stopped } from "./error.ts";
import { read } from "./manage.ts";
import type { Lease } from "./schema.ts";

/**
 * Work for an agent that asks: what waits for it now, else what comes within `waitSeconds`. Empty when nothing did,
 * or when the agent is paused, draining or full.
 */
export async function lease(
  scope: Scope,
  id: string,
  input: z.output<typeof Lease>,
  signal?: AbortSignal,
): Promise<Assignment[]> {
  const directory = await open(scope.ports, scope.tenant);
  const member = directory.members.get(id);
  if (!member) {
    const row = await read(scope, id);
    throw stopped(`agent ${row.name} is ${row.state}; register it again`);
  }
  const ready = await take(scope, directory, member, input.max);
  if (ready.length > 0) return Promise.all(ready.map((task) => toAssignment(scope, task, member)));
  if (input.waitSeconds === 0 || member.row.state !== "active" || signal?.aborted) return [];
  const { live, clock } = scope.ports;
  const want = Math.min(input.max, member.maxConcurrency - member.used);
  if (want <= 0) return [];
  return new Promise((resolve) => {
    let given = 0;
    const finish = (assignments: Assignment[]) => {
      unsubscribe();
      stop();
      signal?.removeEventListener("abort", abort);
      member.wanted = Math.max(0, member.wanted - (want - given));
      directory.refresh(member);
      resolve(assignments);
    };
    const abort = () => finish([]);
    const unsubscribe = live.subscribe(
      agentChannel(scope.tenant, id),
      (message: { assign?: Assignment[]; stop?: true; drain?: boolean; pause?: boolean }) => {
        if (message.assign) {
          given += message.assign.length;
          finish(message.assign);
        } else if (message.stop || message.drain || message.pause) finish([]);
      },
    );
    const stop = clock.after(input.waitSeconds * 1000, abort);
    signal?.addEventListener("abort", abort);
    member.wanted += want;
    directory.refresh(member);
    // A task may have been parked between the look and the wait.
    take(scope, directory, member, 1).then(
      async (late) => {
        if (late.length === 0) return;
        const assignments = await Promise.all(late.map((task) => toAssignment(scope, task, member)));
        finish(assignments);
      },
      () => abort(),
    );
  });
}
