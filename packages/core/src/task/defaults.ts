/** What holds for a task that does not say otherwise. Not stored: a row without it means this. */
export const defaultRetry = {
  maxAttempts: 3,
  initialSeconds: 1,
  factor: 2,
  maxSeconds: 60,
  nonRetryable: [] as readonly string[],
};

export const defaultCancelGraceSeconds = 10;

/** The generations above a task, and the newest changes of its status that are kept, at most. */
export const limits = { depth: 32, history: 50 } as const;
