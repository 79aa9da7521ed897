import { requestErrors } from "@waggle/core";
import type { Call } from "./route.ts";

/**
 * Runs what waits. Its signal aborts when the client leaves, the server stops, or the caller's key or token is revoked.
 * @throws `auth.required` when that is so, whatever came of the wait
 */
export async function whileAllowed<T>(
  call: Pick<Call, "request" | "onRevoked" | "stillAllowed">,
  wait: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const abort = () => stop.abort();
  const { signal } = call.request;
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort);
  let revoked = false;
  const off = call.onRevoked(() => {
    revoked = true;
    abort();
  });
  const refuse = (error: unknown) => {
    throw revoked ? requestErrors.unauthenticated("the key was revoked meanwhile") : error;
  };
  try {
    // Between the look at it and now it may have been revoked already.
    if (!(await call.stillAllowed())) revoked = true;
    if (revoked) return refuse(undefined);
    const result = await wait(stop.signal);
    return revoked ? refuse(undefined) : result;
  } catch (error) {
    return refuse(error);
  } finally {
    off();
    signal.removeEventListener("abort", abort);
  }
}
