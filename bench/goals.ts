/** What a figure is, which way is better, and what is asked of it. */
export interface FigureKind {
  readonly workload: string;
  readonly figure: string;
  readonly what: string;
  readonly unit: "ms" | "/s" | "MiB" | "s" | "tasks" | "agents" | "lanes" | "×";
  readonly goal?: Goal;
}
export type Goal =
  | { readonly atMost: number; readonly of?: string }
  | { readonly atLeast: number; readonly of?: string };

/** The peer that promises the same: an acknowledged submit is on disk. */
const peer = "bullmq-always";

export const figureKinds: readonly FigureKind[] = [
  { workload: "W1", figure: "p50", what: "submit, p50", unit: "ms", goal: { atMost: 1, of: peer } },
  { workload: "W1", figure: "p99", what: "submit, p99", unit: "ms", goal: { atMost: 1, of: peer } },
  { workload: "W1", figure: "coldP50", what: "… cold, p50", unit: "ms" },
  { workload: "W1", figure: "coldP99", what: "… cold, p99", unit: "ms" },
  { workload: "W2", figure: "p50", what: "submit to result, p50", unit: "ms", goal: { atMost: 1, of: peer } },
  { workload: "W2", figure: "p99", what: "submit to result, p99", unit: "ms", goal: { atMost: 1, of: peer } },
  { workload: "W2", figure: "coldP50", what: "… cold, p50", unit: "ms" },
  { workload: "W2", figure: "coldP99", what: "… cold, p99", unit: "ms" },
  {
    workload: "W3",
    figure: "perSecond",
    what: "tasks, one agent of 100 slots",
    unit: "/s",
    goal: { atLeast: 1.5, of: peer },
  },
  { workload: "W3", figure: "coldPerSecond", what: "… cold", unit: "/s" },
  { workload: "W3", figure: "cpuMs", what: "processor time a task", unit: "ms" },
  { workload: "W3", figure: "cpuServerMs", what: "… of the server", unit: "ms" },
  { workload: "W3", figure: "cpuClientMs", what: "… of the client", unit: "ms" },
  { workload: "W3", figure: "cpuAgentsMs", what: "… of the agents", unit: "ms" },
  { workload: "W3", figure: "serverMiB", what: "server memory, peak", unit: "MiB", goal: { atMost: 100 } },
  { workload: "W3", figure: "agentsMiB", what: "agents memory, peak", unit: "MiB" },
  {
    workload: "W4",
    figure: "perSecond",
    what: "tasks, 100 agents of one slot",
    unit: "/s",
    goal: { atLeast: 1.5, of: peer },
  },
  { workload: "W4", figure: "coldPerSecond", what: "… cold", unit: "/s" },
  { workload: "W4", figure: "cpuMs", what: "processor time a task", unit: "ms" },
  { workload: "W4", figure: "serverMiB", what: "server memory, peak", unit: "MiB" },
  {
    workload: "W5",
    figure: "lost",
    what: "agents killed: without result after 30 s",
    unit: "tasks",
    goal: { atMost: 0 },
  },
  { workload: "W5", figure: "twice", what: "… done twice", unit: "tasks", goal: { atMost: 0 } },
  // The lease is 5 s: what dead agents held is theirs until then.
  { workload: "W5", figure: "recoverySeconds", what: "… until all is done", unit: "s", goal: { atMost: 6 } },
  {
    workload: "W5",
    figure: "serverLost",
    what: "server killed: without result after 30 s",
    unit: "tasks",
    goal: { atMost: 0 },
  },
  { workload: "W5", figure: "serverTwice", what: "… done twice", unit: "tasks", goal: { atMost: 0 } },
  { workload: "W5", figure: "serverRecoverySeconds", what: "… until all is done", unit: "s" },
  { workload: "W5", figure: "servingMs", what: "… until it takes tasks again", unit: "ms", goal: { atMost: 1000 } },
  { workload: "W6", figure: "agents", what: "registered, many", unit: "agents" },
  { workload: "W6", figure: "tasks", what: "stored, many", unit: "tasks" },
  { workload: "W6", figure: "smallMs", what: "submit to result, few agents and tasks", unit: "ms" },
  { workload: "W6", figure: "largeMs", what: "… many", unit: "ms" },
  { workload: "W6", figure: "ratio", what: "… many against few", unit: "×", goal: { atMost: 1.2 } },
  { workload: "W6", figure: "cpuRatio", what: "… processor time of the server", unit: "×", goal: { atMost: 1.2 } },
  { workload: "W6", figure: "serverMiB", what: "server memory, many", unit: "MiB" },
  { workload: "W7", figure: "aloneMs", what: "wait of ten small submitters, p99", unit: "ms" },
  { workload: "W7", figure: "besideMs", what: "… beside one that floods", unit: "ms" },
  { workload: "W7", figure: "ratio", what: "… against alone", unit: "×", goal: { atMost: 2 } },
  {
    workload: "memory",
    figure: "serverMiB",
    what: "server memory, 1,000 agents connected",
    unit: "MiB",
    goal: { atMost: 100 },
  },
  { workload: "memory", figure: "serverPeakMiB", what: "… at its peak, while they connect", unit: "MiB" },
  {
    workload: "start",
    figure: "firstMs",
    what: "command to first accepted task, new data",
    unit: "ms",
    goal: { atMost: 500 },
  },
  { workload: "start", figure: "againMs", what: "… with its data", unit: "ms", goal: { atMost: 500 } },
  { workload: "start", figure: "nodeMs", what: "… of an empty Node server", unit: "ms" },
  { workload: "open", figure: "tasks", what: "stored", unit: "tasks" },
  {
    workload: "open",
    figure: "killedMs",
    what: "command to first accepted task, after kill -9",
    unit: "ms",
    goal: { atMost: 1000 },
  },
  { workload: "open", figure: "againMs", what: "… after a stop", unit: "ms", goal: { atMost: 1000 } },
  { workload: "open", figure: "submitP99", what: "submit beside them, p99", unit: "ms" },
  { workload: "open", figure: "submitRatio", what: "… against 1,000 stored", unit: "×" },
  { workload: "waiting", figure: "tasks", what: "waiting", unit: "tasks" },
  { workload: "waiting", figure: "lanes", what: "… in", unit: "lanes" },
  { workload: "waiting", figure: "submitP99", what: "submit beside them, p99", unit: "ms" },
  { workload: "waiting", figure: "submitRatio", what: "… against none waiting", unit: "×" },
  { workload: "waiting", figure: "resultP50", what: "submit to result beside them, p50", unit: "ms" },
  { workload: "waiting", figure: "resultRatio", what: "… against none waiting", unit: "×" },
  { workload: "waiting", figure: "serverMiB", what: "server memory", unit: "MiB" },
  { workload: "waiting", figure: "openMs", what: "from kill -9 to healthy again", unit: "ms" },
];

export interface Verdict {
  readonly goal: string;
  /** Against the peer, where the goal is a ratio. */
  readonly ratio?: number;
  readonly met: boolean;
}

/** Undefined where nothing is asked, or the peer was not measured. */
export function verdict(
  kind: FigureKind,
  value: number,
  peerValue: (id: string) => number | undefined,
): Verdict | undefined {
  if (kind.goal === undefined) return;
  const { of } = kind.goal;
  const base = of === undefined ? 1 : peerValue(of);
  if (base === undefined) return;
  const measured = value / base;
  const [sign, bound] = "atMost" in kind.goal ? ["≤", kind.goal.atMost] : ["≥", kind.goal.atLeast];
  return {
    goal: `${sign} ${bound}${of === undefined ? ` ${kind.unit}` : `× ${of}`}`,
    ...(of === undefined ? {} : { ratio: measured }),
    met: sign === "≤" ? measured <= bound : measured >= bound,
  };
}
