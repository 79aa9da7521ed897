import fc from "fast-check";
import { expect, test } from "vitest";
import { parseSse, type SseMessage } from "./sse.ts";

async function read(chunks: string[]): Promise<SseMessage[]> {
  async function* source() {
    yield* chunks;
  }
  const messages: SseMessage[] = [];
  for await (const message of parseSse(source())) messages.push(message);
  return messages;
}

test("reads a message with id, event and several lines of data", async () => {
  expect(await read(["id: 7\nevent: task.created\ndata: one\ndata: two\n\n"])).toEqual([
    { id: "7", event: "task.created", data: "one\ntwo" },
  ]);
});

test("gives nothing for comments, a retry hint, or an event without data, and keeps the last id", async () => {
  expect(await read([":\n\nretry: 1000\n\nid: 3\nevent: nothing\n\ndata:x\n\n"])).toEqual([
    { id: "3", event: "message", data: "x" },
  ]);
});

test("drops a message the connection cut off", async () => {
  expect(await read(["data: whole\n\ndata: cut"])).toEqual([{ id: "", event: "message", data: "whole" }]);
});

test("takes away one leading space and a byte order mark, no more", async () => {
  expect(await read(["\ufeffdata:  two spaces\n\n"])).toEqual([{ id: "", event: "message", data: " two spaces" }]);
});

test("reads the same however the stream is cut and whichever line ends it has", async () => {
  const line = fc.string().map((text) => text.replace(/[\r\n\0]/g, ""));
  const message = fc.record({ id: line, data: fc.array(line, { minLength: 1, maxLength: 3 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { maxLength: 5 }),
      fc.constantFrom("\n", "\r\n", "\r"),
      fc.array(fc.nat(400)),
      async (messages, end, cuts) => {
        const text = messages
          .map(({ id, data }) => [`id: ${id}`, ...data.map((part) => `data: ${part}`), "", ""].join(end))
          .join("");
        // A lone CR at the very end may be half of a CRLF: another line settles it.
        const whole = `${text}:${end}${end}`;
        const at = [0, ...cuts.map((cut) => cut % (whole.length + 1)), whole.length].sort((a, b) => a - b);
        const chunks = at.slice(1).map((to, i) => whole.slice(at[i], to));
        expect(await read(chunks)).toEqual(
          messages.map(({ id, data }) => ({ id, event: "message", data: data.join("\n") })),
        );
      },
    ),
  );
});
