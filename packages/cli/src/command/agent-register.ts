import type { Delivery } from "@waggle/sdk";
import { type AgentOptions, offerOf } from "../agent-options.ts";
import { withClient } from "../context.ts";
import { exit, usage } from "../failure.ts";
import { fields, safe } from "../format.ts";
import { type Io, painter } from "../io.ts";
import { document, isDocument } from "../print.ts";

interface Options extends AgentOptions {
  webhook?: string;
  lambda?: string;
  queue?: string;
  replace?: boolean;
}

export const agentRegister = (io: Io, options: Options): Promise<number> => {
  const delivery = deliveryOf(io, options);
  return withClient(io, options, async ({ client, format }) => {
    const made = await client.agents.register({
      ...offerOf(options),
      maxConcurrency: options.concurrency,
      delivery,
      ...(options.replace && { onConflict: "replace" as const }),
    });
    if (isDocument(format)) {
      await document(io, format, made);
      return exit.ok;
    }
    const { agent, token, secret } = made;
    io.out(
      fields(
        [
          ["Agent", safe(agent.name)],
          ["Id", agent.id],
          ["Token", token],
          ["Secret", secret],
        ],
        io,
      ),
    );
    const shown = secret === undefined ? "The token is" : "Token and secret are";
    io.err(`${painter(io.colour)("dim", `${shown} shown this once; keep them safe.`)}\n`);
    return exit.ok;
  });
};

function deliveryOf(io: Io, { webhook, lambda, queue }: Options): Delivery {
  const given = [webhook, lambda, queue].filter((target) => target !== undefined);
  if (given.length > 1) throw usage("give one of --webhook, --lambda and --queue", "an agent has one delivery");
  // Not an option: a command line is seen by every process of the machine.
  const secret = io.env.WAGGLE_WEBHOOK_SECRET;
  if (webhook !== undefined) return { type: "webhook", url: webhook, ...(secret && { secret }) };
  if (lambda !== undefined) return { type: "lambda", functionArn: lambda };
  return queue === undefined ? { type: "pull" } : { type: "queue", queueUrl: queue };
}
