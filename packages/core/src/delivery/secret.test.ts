import { expect, test } from "vitest";
import { isError } from "../error.ts";
import { deliveryErrors } from "./error.ts";
import { newWebhookSecret, seal, signatureHeaders, unseal } from "./secret.ts";

// Worked out apart from this code: printf '%s' "$id.$seconds.$body" | openssl dgst -sha256 -mac HMAC -macopt hexkey:… -binary | base64
const secret = "whsec_FnS2Xz3iv8Wv1uikU7mcVSiz8X2v/L02";
const at = 1_767_225_600_999;
test.each([
  [secret, '{"type":"task.assigned"}', "v1,YFYE2hEig13Zud96tce5kwL0On8TY4IhwfoOY0kgLdY="],
  [secret, '{"text":"żółć 🐝"}', "v1,fr9cG6pck6JdHG+t5VO9RxCJBQ9A+XttxAaDdoINULM="],
  ["correct horse battery staple", '{"type":"task.assigned"}', "v1,LWj5l3mwUyG35MlpM7YZpHeDo5dwOV8cnl5SJQpLFkA="],
])("with the secret %s, %s is signed as others would sign it", (key, body, signature) => {
  expect(signatureHeaders(key, "msg_tsk_1_1", at, body)).toEqual({
    "webhook-id": "msg_tsk_1_1",
    "webhook-timestamp": "1767225600",
    "webhook-signature": signature,
  });
});

test("a new secret has 256 bits, in the form receivers know", () => {
  const made = newWebhookSecret();
  expect(made).toMatch(/^whsec_[A-Za-z0-9+/]+=*$/);
  expect(Buffer.from(made.slice(6), "base64").length).toBe(32);
  expect(newWebhookSecret()).not.toBe(made);
});

test("a secret rests encrypted, differently each time, and is read with the same key alone", () => {
  const stored = seal(secret, "key one");
  expect(stored).not.toContain(secret.slice(6, 20));
  expect(seal(secret, "key one")).not.toBe(stored);
  expect(unseal(stored, "key one")).toBe(secret);
  for (const key of ["key two", undefined]) {
    const thrown = (() => {
      try {
        return unseal(stored, key);
      } catch (error) {
        return error;
      }
    })();
    expect(isError(thrown, deliveryErrors.failed)).toBe(true);
    expect(String(thrown)).toMatch(/secret key/);
  }
});

test("without a key a secret rests as it is, and is read after a key was set", () => {
  expect(unseal(seal(secret, undefined), "set later")).toBe(secret);
});
