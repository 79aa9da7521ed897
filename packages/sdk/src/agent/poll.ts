import type { Client } from "../client.ts";
import { isOwnWord, isPassing, WaggleApiError } from "../error.ts";
import type { Commands } from "../types.ts";
import { type AgentConnection, type Ended, tellState } from "./connection.ts";
import type { Job, Log, Work } from "./work.ts";

export interface PollOptions {
  /** With the agent's token. */
  readonly client: Client;
  readonly id: string;
  readonly concurrency: number;
  readonly leaseSeconds: number;
  readonly work: Work;
  readonly log: Log;
  readonly now: () => number;
  readonly ended: Ended;
}

const waitSeconds = 20;
/** Between two questions of which the first brought nothing. */
const pauseMs = 1_000;

/** The same call may succeed later: no answer, a passing one, or that of something in between, as while it is set up anew. */
const mayPass = (error: unknown): boolean =>
  !(error instanceof WaggleApiError) ||
  isPassing(error) ||
  (!isOwnWord(error) && (error.status < 400 || error.status === 403 || error.status === 404));

/** The same over HTTP, for where a WebSocket cannot go. */
export function pollConnection(options: PollOptions): AgentConnection {
  const { client, id, work, log, now } = options;
  const leaseMs = options.leaseSeconds * 1000;
  const stopping = new AbortController();
  /** By its own wish, for good; an operator's drain can be taken back. */
  let draining = false;
  let drained = false;
  const told = tellState(log);
  let paused = false;
  let closed = false;
  let polling = false;
  /** Outcomes under way whose answers may bring more work. */
  let taking = 0;
  let confirmedAt = now();
  let timer: NodeJS.Timeout | undefined;
  let wake: () => void = () => {};
  let loop: Promise<void> = Promise.resolve();

  const obey = (commands: Commands) => {
    work.cancel(commands.cancel);
    paused = commands.pause;
    drained = commands.drain;
    told(commands);
    wake();
  };
  const lost = (job: Job, error: unknown) => {
    const over = error instanceof WaggleApiError && (error.code === "task.lease_lost" || error.status === 404);
    if (over && !mayPass(error)) work.lost(job);
    else log.warn(`${job.task.id}: ${error instanceof Error ? error.message : String(error)}`);
  };
  /** Of each job, until what was last told of its progress has arrived. */
  const telling = new WeakMap<Job, Promise<void>>();
  const tellProgress = (job: Job) => {
    const { progress, details } = job;
    job.progress = undefined;
    job.details = undefined;
    const body = {
      fence: job.fence,
      ...(progress && { progress }),
      ...(details !== undefined && { details: JSON.parse(details) as unknown }),
    };
    telling.set(
      job,
      client.tasks.heartbeat(job.task.id, body).then(obey, (error) => lost(job, error)),
    );
  };
  const send = async (job: Job): Promise<void> => {
    const { outcome } = job;
    if (!outcome) return;
    if (outcome.op !== "complete") {
      if (job.details !== undefined) tellProgress(job);
      // On a connection of its own: it must not come after the end.
      await telling.get(job);
    }
    const body = JSON.parse(`{"fence":${job.fence}${outcome.members && `,${outcome.members}`}}`) as never;
    // A poll that waits gets the next work anyway.
    const take = polling || draining || drained || paused || closed ? 0 : 1;
    taking += take;
    try {
      const call = client.tasks[outcome.op] as typeof client.tasks.release;
      const { assignments } = await call(job.task.id, { ...(body as object), fence: job.fence, take });
      confirmedAt = now();
      work.settled(job);
      if (assignments && assignments.length > 0) work.assign(assignments);
    } catch (error) {
      if (!(error instanceof WaggleApiError) || mayPass(error)) {
        // Out of reach for longer than a client tries: the heartbeat says when that is over.
        setTimeout(() => void (closed || send(job)), 1_000);
      } else if (error.status === 400 || error.status === 413) work.refused(job, error);
      else {
        log.warn(`the outcome of ${job.task.id} was not taken: ${error.message}`);
        work.settled(job);
      }
    } finally {
      taking -= take;
    }
  };

  /** Until the server knows it: what it takes for not begun goes to others in time. */
  const start = (job: Job): void => {
    if (closed || job.outcome || job.aborted) return;
    client.tasks.start(job.task.id, { fence: job.fence }).catch((error) => {
      lost(job, error);
      if (mayPass(error)) setTimeout(start, 1_000, job);
    });
  };

  work.setLink({
    start,
    progress: tellProgress,
    outcome: (job) => void send(job),
  });

  const heartbeat = () => {
    const at = now();
    if (at - confirmedAt > leaseMs) {
      work.releaseAll("task.lease_lost", "the server was out of reach for longer than the lease");
    }
    client.agents.heartbeat(id, { holding: work.holding() }).then(
      (commands) => {
        confirmedAt = at;
        obey(commands);
      },
      (error) => {
        if (error instanceof WaggleApiError && !mayPass(error) && [401, 403, 404, 409].includes(error.status))
          finish(error.message);
      },
    );
  };
  const finish = (reason: string) => {
    if (closed) return;
    closed = true;
    clearInterval(timer);
    stopping.abort();
    wake();
    work.revokeAll("agent.stopped", reason);
    options.ended(reason);
  };

  const pause = () =>
    new Promise<void>((resolve) => {
      const late = setTimeout(resolve, pauseMs);
      wake = () => {
        clearTimeout(late);
        resolve();
      };
    });
  const poll = async () => {
    while (!closed && !draining) {
      const max = Math.min(100, options.concurrency - work.size);
      if (paused || drained || max < 1) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      polling = true;
      const asked = now();
      try {
        // By what it holds the server knows of an answer that was lost. One that is on its way is none.
        const holding = taking > 0 ? {} : { holding: work.holding() };
        const given = await client.agents.lease(id, { max, waitSeconds, ...holding }, { signal: stopping.signal });
        work.assign(given);
        // A server that is stopping does not wait, nor did earlier ones for an agent that is full.
        if (given.length === 0 && now() - asked < pauseMs) await pause();
      } catch (error) {
        if (stopping.signal.aborted) return;
        if (error instanceof WaggleApiError && !mayPass(error) && [401, 403, 404].includes(error.status))
          return finish(error.message);
        log.warn(`cannot ask for work: ${error instanceof Error ? error.message : String(error)}; trying again`);
        await pause();
      } finally {
        polling = false;
      }
    }
  };

  return {
    async open() {
      obey(await client.agents.heartbeat(id));
      timer = setInterval(heartbeat, leaseMs / 3);
      loop = poll();
    },
    async drain() {
      draining = true;
      stopping.abort();
      wake();
      await client.agents.drain(id).catch((error) => log.warn(`could not drain: ${String(error)}`));
    },
    freed: () => wake(),
    async close(leave) {
      if (closed) return;
      closed = true;
      clearInterval(timer);
      stopping.abort();
      wake();
      await loop;
      if (leave) await client.agents.remove(id, { mode: "force" }).catch(() => undefined);
    },
  };
}
