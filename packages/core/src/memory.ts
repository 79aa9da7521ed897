import type { Ports } from "./port/index.ts";

/** What a process remembers beside the store: by name, for each set of ports, and gone with them. */
export interface Memory<Value> {
  of(ports: Ports): Map<string, Value>;
  forget(ports: Ports): void;
}

export function createMemory<Value>(): Memory<Value> {
  const all = new WeakMap<Ports, Map<string, Value>>();
  return {
    of(ports) {
      const known = all.get(ports);
      if (known !== undefined) return known;
      const own = new Map<string, Value>();
      all.set(ports, own);
      return own;
    },
    forget: (ports) => void all.delete(ports),
  };
}
