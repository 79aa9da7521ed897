import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { verifyWebhook, WaggleWebhookError } from "./webhook.ts";

const secret = "whsec_FnS2Xz3iv8Wv1uikU7mcVSiz8X2v/L02";
const body = '{"type":"task.assigned","timestamp":"2026-01-01T00:00:00.000Z","data":{"fence":1}}';
const at = 1_767_225_600;
const now = () => at * 1000;
const sign = (key: Buffer | string, text = body, id = "msg_1") =>
  `v1,${createHmac("sha256", key).update(`${id}.${at}.${text}`).digest("base64")}`;
const key = Buffer.from(secret.slice(6), "base64");
const headers = (more: Record<string, string> = {}) => ({
  "webhook-id": "msg_1",
  "webhook-timestamp": String(at),
  "webhook-signature": sign(key),
  ...more,
});
const refused = (run: Promise<unknown>) => expect(run).rejects.toThrow(WaggleWebhookError);

test("a signed message is read, from headers of every kind", async () => {
  const message = { type: "task.assigned", data: { fence: 1 } };
  expect(await verifyWebhook(secret, headers(), body, { now })).toMatchObject(message);
  expect(await verifyWebhook(secret, new Headers(headers()), body, { now })).toMatchObject(message);
  const capital = Object.fromEntries(Object.entries(headers()).map(([name, value]) => [name.toUpperCase(), value]));
  expect(await verifyWebhook(secret, capital, new TextEncoder().encode(body), { now })).toMatchObject(message);
});

test("one signature of several that fits is enough, as is one secret of several", async () => {
  const many = headers({ "webhook-signature": `v1,AAAA v2,x ${sign(key)}` });
  expect(await verifyWebhook(["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", secret], many, body, { now })).toBeDefined();
});

test("a secret that is no base64 counts as text", async () => {
  const text = "correct horse battery staple";
  const given = headers({ "webhook-signature": sign(text) });
  expect(await verifyWebhook(text, given, body, { now })).toBeDefined();
});

test.each(["whsec_thePaddingIs1", "whsec_thePaddingIs12=", "whsec_thePaddingIs1234=="])(
  "a secret of one's own stands for the bytes the server takes it for: %s",
  async (own) => {
    const given = headers({ "webhook-signature": sign(Buffer.from(own.slice("whsec_".length), "base64")) });
    expect(await verifyWebhook(own, given, body, { now })).toBeDefined();
  },
);

test.each([
  ["another body", headers(), `${body} `],
  ["another id", headers({ "webhook-id": "msg_2" }), body],
  ["another time", headers({ "webhook-timestamp": String(at + 1) }), body],
  ["no time", headers({ "webhook-timestamp": "soon" }), body],
  ["an unknown version", headers({ "webhook-signature": sign(key).replace("v1", "v9") }), body],
  ["no signature", headers({ "webhook-signature": "" }), body],
  ["another's signature", headers({ "webhook-signature": sign("another") }), body],
])("%s is refused", (_, given, text) => refused(verifyWebhook(secret, given, text, { now })));

test("a message sent again later is refused, and one from the future", async () => {
  await refused(verifyWebhook(secret, headers(), body, { now: () => (at + 301) * 1000 }));
  await refused(verifyWebhook(secret, headers(), body, { now: () => (at - 301) * 1000 }));
  expect(await verifyWebhook(secret, headers(), body, { now: () => (at + 299) * 1000 })).toBeDefined();
});

test.each([[undefined], [""], [[]], [[""]]])("without a secret (%j) every message is refused", (none) =>
  refused(verifyWebhook(none, headers({ "webhook-signature": sign("") }), body, { now })),
);
