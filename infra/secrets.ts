import { createHash } from "node:crypto";

/**
 * The first admin's key. Only its hash is deployed; the API takes the key it belongs to once, and from then on it is a key like
 * others, to be listed and revoked. Another value makes another admin: the way back in when every key is lost.
 */
const adminKey = new sst.Secret("AdminKey");

/** Encrypts what must be read again: secrets that sign calls of webhooks. */
export const secretKey = new sst.Secret("SecretKey");

/** Who is told of alarms; nobody where it is left out. */
export const alarmEmail = new sst.Secret("AlarmEmail", "nobody");

export const adminKeyHash = adminKey.value.apply((key) => {
  if (!/^wgk_[A-Za-z0-9_-]{27}$/.test(key)) {
    throw new Error(
      "AdminKey is not a key: wgk_ and 27 letters, digits, - or _. Make one with:  node -p \"'wgk_' + crypto.randomBytes(20).toString('base64url')\"",
    );
  }
  return createHash("sha256").update(key).digest("base64url");
});
