import { defineError } from "../error.ts";

/** What went wrong with one try; the detail is kept for whoever looks at the agent. */
export const deliveryErrors = {
  failed: defineError("delivery.failed", { status: 502, title: "Work could not be delivered", retry: "later" }),
  answerTooLarge: defineError("delivery.answer_too_large", {
    status: 502,
    title: "The answer to a delivery is too large",
    retry: "never",
  }),
} as const;

const isDelivered = defineError("agent.delivered", {
  status: 409,
  title: "Work is delivered to this agent",
  retry: "never",
});

/** It need not ask: asking as well would give it the same work twice. */
export const delivered = (agent: { readonly name: string; readonly delivery: { readonly type: string } }) =>
  isDelivered(`work is delivered to ${agent.name} by ${agent.delivery.type}`);

/** Codes found in `task.error` when a delivery ended the attempt. */
export const deliveryOutcome = {
  unreachable: "agent.unreachable",
  badAnswer: "agent.bad_answer",
  functionError: "agent.function_error",
} as const;
