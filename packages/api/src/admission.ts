import { defineError, jsonLimits, type Ports } from "@waggle/core";

export interface AdmissionLimits {
  /** Submits and registrations being worked on: from their first byte until they are on disk. */
  readonly requests: number;
  /** Bytes of bodies being worked on. New work is refused from half of it on, anything with a body beyond it. */
  readonly bodyBytes: number;
  /** Changes of what was taken whose consequences are still to come: timers, dependants, lists, events. */
  readonly changes: number;
  /** How late the event loop comes round, smoothed, in ms. */
  readonly delayMs: number;
}

const defaultLimits: AdmissionLimits = {
  requests: 2_000,
  bodyBytes: 128 * 1024 * 1024,
  changes: 50_000,
  delayMs: 2_000,
};

const overloaded = defineError("server.overloaded", { status: 429, title: "Too much at once", retry: "later" });
/** Clients add their own jitter. */
const retryAfterSeconds = 1;

const sampleMs = 100;
/** Of the newest sample. */
const weight = 0.3;

/** A request's stay among those being worked on. */
export interface Stay {
  /** Its body was read, and had so many bytes: where that was not said before, it was taken for the largest there may be. */
  read(bytes: number): void;
  /** To be called once, when it is done. */
  leave(): void;
}

/** Lets in only as much at once as memory has room for; what was let in is never given up. */
export interface Admission {
  /**
   * @param work it brings new work, which is refused before anything else
   * @throws `server.overloaded`
   */
  enter(header: (name: string) => string | undefined, work: boolean): Stay;
  readonly now: {
    readonly requests: number;
    readonly bodyBytes: number;
    readonly delayMs: number;
    readonly refused: number;
  };
}

export function createAdmission(ports: Ports, given: Partial<AdmissionLimits> = {}): Admission {
  const limits = { ...defaultLimits, ...given };
  const now = { requests: 0, bodyBytes: 0, delayMs: 0, refused: 0 };
  let inside = 0;
  let sampling = false;

  function sample(): void {
    sampling = true;
    const due = performance.now() + sampleMs;
    setTimeout(() => {
      const late = Math.max(0, performance.now() - due);
      now.delayMs += (late - now.delayMs) * weight;
      sampling = false;
      if (inside > 0) sample();
      else now.delayMs = 0;
    }, sampleMs).unref();
  }

  function reason(bodyBytes: number, work: boolean): string | undefined {
    const bytes = now.bodyBytes + bodyBytes;
    const most = work ? limits.bodyBytes / 2 : limits.bodyBytes;
    if (bytes > most) return `${now.bodyBytes} bytes of requests are being worked on`;
    if (!work) return undefined;
    if (now.requests >= limits.requests) return `${now.requests} requests with new work are being worked on`;
    if (now.delayMs > limits.delayMs) return `it answers ${Math.round(now.delayMs)} ms late`;
    const changes = ports.backlog?.().changes ?? 0;
    return changes > limits.changes ? `${changes} changes are still to be followed up` : undefined;
  }

  return {
    now,
    enter(header, work) {
      let bodyBytes = bodyBytesOf(header);
      const refusal = reason(bodyBytes, work);
      if (refusal !== undefined) {
        now.refused++;
        throw overloaded(`the server has as much to do as it can hold: ${refusal}; try again soon`, {
          retryAfterSeconds,
        });
      }
      inside++;
      now.bodyBytes += bodyBytes;
      if (work) now.requests++;
      if (!sampling) sample();
      let open = true;
      return {
        read(bytes) {
          if (!open) return;
          now.bodyBytes += bytes - bodyBytes;
          bodyBytes = bytes;
        },
        leave() {
          if (!open) return;
          open = false;
          inside--;
          now.bodyBytes -= bodyBytes;
          if (work) now.requests--;
        },
      };
    },
  };
}

/** What a body may take before it was read. */
function bodyBytesOf(header: (name: string) => string | undefined): number {
  const length = header("content-length");
  if (length !== undefined) return Math.min(Number(length) || 0, jsonLimits.bodyBytes);
  return header("transfer-encoding") === undefined ? 0 : jsonLimits.bodyBytes;
}
