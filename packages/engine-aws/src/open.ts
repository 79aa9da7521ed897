import type { Engine } from "@waggle/core";
import { type Aws, type AwsOptions, assemble, createParts } from "./aws.ts";
import type { AwsConfig } from "./config.ts";
import { createFeed } from "./feed.ts";
import { poll } from "./poll.ts";
import { createRules } from "./rules.ts";

export interface OpenAwsOptions extends AwsOptions {
  /** Pause after a read of the stream that found nothing. Default 200 ms, DynamoDB's limit. */
  readonly streamIdleMs?: number;
  /** A rule's target that throws gets its event again after this. Default 60. */
  readonly ruleRetrySeconds?: number;
}

/** See `openAws`. */
export function open(config: AwsConfig, options: OpenAwsOptions): Engine & Pick<Aws, "meter"> {
  const parts = createParts(config, options);
  const rules = createRules({ ...parts, bus: config.bus, visibilitySeconds: options.ruleRetrySeconds ?? 60 });
  const aws = assemble(config, options, parts, rules.port);
  const feed = createFeed({
    ...parts,
    table: config.table,
    store: aws.ports.store,
    idleMs: options.streamIdleMs ?? 200,
  });
  const polls = new Set<() => Promise<void>>();
  async function stop(): Promise<void> {
    await Promise.all([feed.stop(), rules.stop(), ...[...polls].map((each) => each())]);
    await aws.close();
  }
  let closing: Promise<void> | undefined;
  return {
    ports: aws.ports,
    changes: feed.changes,
    queueFeed: {
      consume(queue, each, handler) {
        parts.check();
        const end = poll(aws.ports.queues[queue], each, handler);
        polls.add(end);
        return end;
      },
    },
    meter: aws.meter,
    // A write that was answered is durable: none is ever taken back.
    onReset() {},
    close: () => (closing ??= stop()),
  };
}
