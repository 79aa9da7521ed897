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
