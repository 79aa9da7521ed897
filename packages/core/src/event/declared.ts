import * as z from "zod/mini";

/** A kind of event: what it is called in the log and as `detail-type` on the bus, what its data holds, what it means. */
export interface EventKind {
  readonly type: string;
  readonly meaning: string;
  readonly data: z.ZodMiniObject;
}

/** Every declared kind by its type. */
export const eventKinds = new Map<string, EventKind>();

/** Whether a name stands for this type; `task.*` stands for a family. */
export const isNamed = (type: string, name: string): boolean =>
  name.endsWith("*") ? type.startsWith(name.slice(0, -1)) : type === name;

/** The types that a name stands for. */
export const typesLike = (name: string): string[] => [...eventKinds.keys()].filter((type) => isNamed(type, name));

/**
 * @param shape made when somebody asks what the data holds, not when a function starts
 * @example defineEvent("task.started", () => ({ attempt: z.number() }), "The attempt has begun.")
 */
function defineEvent(type: string, shape: () => z.core.$ZodLooseShape, meaning: string): void {
  eventKinds.set(type, {
    type,
    meaning,
    get data() {
      return z.object(shape());
    },
  });
}

const attempt = () => ({ attempt: z.number() });
const error = () => ({
  error: z.optional(z.object({ code: z.string(), message: z.string(), retryable: z.optional(z.boolean()) })),
});
const reason = () => ({ reason: z.optional(z.string()) });
const ended = () => ({ ...attempt(), ...reason(), usage: z.optional(z.record(z.string(), z.number())) });
const named = () => ({ name: z.string() });

defineEvent(
  "task.created",
  () => ({ type: z.string(), priority: z.number(), parentId: z.optional(z.string()) }),
  "The task was taken.",
);
defineEvent("task.scheduled", () => ({ notBefore: z.optional(z.string()) }), "It waits for a time or for other tasks.");
defineEvent("task.queued", reason, "It waits for an agent.");
defineEvent("task.assigned", () => ({ ...attempt(), fence: z.number() }), "An agent was given it.");
defineEvent("task.started", attempt, "The attempt has begun.");
defineEvent(
  "task.progress",
  () => ({ percent: z.optional(z.number()), message: z.optional(z.string()) }),
  "Its agent said how far it is.",
);
defineEvent("task.released", reason, "It was given back, at no cost to its attempts.");
defineEvent(
  "task.retried",
  () => ({
    attempt: z.optional(z.number()),
    manual: z.optional(z.boolean()),
    notBefore: z.optional(z.string()),
    ...error(),
  }),
  "It is tried again.",
);
defineEvent("task.cancel_requested", reason, "Its agent is to stop.");
defineEvent("task.completed", ended, "It has ended with a result.");
defineEvent("task.failed", () => ({ ...ended(), ...error() }), "It has ended without one.");
defineEvent("task.cancelled", () => ({ ...ended(), ...error() }), "It was cancelled.");
defineEvent("task.expired", () => ({ ...ended(), ...error() }), "Its time was up.");
defineEvent(
  "agent.registered",
  () => ({ ...named(), role: z.nullable(z.string()), capabilities: z.array(z.string()) }),
  "The agent was registered, anew or in another's place.",
);
defineEvent("agent.updated", named, "What it offers has changed.");
defineEvent("agent.lost", () => ({ ...named(), held: z.number(), ...reason() }), "It was not heard of for its lease.");
for (const [type, meaning] of [
  ["back", "A lost agent was heard of again."],
  ["paused", "It takes no more work until it is resumed."],
  ["resumed", "It takes work again."],
  ["draining", "It takes no more work and finishes what it has."],
  ["drained", "It has finished what it had."],
  ["stopped", "It was removed."],
] as const)
  defineEvent(`agent.${type}`, named, meaning);
