import { toApiError, WaggleConnectionError } from "./error.ts";
import type { Task } from "./types.ts";

interface Waiting {
  readonly text: string;
  resolve(task: Task): void;
  reject(error: unknown): void;
}
type BatchResult = { task: Task } | { problem: { status: number } };

const maxTasks = 100;
/** Half of what one request may hold; a larger task goes alone. */
const maxChars = 256 * 1024;

/**
 * Joins tasks submitted in one turn of the event loop into one request: a lone task waits for nothing, a crowd
 * costs one round trip. Each still succeeds or fails by itself.
 */
export function submitter(options: {
  one(text: string): Promise<Task>;
  many(text: string): Promise<BatchResult[]>;
  /** Runs the callback once the current turn has done all it has to do. */
  afterTurn(callback: () => void): void;
}): (text: string) => Promise<Task> {
  let waiting: Waiting[] = [];

  const send = (group: Waiting[]) => {
    const [first] = group;
    if (!first) return;
    if (group.length === 1) {
      options.one(first.text).then(first.resolve, first.reject);
      return;
    }
    options.many(`{"tasks":[${group.map((entry) => entry.text).join(",")}]}`).then(
      (results) => {
        for (const [i, entry] of group.entries()) {
          const result = results[i];
          if (!result) entry.reject(new WaggleConnectionError("client.unreachable", "the answer has an entry too few"));
          else if ("task" in result) entry.resolve(result.task);
          else entry.reject(toApiError(result.problem.status, JSON.stringify(result.problem), () => undefined));
        }
      },
      (error) => {
        for (const entry of group) entry.reject(error);
      },
    );
  };

  const flush = () => {
    const all = waiting;
    waiting = [];
    let group: Waiting[] = [];
    let chars = 0;
    for (const entry of all) {
      if (group.length === maxTasks || (group.length > 0 && chars + entry.text.length > maxChars)) {
        send(group);
        group = [];
        chars = 0;
      }
      group.push(entry);
      chars += entry.text.length;
    }
    send(group);
  };

  return (text) =>
    new Promise((resolve, reject) => {
      if (waiting.push({ text, resolve, reject }) === 1) options.afterTurn(flush);
    });
}
