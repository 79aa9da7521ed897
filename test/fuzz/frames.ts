import fc from "fast-check";
import type { Document } from "./calls.ts";
import { apply, changes, type Place, places } from "./change.ts";
import { fitting, print, type Schema, type Tree } from "./schema.ts";

/** What an agent sends in one message. */
export interface Message {
  /** `@0` to `@2` stand for tasks the agent was given. */
  readonly text: string;
  readonly binary: boolean;
}

export const tasksOfAgent = 3;

const subjects: Readonly<Record<string, readonly unknown[]>> = {
  taskId: Array.from({ length: tasksOfAgent }, (_, n) => `@${n}`),
  fence: [1, 1, 1, 2],
  re: [7],
};

const junk = fc.constantFrom(
  "",
  " ",
  "{",
  "null",
  "1",
  '"x"',
  "[]",
  "[[]]",
  "[null,{}]",
  "{}{}",
  "\ufeff{}",
  "NaN",
  "[1,]",
);

/** Messages of frames that fit but for one thing, now and then of several or of none. */
export function messages({ components: { schemas } }: Document): fc.Arbitrary<Message> {
  const frame = fitting(schemas.AgentFrame as Schema, schemas, (field) =>
    Object.hasOwn(subjects, field) ? subjects[field] : undefined,
  );
  const changed = fc.tuple(frame, fc.nat(60), changes).map(([tree, at, change]) => {
    const all = places(tree);
    return apply(tree, all[at % all.length] as Place, change) ?? ({ members: [] } as Tree);
  });
  const one = fc.oneof({ weight: 1, arbitrary: frame }, { weight: 5, arbitrary: changed });
  const many = fc.tuple(one, fc.constantFrom(40, 1000, 1001)).map(([tree, times]) => Array(times).fill(tree) as Tree[]);
  const text = fc.oneof(
    { weight: 12, arbitrary: one.map(print) },
    { weight: 4, arbitrary: fc.array(one, { maxLength: 4 }).map((list) => print({ list })) },
    { weight: 1, arbitrary: many.map((list) => print({ list })) },
    { weight: 2, arbitrary: junk },
  );
  const binary = fc.nat(40).map((n) => n === 0);
  return fc.record({ text, binary });
}
