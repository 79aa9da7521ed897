import { WaggleApiError, WaggleConnectionError } from "@waggle/sdk";
import { exit, Failure } from "./failure.ts";

export interface Told {
  readonly exitCode: number;
  readonly message: string;
  readonly advice?: string | undefined;
}

/** What to say and how to exit, for anything a command can throw. */
export function explainFailure(error: unknown): Told {
  if (error instanceof Failure) return { exitCode: error.exitCode, message: error.message, advice: error.advice };
  if (error instanceof WaggleConnectionError) {
    if (error.code === "client.bad_address")
      return {
        exitCode: exit.usage,
        message: error.message,
        advice: "it is given by --url, WAGGLE_URL or `waggle config set url …`",
      };
    return {
      exitCode: exit.unreachable,
      message: error.message,
      advice:
        "start a server with `waggle dev`, or name one: --url, WAGGLE_URL, `waggle config set url …`. `waggle doctor` looks closer",
    };
  }
  if (error instanceof WaggleApiError) {
    const request = error.requestId ? ` [request ${error.requestId}]` : "";
    return { exitCode: exitOf(error), message: `${error.message} (${error.code})${request}`, advice: adviceFor(error) };
  }
  const { code, message, path } = error as NodeJS.ErrnoException;
  if ((code === "ENOENT" || code === "ENOTDIR") && path !== undefined)
    return { exitCode: exit.notFound, message: `there is no such path: ${path}`, advice: "give one that is there" };
  if (code === "EACCES" || code === "EPERM")
    return { exitCode: exit.refused, message: message, advice: "check the permissions of that path" };
  return { exitCode: exit.failed, message: error instanceof Error ? error.message : String(error) };
}

/** An answer that no Waggle server gives to what this command asks. */
const isElsewhere = ({ code, status }: WaggleApiError): boolean =>
  code === "client.not_waggle" || (code.startsWith("http.") && [404, 405, 501].includes(status));

function exitOf(error: WaggleApiError): number {
  const { status } = error;
  if (isElsewhere(error)) return exit.unreachable;
  if (status === 404) return exit.notFound;
  if (status === 400) return exit.usage;
  if (status === 503 || status === 502 || status === 504) return exit.unreachable;
  return status >= 400 && status < 500 ? exit.refused : exit.failed;
}

const elsewhere = "is this the address of a Waggle server of this version? `waggle doctor` looks closer";

function adviceFor(error: WaggleApiError): string | undefined {
  if (isElsewhere(error)) return elsewhere;
  if (error.status === 401)
    return "give a key: --key, WAGGLE_API_KEY, or `waggle config set key …`. On the server's machine its data folder holds one";
  if (error.status === 403)
    return "this key's role does not allow it; an admin makes others with `waggle key create --role operator`";
  if (error.status === 429)
    return error.retryAfterSeconds === undefined
      ? "try again in a while"
      : `try again in ${Math.ceil(error.retryAfterSeconds)} s`;
  switch (error.code) {
    case "task.not_found":
      return "`waggle get tasks` lists what there is";
    case "agent.not_found":
      return "`waggle get agents` lists what there is";
    case "key.not_found":
      return "`waggle get keys` lists what there is";
    case "limit.not_found":
      return "`waggle get limits` lists what there is";
    case "task.not_retryable":
      return "`waggle describe task ID` shows where it stands";
    case "agent.exists":
      return "choose another --name, or stop the agent that has it";
    case "route.not_found":
      return elsewhere;
  }
  return error.status >= 500 ? "the server's log says more, by the request's id" : undefined;
}
