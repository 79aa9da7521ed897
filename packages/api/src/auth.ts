import { type Clock, requestErrors, type WaggleError } from "@waggle/core";

export const limits = {
  /** Wrong keys one address may try at once … */
  failures: 20,
  /** … and from then on each second. */
  failuresPerSecond: 1,
  /** Addresses remembered; the longest unseen is forgotten first. */
  addresses: 10_000,
} as const;

export interface FailedAuth {
  /** The error for one more wrong key from this address. */
  refuse(address: string, detail: string): WaggleError;
}

/**
 * A token bucket of failures for each address. It bounds the work that wrong keys cause. Good keys always pass, so
 * that nobody behind a shared proxy can lock the others out; keys of 160 random bits need no protection from guessing.
 */
export function createFailedAuth(clock: Clock): FailedAuth {
  const buckets = new Map<string, { tokens: number; at: number }>();
  return {
    refuse(address, detail) {
      const name = subnet(address);
      const now = clock.now();
      const bucket = buckets.get(name) ?? { tokens: limits.failures, at: now };
      bucket.tokens = Math.min(limits.failures, bucket.tokens + ((now - bucket.at) / 1000) * limits.failuresPerSecond);
      bucket.at = now;
      buckets.delete(name);
      buckets.set(name, bucket);
      if (buckets.size > limits.addresses) buckets.delete(buckets.keys().next().value as string);
      if (bucket.tokens >= 1) {
        bucket.tokens -= 1;
        return requestErrors.unauthenticated(detail);
      }
      return requestErrors.tooMany("too many wrong keys from this address", {
        retryAfterSeconds: (1 - bucket.tokens) / limits.failuresPerSecond,
      });
    },
  };
}

/** One customer has a whole IPv6 /64 to choose addresses from. */
function subnet(address: string): string {
  if (!address.includes(":") || address.startsWith("::ffff:")) return address;
  const [head = "", tail] = address.split("::");
  const groups = head.split(":");
  if (tail !== undefined) groups.push(...Array(Math.max(0, 8 - groups.length - tail.split(":").length)).fill("0"));
  return groups.slice(0, 4).join(":");
}
