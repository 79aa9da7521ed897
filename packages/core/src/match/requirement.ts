import type { Requirement, Selector } from "../task/schema.ts";

/** What an agent must have to serve a lane. Preferences are not part of it: they only rank. */
export interface Need {
  readonly requires: readonly Requirement[];
  /** Required selectors only. */
  readonly labels: readonly Selector[];
  readonly role?: string;
  /** The one agent that may serve it. */
  readonly agentId?: string;
  readonly slots: number;
}

/** What matching reads of an agent. */
export interface Offer {
  readonly id: string;
  readonly capabilities: ReadonlyMap<string, { readonly level: number; readonly cost: number }>;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly role: string | undefined;
  readonly maxConcurrency: number;
}

/** What a task needs, from the fields it was made with. */
export function needOf(task: {
  readonly requires?: readonly Requirement[] | undefined;
  readonly labels?: readonly Selector[] | undefined;
  readonly role?: string | undefined;
  readonly boundAgentId?: string | undefined;
  readonly slots: number;
}): Need {
  return {
    requires: task.requires ?? [],
    labels: task.labels?.filter((selector) => selector.required) ?? [],
    slots: task.slots,
    ...(task.role !== undefined && { role: task.role }),
    ...(task.boundAgentId !== undefined && { agentId: task.boundAgentId }),
  };
}

/** The capabilities that are asked for, each once; the empty name where none is. */
export const capabilitiesOf = (requires: readonly Requirement[] = []): ReadonlySet<string> =>
  new Set(requires.length === 0 ? [""] : requires.map(({ capability }) => capability));

/** Tasks with equal signatures can be served by the same agents and wait in one lane. */
export function signature(need: Need): string {
  const more = need.slots > 1 ? `:${need.slots}` : "";
  if (need.requires.length === 0 && need.labels.length === 0 && need.role === undefined)
    return need.agentId === undefined ? `any${more}` : `agent:${need.agentId}${more}`;
  if (
    need.requires.length === 1 &&
    need.labels.length === 0 &&
    need.role === undefined &&
    need.slots === 1 &&
    need.agentId === undefined &&
    // With these in its name it would be called as another at a level.
    !need.requires[0]?.capability.includes(">=")
  ) {
    const [only] = need.requires;
    return `cap:${only?.capability}${only?.minLevel ? `>=${only.minLevel}` : ""}`;
  }
  return hash(
    JSON.stringify([
      need.requires.map((requirement) => [requirement.capability, requirement.minLevel ?? 0]).sort(byText),
      need.labels.map((selector) => [selector.key, selector.op, selector.value ?? null]).sort(byText),
      need.role ?? null,
      need.slots,
      // Others keep the names they had, by which their tasks are stored.
      ...(need.agentId === undefined ? [] : [need.agentId]),
    ]),
  );
}

const byText = (a: unknown, b: unknown) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);

/** 106 bits of FNV-1a in two lanes: a short name for a signature, not a secret. */
function hash(text: string): string {
  let a = 0xcbf29ce484222325n;
  let b = 0x84222325cbf29ce4n;
  for (let i = 0; i < text.length; i++) {
    const code = BigInt(text.charCodeAt(i));
    a = BigInt.asUintN(64, (a ^ code) * 0x100000001b3n);
    b = BigInt.asUintN(64, (b ^ (code + 0x9e37n)) * 0x100000001b3n);
  }
  return `sig:${a.toString(36)}${b.toString(36)}`;
}

export function selects(selector: Selector, labels: Readonly<Record<string, string | number>>): boolean {
  const has = Object.hasOwn(labels, selector.key);
  const value = has ? labels[selector.key] : undefined;
  const wanted = selector.value;
  switch (selector.op) {
    case "exists":
      return has === (wanted !== false);
    case "eq":
      return has && value === wanted;
    case "ne":
      return value !== wanted;
    case "in":
      return has && Array.isArray(wanted) && wanted.includes(value as string);
    default:
      if (typeof value !== "number" || typeof wanted !== "number") return false;
      return selector.op === "gt"
        ? value > wanted
        : selector.op === "gte"
          ? value >= wanted
          : selector.op === "lt"
            ? value < wanted
            : value <= wanted;
  }
}

/** Why the agent may not serve it, in words; undefined when it may. */
export function refusal(need: Need, agent: Offer): string | undefined {
  if (need.agentId !== undefined) {
    if (need.agentId !== agent.id) return "the task names another agent";
  }
  for (const { capability, minLevel } of need.requires) {
    const own = agent.capabilities.get(capability);
    if (own === undefined) return `lacks capability ${capability}`;
    if (minLevel !== undefined && own.level < minLevel)
      return `${capability} at level ${own.level} is below ${minLevel}`;
  }
  if (need.role !== undefined && agent.role !== need.role) return `has role ${agent.role ?? "none"}, not ${need.role}`;
  for (const selector of need.labels) {
    if (!selects(selector, agent.labels))
      return `label ${selector.key} does not match ${selector.op} ${JSON.stringify(selector.value ?? true)}`;
  }
  if (need.slots > agent.maxConcurrency) return `needs ${need.slots} slots, the agent has ${agent.maxConcurrency}`;
  return undefined;
}

/** The lane it waits in. */
export const laneOf = (task: Parameters<typeof needOf>[0]): string => signature(needOf(task));
