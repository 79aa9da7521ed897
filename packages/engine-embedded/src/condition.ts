import type { Condition, Item } from "@waggle/core";

/** Whether all parts of a condition hold for the row as it stands. */
export function holds(condition: Condition, item: Item | undefined): boolean {
  if (condition.exists !== undefined && condition.exists !== (item !== undefined)) return false;
  const { equals, oneOf, missing, lessThan, sizeBelow } = condition;
  if (equals) for (const name in equals) if (item === undefined || item[name] !== equals[name]) return false;
  if (oneOf) {
    for (const name in oneOf) {
      const value = item?.[name];
      if (value === undefined || !(oneOf[name] as readonly unknown[]).includes(value)) return false;
    }
  }
  if (missing && item) for (const name of missing) if (item[name] !== undefined) return false;
  if (lessThan) {
    for (const name in lessThan) {
      const value = item?.[name];
      if (typeof value !== "number" || value >= (lessThan[name] as number)) return false;
    }
  }
  if (sizeBelow) for (const name in sizeBelow) if (sizeOf(item?.[name]) >= (sizeBelow[name] as number)) return false;
  return true;
}

function sizeOf(value: unknown): number {
  if (value === undefined) return 0;
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  if (typeof value === "object" && value !== null) return Object.keys(value).length;
  return Number.POSITIVE_INFINITY;
}
