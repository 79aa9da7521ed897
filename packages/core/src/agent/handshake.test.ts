import { expect, test } from "vitest";
import { protocol, readHandshake } from "./handshake.ts";

const handshake = (headers: Readonly<Record<string, string>>) => readHandshake((name) => headers[name]);

test.each([
  ["Bearer abc", "abc"],
  ["bearer   abc", "abc"],
  ["Basic abc", undefined],
  ["Bearer", undefined],
  ["Bearer a b", undefined],
  [`Bearer ${"x".repeat(513)}`, undefined],
  ["", undefined],
])("the header Authorization: %j gives the token %j", (authorization, bearer) => {
  expect(handshake({ authorization }).bearer).toBe(bearer);
});

test("a subprotocol gives the token where there is no header, wherever it stands among those offered", () => {
  expect(handshake({ "sec-websocket-protocol": `bearer.abc,${protocol}` })).toEqual({ bearer: "abc", speaks: true });
  expect(handshake({ "sec-websocket-protocol": "bearer.abc", authorization: "Bearer own" })).toEqual({
    bearer: "own",
    speaks: false,
  });
  expect(handshake({})).toEqual({ bearer: undefined, speaks: false });
});
