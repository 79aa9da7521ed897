import { type Client, WaggleApiError } from "@waggle/sdk";
import { exit, Failure, usage } from "./failure.ts";

const whole = /^(tsk|agt|key)_[0-9a-hjkmnp-tv-z]{22}$/;

/** How many of the newest are looked through for a part of an id. */
const lookThrough = 1000;

/**
 * The whole id for its beginning or its end. (Ids begin with the time, so the end tells neighbours apart.)
 * A whole id is not looked up.
 */
async function findId(
  what: string,
  prefix: string,
  text: string,
  all: AsyncIterable<{ id: string; name?: string | undefined }>,
): Promise<string> {
  if (whole.test(text) && text.startsWith(`${prefix}_`)) return text;
  const bare = text.startsWith(`${prefix}_`) ? text.slice(prefix.length + 1) : text;
  if (whole.test(text)) throw usage(`${text} is not the id of ${what === "agent" ? "an" : "a"} ${what}`);
  const found: string[] = [];
  let seen = 0;
  for await (const { id, name } of all) {
    if (name === text) return id;
    const tail = id.slice(prefix.length + 1);
    if (bare.length >= 3 && (tail.startsWith(bare) || tail.endsWith(bare))) found.push(id);
    if (++seen >= lookThrough && what !== "agent") break;
  }
  if (found.length === 1) return found[0] as string;
  if (found.length > 1) {
    const shown = found.slice(0, 5).join(", ");
    throw usage(
      `"${text}" fits ${found.length} ${what}s: ${shown}${found.length > 5 ? ", …" : ""}`,
      "give more of the id; its end is what differs",
    );
  }
  throw new Failure(
    exit.notFound,
    `no ${what} ${seen >= lookThrough ? `among the newest ${lookThrough} ` : ""}is "${text}"`,
    `\`waggle get ${what}s\` lists what there is`,
  );
}

export const findTask = (client: Client, text: string): Promise<string> =>
  findId("task", "tsk", text, client.tasks.all());
/** By id, part of an id, or name. */
export const findAgent = (client: Client, text: string): Promise<string> =>
  findId("agent", "agt", text, client.agents.all());
export const findKey = (client: Client, text: string): Promise<string> => findId("key", "key", text, client.keys.all());

/** The first `limit` of a list, over as many pages as it takes. */
export async function take<Item>(all: AsyncIterable<Item>, limit: number): Promise<Item[]> {
  const items: Item[] = [];
  if (limit < 1) return items;
  for await (const item of all) if (items.push(item) >= limit) break;
  return items;
}

/** The number after which the log begins, where what was asked for is past its retention. @throws any other error */
export function beginning(error: unknown): number {
  if (error instanceof WaggleApiError && error.code === "event.gone") return Number(error.problem.firstSequence) - 1;
  throw error;
}

/** The sequence number of the newest event. The log has no gaps, so halving finds its end. */
export async function lastSequence(client: Client): Promise<number> {
  let low = 0;
  const beyond = async (after: number): Promise<boolean> => {
    try {
      return (await client.events.list({ after, limit: 1 })).items.length === 0;
    } catch (error) {
      low = Math.max(low, beginning(error));
      return false;
    }
  };
  let high = 1;
  while (!(await beyond(high))) high = Math.max(high, low) * 4;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (await beyond(middle)) high = middle;
    else low = Math.max(low, middle + 1);
  }
  return low;
}
