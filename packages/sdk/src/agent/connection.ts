import type { Commands } from "../types.ts";
import type { Log } from "./work.ts";

/** How an agent stays in touch: by socket, or by long poll. */
export interface AgentConnection {
  /** Resolves once the server takes this agent for present. Rejects when it never will. */
  open(): Promise<void>;
  /** No new work. Resolves once the server knows. */
  drain(): Promise<void>;
  /** Told whenever a slot becomes free. */
  freed(): void;
  /** The agent leaves; resolves when the server knows or cannot be told. */
  close(leave: boolean): Promise<void>;
}

/** Why a connection ended for good. */
export type Ended = (reason: string) => void;

/** Says once what an operator wants of the agent, however often the server repeats it. */
export function tellState(log: Log): (commands: Partial<Commands>) => void {
  let paused = false;
  let drained = false;
  return ({ pause = paused, drain = drained }) => {
    if (pause !== paused) log.info(pause ? "paused: no new work until resumed" : "resumed");
    if (drain !== drained) log.info(drain ? "draining: no new work, what runs goes on" : "taking work again");
    paused = pause;
    drained = drain;
  };
}
