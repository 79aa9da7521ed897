import { defineError } from "../error.ts";

/** Nothing is taken until something is deleted, or the quota raised. */
export const exceeded = defineError("quota.exceeded", { status: 403, title: "Quota exceeded", retry: "never" });
/** It passes by itself. */
export const throttled = defineError("quota.throttled", {
  status: 429,
  title: "Quota used up for now",
  retry: "later",
});
