import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { type Item, idempotencyKeptMs, idempotencyKey, otherRequest, requestErrors, type Scope } from "@waggle/core";
import { type Answer, type Idempotency, replayedHeader } from "./route.ts";

/** A first call that has not ended after this long is taken to have died with its process. */
const pendingMs = 30_000;

/** Of the request's header, checked. */
export function keyOf(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  if (/^[\x20-\x7e]{1,255}$/.test(header)) return header;
  throw requestErrors.invalid("Idempotency-Key must be 1 to 255 printable ASCII characters", {
    errors: [{ path: "Idempotency-Key", message: "expected 1 to 255 printable ASCII characters" }],
  });
}

/** Equal for the same call with the same body, whatever its white space and order of members. Payloads count as text. */
export const hashOf = (method: string, path: string, body: unknown, caller = ""): string =>
  createHash("sha256")
    .update(`${method} ${path}\n${caller}\n${canonical(body)}`)
    .digest("base64url");

function canonical(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "";
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const members = value as Record<string, unknown>;
  const names = Object.keys(members).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(members[name])}`).join(",")}}`;
}

/**
 * Runs a call once for each key, and answers the same again to whoever repeats it within 24 h. The answer may hold a
 * secret (an agent's token, a new key), so it is kept encrypted with a key that only the caller's own bearer gives.
 * A call that fails leaves nothing behind. One that dies midway may be made again after 30 s.
 */
export async function once(
  scope: Scope,
  bearer: string,
  { key, hash }: Idempotency,
  run: () => Promise<Answer>,
): Promise<Answer> {
  const { store, clock } = scope.ports;
  const at = clock.now();
  const row = idempotencyKey(scope.tenant, key);
  const claim = {
    ...row,
    kind: "idempotency",
    hash,
    state: "pending",
    at,
    expiresAt: at + idempotencyKeptMs,
    claim: scope.requestId,
  };
  let taken = await store.write({ put: claim, if: { exists: false } });
  if (!taken.ok) {
    const winner = taken.winner as (Item & { expiresAt: number; at: number }) | undefined;
    if (winner && winner.expiresAt > at) {
      if (winner.hash !== hash) throw otherRequest();
      if (winner.state === "done") return replay(winner, bearer, key);
      if (winner.at + pendingMs > at) {
        throw requestErrors.idempotencyBusy("the first request with this Idempotency-Key is still running", {
          retryAfterSeconds: (winner.at + pendingMs - at) / 1000,
        });
      }
    }
    if (winner)
      taken = await store.write({ put: claim, if: { equals: { at: winner.at, hash: winner.hash as string } } });
    if (!taken.ok) {
      throw requestErrors.idempotencyBusy("another request with this Idempotency-Key was faster", {
        retryAfterSeconds: 1,
      });
    }
  }
  const own = { equals: { claim: scope.requestId, at } };
  let answer: Answer;
  try {
    answer = await run();
  } catch (error) {
    await store.write({ delete: row, if: own });
    throw error;
  }
  const set = { state: "done", status: answer.status ?? 200, answer: encrypt(answer.text ?? "", bearer, key) };
  await store.write({ update: row, kind: "idempotency", set, if: own });
  return answer;
}

function replay(row: Item, bearer: string, key: string): Answer {
  return { status: row.status as number, text: decrypt(row.answer as string, bearer, key), headers: replayedHeader };
}

// RFC 5869: the bearer is the key material, the caller's Idempotency-Key the salt.
const secretOf = (bearer: string, key: string) =>
  Buffer.from(hkdfSync("sha256", bearer, key, "waggle idempotency v1", 32));

function encrypt(text: string, bearer: string, key: string): string {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", secretOf(bearer, key), nonce);
  const bytes = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), bytes]).toString("base64");
}

function decrypt(sealed: string, bearer: string, key: string): string {
  const bytes = Buffer.from(sealed, "base64");
  const decipher = createDecipheriv("aes-256-gcm", secretOf(bearer, key), bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(12, 28));
  return decipher.update(bytes.subarray(28), undefined, "utf8") + decipher.final("utf8");
}
