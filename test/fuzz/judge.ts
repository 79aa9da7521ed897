import type { Document, Input, Operation } from "./calls.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

interface Judge {
  /** What is wrong with an answer: nothing, when the server kept its word. */
  faults(input: Input, answer: Answer): readonly string[];
  /** Whether a refusal names the place that was changed. It may name another, when the input was unfit before. */
  names(input: Input, answer: Answer): boolean;
  /** Whether it was sent with the method of its operation. */
  asMeant(input: Input): boolean;
}

interface Problem {
  readonly status?: unknown;
  readonly code?: unknown;
  readonly detail?: unknown;
  readonly title?: unknown;
  readonly type?: unknown;
  readonly errors?: unknown;
}

/** Met before a route is found, or in place of one: no operation of the document lists them. */
const everywhere = new Set([
  "route.not_found",
  "route.method_not_allowed",
  "request.invalid",
  "request.unsupported_media_type",
  "request.too_large",
]);

export function createJudge(document: Document): Judge {
  const operations = new Map(
    Object.values(document.paths).flatMap((byMethod) =>
      Object.entries(byMethod).map(([method, operation]) => [operation.operationId, { method, operation }] as const),
    ),
  );
  return {
    faults(input, answer) {
      const { method, operation } = operations.get(input.operation) as { method: string; operation: Operation };
      if (answer.status >= 500) return [`status ${answer.status}`];
      if (answer.status < 400) return [];
      // To HEAD a problem has no body.
      if (input.method === "HEAD") return [];
      // With another method it may be another operation, or none.
      return problemFaults(answer, input.method.toLowerCase() === method ? operation : undefined);
    },
    asMeant: ({ operation, method }) => method.toLowerCase() === operations.get(operation)?.method,
    names({ wrong }, { status, text }) {
      if (wrong === undefined || status !== 400) return true;
      const { errors } = JSON.parse(text) as { errors: readonly { readonly path: string }[] };
      return errors.some(({ path }) => related(path, wrong));
    },
  };
}

function problemFaults(answer: Answer, operation: Operation | undefined): string[] {
  const { status, headers, text } = answer;
  if (headers["content-type"] !== "application/problem+json") return [`a refusal of type ${headers["content-type"]}`];
  let problem: Problem;
  try {
    problem = JSON.parse(text) as Problem;
  } catch {
    return ["the problem is not JSON"];
  }
  const faults: string[] = [];
  for (const name of ["type", "title", "code", "detail"] as const)
    if (typeof problem[name] !== "string" || problem[name] === "") faults.push(`the problem has no ${name}`);
  if (problem.status !== status) faults.push(`the problem says ${problem.status}`);
  const code = String(problem.code);
  const listed = operation?.responses[status]?.content?.["application/problem+json"]?.schema?.properties?.code?.enum;
  if (operation !== undefined && !listed?.includes(code) && !everywhere.has(code))
    faults.push(`the document does not list ${code} for ${status}`);
  if (status === 401 && headers["www-authenticate"] === undefined) faults.push("no WWW-Authenticate");
  if ((status === 429 || status === 503) && !(Number(headers["retry-after"]) >= 1)) faults.push("no Retry-After");
  if (status === 400) faults.push(...fieldFaults(problem));
  return faults;
}

/** Whether a refusal says which field it is about, and what was expected there. */
function fieldFaults({ errors, detail }: Problem): string[] {
  if (!Array.isArray(errors) || errors.length === 0) return [`no field is named: ${detail}`];
  const named = errors as readonly { readonly path?: unknown; readonly message?: unknown }[];
  return named.every(({ path, message }) => typeof path === "string" && typeof message === "string" && message !== "")
    ? []
    : ["a wrong field without its path or what was expected"];
}

/** One lies in the other, or they are members of one object, which is refused as a whole by what its members make together. */
const related = (path: string, wrong: string): boolean =>
  path === "" || wrong === "" || inside(path, wrong) || inside(wrong, path) || parent(path) === parent(wrong);
const inside = (inner: string, outer: string) => inner === outer || inner.startsWith(`${outer}.`);
const parent = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf(".")));
