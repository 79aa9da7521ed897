import { DeadLetter, Task } from "@waggle/core";
import { RedriveAnswer, TaskList } from "../answers.ts";
import { everyone, json, operators, type Route, route } from "../route.ts";
import { Page, pageJson } from "./common.ts";

export const deadLetterRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/v1/dead-letters",
    id: "listDeadLetters",
    tag: "Dead letters",
    summary: "List tasks whose attempts are used up, newest first",
    description: "Inputs above 64 KiB are left out: get a task by its id to have them.",
    roles: everyone,
    query: Page,
    responses: { 200: { description: "A page of failed tasks, each with its last error", schema: TaskList } },
    errors: [],
    async handler({ scope, query }) {
      const { items, nextCursor } = await DeadLetter.list(scope, query);
      return json(pageJson(items.map(Task.toJson), nextCursor));
    },
  }),
  route({
    method: "POST",
    path: "/v1/dead-letters/redrive",
    id: "redriveDeadLetters",
    tag: "Dead letters",
    summary: "Run dead letters again, some or all",
    description:
      "`perSecond` spreads them out. Those that cannot be run again are listed with the reason. With `all`, a call looks at the " +
      "newest 1000; pass its `nextCursor` as `cursor` to go on with those before.",
    roles: operators,
    body: DeadLetter.Redrive,
    idempotent: "answer",
    responses: { 200: { description: "How many run again", schema: RedriveAnswer } },
    errors: [],
    handler: async ({ scope, body }) => json(JSON.stringify(await DeadLetter.redrive(scope, body))),
  }),
];
