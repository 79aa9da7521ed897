/** Resolves after the callbacks that are due have run. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
