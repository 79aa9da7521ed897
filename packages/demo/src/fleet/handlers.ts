import { mkdir, rename, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { readDependencies } from "../analyse/dependencies.ts";
import { type Fingerprints, fingerprint, matchDuplicates } from "../analyse/duplicates.ts";
import { readHistory } from "../analyse/history.ts";
import { countLanguages } from "../analyse/languages.ts";
import { findLarge } from "../analyse/large.ts";
import { overview } from "../analyse/overview.ts";
import { readOwnership } from "../analyse/ownership.ts";
import { readTests } from "../analyse/tests.ts";
import { findTodoFiles, findTodos } from "../analyse/todos.ts";
import { listFiles } from "../files.ts";
import { headCommit, type Run } from "../git.ts";
import { plan, type Stage } from "../plan.ts";
import { toHtml } from "../report/html.ts";
import { judge } from "../report/judge.ts";
import { toMarkdown } from "../report/markdown.ts";
import { assemble, type Making, type Results } from "../report/report.ts";
import { repositoryOf } from "../repository.ts";

/** What a handler learns about the run it is part of. */
export type Around = {
  /** The tasks this one depends on, in the order in which they were named. */
  dependencies(): Promise<{ type: string; result: unknown }[]>;
  making(): Promise<Making>;
  /** Where to look when the input names no repository. */
  repo: string;
  outDir: string;
};
export type Handler = (input: unknown, run: Run, around: Around) => Promise<unknown>;

/** The input is not what this kind of task takes; another attempt would fail alike. */
export class InputError extends Error {
  readonly code = "input.invalid";
  readonly retryable = false;
}

const where = {
  repo: z.string().min(1).max(4096).optional(),
  commit: z
    .string()
    .regex(/^[0-9a-f]{40,64}$/)
    .optional(),
};
const slice = z
  .strictObject({ index: z.number().int().min(0), of: z.number().int().min(1).max(1000) })
  .refine((part) => part.index < part.of, "index is below of")
  .optional();

/** A kind of task: its input checked, the repository found, the commit pinned (by default the newest). */
const handler =
  <Shape extends z.ZodRawShape>(
    shape: Shape,
    work: (
      input: z.output<z.ZodObject<Shape>> & { repo: string; commit?: string },
      run: Run,
      around: Around,
    ) => Promise<unknown>,
  ): Handler =>
  async (given, run, around) => {
    const parsed = z.strictObject({ ...where, ...shape }).safeParse(given ?? {});
    if (!parsed.success)
      throw new InputError(
        parsed.error.issues.map((issue) => `${issue.path.join(".") || "input"}: ${issue.message}`).join("; "),
      );
    const { repo: named, commit: pinned, ...input } = parsed.data as { repo?: string; commit?: string };
    const repo = named === undefined ? around.repo : await repositoryOf(named);
    const commit = pinned ?? (await headCommit(repo, run.signal));
    return work({ ...input, repo, ...(commit === undefined ? {} : { commit }) } as never, run, around);
  };

export const handlers: Readonly<Record<Stage, Handler>> = {
  plan: handler({}, (input, run) => plan({ repo: input.repo }, run)),
  overview: handler({ name: z.string().max(256).default("repository") }, overview),
  languages: handler({ slice }, countLanguages),
  history: handler(
    {
      since: z.number().optional(),
      skip: z.number().int().min(0).default(0),
      count: z.number().int().min(0).max(10_000).default(500),
    },
    readHistory,
  ),
  ownership: handler({ slice, limit: z.number().int().min(1).max(10_000).optional() }, readOwnership),
  todos: handler({ paths: z.array(z.string().max(4096)).max(2000).optional() }, async (input, run) => {
    const { files } = await listFiles(input.repo, input.commit, run.signal);
    const paths = input.paths ?? (await findTodoFiles(input.repo, input.commit, files, run.signal));
    return findTodos({ ...input, paths }, run);
  }),
  dependencies: handler({ path: z.string().min(1).max(4096).default("package-lock.json") }, readDependencies),
  "duplicates.fingerprint": handler({ slice }, fingerprint),
  "duplicates.match": handler({}, async (input, run, around) => {
    const parts = (await around.dependencies()).filter((task) => task.type === "duplicates.fingerprint");
    // Asked for alone, it does the first half itself.
    const given = parts.length > 0 ? parts.map((task) => task.result as Fingerprints) : [await fingerprint(input, run)];
    return matchDuplicates({ ...input, parts: given }, run);
  }),
  tests: handler({ slice }, readTests),
  "large-files": handler({}, findLarge),
  report: handler(
    { name: z.string().max(256).default("repository"), outDir: z.string().max(4096).optional() },
    async (input, run, around) => {
      run.progress?.(5, "gathering results");
      const results: Results = {};
      for (const { type, result } of await around.dependencies()) {
        const stage = type as Stage;
        results[stage] = [...(results[stage] ?? []), result];
      }
      run.progress?.(40, "putting them together");
      const making = await around.making();
      const report = await assemble({ ...input, results, making }, run);
      run.progress?.(80, "writing");
      const outDir = resolve(input.outDir ?? around.outDir);
      await mkdir(outDir, { recursive: true });
      const html = join(outDir, "waggle-report.html");
      const markdown = join(outDir, "waggle-report.md");
      await writeWhole(html, toHtml(report));
      await writeWhole(markdown, toMarkdown(report));
      const { grade, cards, findings, summary } = judge(report);
      return { html, markdown, grade, summary, cards, findings: findings.map(({ title, why }) => ({ title, why })) };
    },
  ),
};

/** A reader sees the old file or the new one, never half of it. */
const writeWhole = async (path: string, text: string) => {
  const part = `${path}.${process.pid}.part`;
  await writeFile(part, text);
  await rename(part, path);
};
