const signals = ["SIGTERM", "SIGINT"] as const;

/** How the agents of this process stop. They share one listener: Node warns of more than ten. */
const agents = new Set<() => Promise<void>>();
let askedAt: number | undefined;
/** npm passes a Ctrl-C on to the program it runs, which the terminal has told already. */
const echoMs = 500;

function onSignal(signal: NodeJS.Signals): void {
  // A program that listens too says itself when it ends.
  const alone = process.listenerCount(signal) === 1;
  if (askedAt !== undefined) {
    if (alone && performance.now() - askedAt > echoMs) process.exit(1);
    return;
  }
  askedAt = performance.now();
  void Promise.allSettled(Array.from(agents, (stop) => stop())).then(() => {
    if (alone) process.exit(0);
  });
}

/**
 * Stops an agent when the process is asked to end; the process exits once all its agents have stopped.
 * @returns ends it
 */
export function stopOnSignal(stop: () => Promise<void>): () => void {
  // Before the others, of which some may count no more once they were called.
  if (agents.size === 0) for (const signal of signals) process.prependListener(signal, onSignal);
  agents.add(stop);
  return () => {
    if (!agents.delete(stop) || agents.size > 0) return;
    for (const signal of signals) process.off(signal, onSignal);
    askedAt = undefined;
  };
}
