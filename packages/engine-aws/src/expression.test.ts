import { expect, test } from "vitest";
import { conditionText, createExpression, updateText } from "./expression.ts";

test("a condition says all its parts, each name and value by a number", () => {
  const expression = createExpression();
  const text = conditionText(
    {
      exists: true,
      equals: { status: "a" },
      oneOf: { status: ["a", null] },
      missing: ["x"],
      lessThan: { n: 3 },
      sizeBelow: { list: 2 },
    },
    expression,
  );
  expect(text).toBe(
    "attribute_exists(#0) AND #1 = :0 AND #1 IN (:1, :2) AND attribute_not_exists(#2) AND #3 < :3 AND (attribute_not_exists(#4) OR size(#4) < :4)",
  );
  expect(expression.parts()).toEqual({
    ExpressionAttributeNames: { "#0": "pk", "#1": "status", "#2": "x", "#3": "n", "#4": "list" },
    ExpressionAttributeValues: {
      ":0": { S: "a" },
      ":1": { S: "a" },
      ":2": { NULL: true },
      ":3": { N: "3" },
      ":4": { N: "2" },
    },
  });
});

test("a condition with no part is none, and brings no empty maps", () => {
  const expression = createExpression();
  expect([conditionText(undefined, expression), conditionText({}, expression), expression.parts()]).toEqual([
    undefined,
    undefined,
    {},
  ]);
});

test("an update names each attribute once, and leaves its mark", () => {
  const expression = createExpression();
  const changes = { set: { a: 1, gone: undefined as never }, add: { a: 2, b: 3, c: 4 }, remove: ["a", "b", "d"] };
  const text = updateText(changes, "row", "mark", expression);
  expect(text).toBe("SET #0 = :0, #1 = :1, #4 = if_not_exists(#4, :3), #5 = :4 ADD #2 :2 REMOVE #3");
  const { ExpressionAttributeNames: names = {}, ExpressionAttributeValues: values = {} } = expression.parts();
  expect(Object.values(names)).toEqual(["a", "b", "c", "d", "kind", "~"]);
  expect(Object.values(values)).toEqual([{ N: "3" }, { N: "3" }, { N: "4" }, { S: "row" }, { S: "mark" }]);
});

test.each([{ set: { pk: "x" } }, { set: { sk: "x" } }, { remove: ["pk"] }, { remove: ["kind"] }])(
  "an update keeps the row's key and kind: %j",
  (changes) => {
    expect(() => updateText(changes as never, "row", undefined, createExpression())).toThrow(TypeError);
  },
);
