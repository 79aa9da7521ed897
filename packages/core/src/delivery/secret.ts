import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from "node:crypto";
import { deliveryErrors } from "./error.ts";

export const newWebhookSecret = (): string => `whsec_${randomBytes(32).toString("base64")}`;

/** Marks a secret that was encrypted; others are kept as they are. */
const sealed = "sealed.1.";
const purpose = "waggle webhook secret";
const keyOf = (secretKey: string) => Buffer.from(hkdfSync("sha256", secretKey, "", purpose, 32));

/** The secret as it is stored: AES-256-GCM, the key made of `secretKey` by HKDF. Without a key, as it is. */
export function seal(secret: string, secretKey: string | undefined): string {
  if (secretKey === undefined) return secret;
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", keyOf(secretKey), nonce);
  const text = Buffer.concat([cipher.update(secret, "utf8"), cipher.final()]);
  return sealed + Buffer.concat([nonce, cipher.getAuthTag(), text]).toString("base64url");
}

/** @throws `delivery.failed` when it was encrypted with another key */
export function unseal(stored: string, secretKey: string | undefined): string {
  if (!stored.startsWith(sealed)) return stored;
  if (secretKey === undefined)
    throw deliveryErrors.failed("the webhook's secret is encrypted, and this server has no secret key");
  const bytes = Buffer.from(stored.slice(sealed.length), "base64url");
  const decipher = createDecipheriv("aes-256-gcm", keyOf(secretKey), bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(12, 28));
  try {
    return Buffer.concat([decipher.update(bytes.subarray(28)), decipher.final()]).toString("utf8");
  } catch {
    throw deliveryErrors.failed("the webhook's secret was encrypted with another secret key");
  }
}

/** The bytes a secret stands for: after `whsec_` base64; any other text is its own UTF-8. */
function bytesOf(secret: string): Buffer {
  const coded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret)?.[1];
  return coded === undefined ? Buffer.from(secret, "utf8") : Buffer.from(coded, "base64");
}

/**
 * Headers that prove to whoever knows the secret that this body is ours, and when it was sent.
 * Rules: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 * @param id the same for each try of one message
 * @param at milliseconds since 1970
 */
export function signatureHeaders(secret: string, id: string, at: number, body: string): Record<string, string> {
  const timestamp = String(Math.floor(at / 1000));
  const signature = createHmac("sha256", bytesOf(secret)).update(`${id}.${timestamp}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `v1,${signature}` };
}
