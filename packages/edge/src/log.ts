export type OnError = (component: string, error: unknown) => void;

/** Where nobody else is told: the function's own log. */
export const toLog: OnError = (component, error) => console.error(component, error);
