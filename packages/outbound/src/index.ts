import { setMaxListeners } from "node:events";
import { noOutbound, type Outbound } from "@waggle/core";
import { createAws } from "./aws.ts";
import type { Resolve } from "./guard.ts";
import { post } from "./http.ts";
import { type Env, targetRefusal } from "./target.ts";

export interface OutboundOptions {
  /** Where agents reach this API; see `Outbound.publicUrl`. */
  readonly publicUrl?: () => string | undefined;
  /** See `Outbound.secretKey`. */
  readonly secretKey?: () => string | undefined;
  /** Call webhooks in private networks and on this machine, there by http too. Default false. */
  readonly allowPrivateTargets?: boolean;
  /** Call those on this machine, by http too. Default false. */
  readonly allowLoopbackTargets?: boolean;
  /** From the start of a call to the headers of its answer. Default 10. */
  readonly headersSeconds?: number;
  /** A whole call of a webhook, 1–840. Default 30. */
  readonly webhookSeconds?: number;
  /** A whole call of a function, 1–840: longer than the function's own limit. Default 60. */
  readonly lambdaSeconds?: number;
  /** Looks up the addresses of a host name; the system's resolver unless given. */
  readonly resolve?: Resolve;
  /** AWS region, credentials and endpoint are found here and by the AWS packages. Default `process.env`. */
  readonly env?: Env;
}

/**
 * Calls webhooks, Lambda functions and SQS queues; the same on AWS and in the embedded server.
 * `close` ends what is under way: those deliveries are made again after the next start.
 */
export function createOutbound(options: OutboundOptions = {}): Outbound & { close(): void } {
  const closed = new AbortController();
  setMaxListeners(0, closed.signal);
  const closing = closed.signal;
  const rules = rulesOf(options);
  const env = options.env ?? process.env;
  const http = {
    rules,
    resolve: options.resolve,
    headersSeconds: options.headersSeconds ?? 10,
    totalSeconds: options.webhookSeconds ?? 30,
    closing,
  };
  const aws = createAws({ env, totalSeconds: options.lambdaSeconds ?? 60, closing });
  return {
    publicUrl: options.publicUrl ?? (() => undefined),
    secretKey: options.secretKey ?? (() => undefined),
    check: async (target) => targetRefusal(target, rules, env) ?? aws.check(target),
    http: (request) => post(request, http),
    invoke: aws.invoke,
    send: aws.send,
    close: () => closed.abort(),
  };
}

const rulesOf = ({ allowPrivateTargets = false, allowLoopbackTargets = false }: OutboundOptions) => ({
  allowPrivate: allowPrivateTargets,
  allowLoopback: allowLoopbackTargets,
});

/**
 * Checks where agents want to be called and keeps their secrets, and calls nobody: for functions that only register, which
 * should carry none of what calling needs. That AWS lets it call is taken for granted, as it runs there.
 */
export function createChecker(options: OutboundOptions = {}): Outbound {
  const rules = rulesOf(options);
  const env = options.env ?? process.env;
  return {
    ...noOutbound,
    secretKey: options.secretKey ?? noOutbound.secretKey,
    check: async (target) => targetRefusal(target, rules, env),
  };
}

/**
 * Settings from the environment: `WAGGLE_PUBLIC_URL`, `WAGGLE_SECRET_KEY`, `WAGGLE_ALLOW_PRIVATE_TARGETS` (`1`),
 * `WAGGLE_WEBHOOK_SECONDS`, `WAGGLE_LAMBDA_SECONDS`.
 * @throws Error that names a variable with a wrong value
 */
export function outboundFromEnv(env: Env): OutboundOptions {
  const seconds = (name: string): number | undefined => {
    const text = env[name];
    if (!text) return undefined;
    const value = Number(text);
    if (value >= 1 && value <= 840) return value;
    throw new Error(`${name} is ${text}; expected seconds from 1 to 840`);
  };
  const publicUrl = env.WAGGLE_PUBLIC_URL?.replace(/\/+$/, "");
  if (publicUrl && !URL.canParse(publicUrl)) throw new Error(`WAGGLE_PUBLIC_URL is ${publicUrl}; expected a URL`);
  const secretKey = env.WAGGLE_SECRET_KEY;
  const [webhookSeconds, lambdaSeconds] = [seconds("WAGGLE_WEBHOOK_SECONDS"), seconds("WAGGLE_LAMBDA_SECONDS")];
  return {
    env,
    allowPrivateTargets: env.WAGGLE_ALLOW_PRIVATE_TARGETS === "1",
    ...(publicUrl && { publicUrl: () => publicUrl }),
    ...(secretKey && { secretKey: () => secretKey }),
    ...(webhookSeconds !== undefined && { webhookSeconds }),
    ...(lambdaSeconds !== undefined && { lambdaSeconds }),
  };
}
