/** What a stage is called and how it is guarded. */
export const isProduction = (stage: string): boolean => stage === "production";

/** The name of a resource that no component names: no two stages, and no two apps, share one. */
export const named = (name: string): string => `${$app.name}-${$app.stage}-${name}`;

/** The name of a component, which SST puts app and stage before. */
export const titled = (...names: readonly string[]): string =>
  names.map((name) => name[0]?.toUpperCase() + name.slice(1)).join("");

/** On what a stage consists of. */
export const tags = { "waggle:stage": $app.stage };

/**
 * On functions and queues of agents that a stage may call. No part of a stage carries it: an agent that names Waggle's own
 * queue as its own must not get a message into it.
 */
export const agentTag = "waggle:agent";
