import fc from "fast-check";
import { evilJson, evilStrings } from "./evil.ts";
import type { Tree } from "./schema.ts";

export type Place = readonly (string | number)[];

/** One thing done to a value that was fit. */
export type Change =
  | { readonly do: "replace"; readonly by: Tree }
  | { readonly do: "remove" }
  | { readonly do: "add"; readonly name: string; readonly by: Tree }
  | { readonly do: "double" }
  | { readonly do: "wrap" }
  | { readonly do: "repeat"; readonly times: number };

export const changes: fc.Arbitrary<Change> = fc.oneof(
  { weight: 8, arbitrary: evilJson.map((text) => ({ do: "replace", by: { text } }) as const) },
  { weight: 2, arbitrary: fc.constant({ do: "remove" } as const) },
  {
    weight: 2,
    arbitrary: fc.tuple(evilStrings, evilJson).map(([name, text]) => ({ do: "add", name, by: { text } }) as const),
  },
  { weight: 1, arbitrary: fc.constant({ do: "double" } as const) },
  { weight: 1, arbitrary: fc.constant({ do: "wrap" } as const) },
  { weight: 1, arbitrary: fc.constantFrom(65, 101, 1001).map((times) => ({ do: "repeat", times }) as const) },
);

/** Every place of a value, itself first. */
export function places(tree: Tree, at: Place = []): Place[] {
  if ("text" in tree) return [at];
  if ("list" in tree) return [at, ...tree.list.flatMap((entry, n) => places(entry, [...at, n]))];
  return [at, ...tree.members.flatMap(([name, member]) => places(member, [...at, name]))];
}

/** @returns the changed value; undefined when nothing is left of it */
export function apply(tree: Tree, place: Place, change: Change): Tree | undefined {
  const [first, ...rest] = place;
  if (first === undefined) return here(tree, change);
  if ("list" in tree) {
    const list = tree.list.flatMap((entry, n) => {
      if (n !== first) return [entry];
      const changed = apply(entry, rest, change);
      if (changed === undefined) return [];
      return rest.length === 0 && change.do === "double" ? [changed, changed] : [changed];
    });
    return { list };
  }
  if (!("members" in tree)) return tree;
  const members = tree.members.flatMap(([name, member]) => {
    if (name !== first) return [[name, member] as const];
    const changed = apply(member, rest, change);
    if (changed === undefined) return [];
    const entry = [name, changed] as const;
    return rest.length === 0 && change.do === "double" ? [entry, entry] : [entry];
  });
  return { members };
}

function here(tree: Tree, change: Change): Tree | undefined {
  switch (change.do) {
    case "replace":
      return change.by;
    case "remove":
      return undefined;
    case "add":
      return "members" in tree ? { members: [...tree.members, [change.name, change.by]] } : change.by;
    case "double":
      return tree;
    case "wrap":
      return { list: [tree] };
    case "repeat":
      return "list" in tree && tree.list[0] !== undefined
        ? { list: Array.from({ length: change.times }, () => tree.list[0] as Tree) }
        : { list: Array.from({ length: change.times }, () => tree) };
  }
}
