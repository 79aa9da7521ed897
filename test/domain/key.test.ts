import { Key } from "@waggle/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openSystem, type System } from "../support/system.ts";

let system: System;
beforeEach(async () => {
  system = await openSystem();
});
afterEach(async () => {
  expect(system.errors).toEqual([]);
  await system.close();
});

const key = "wgk_0123456789abcdefghijklmnopq";
const scope = () => ({ ...system.admin, tenant: Key.firstTenant });

test("a deployment's key is an admin's once its hash is taken over, and is listed like others", async () => {
  const { ports } = system;
  expect(await Key.authenticate(ports, key)).toBeUndefined();
  expect(await Key.adopt(ports, Key.hashOf(key))).toBe(true);
  expect(await Key.authenticate(ports, key)).toMatchObject({ tenant: Key.firstTenant, actor: { role: "admin" } });
  const { items } = await Key.list(scope(), { limit: 10 });
  expect(items).toMatchObject([{ role: "admin", name: "made by the deployment" }]);
  expect(JSON.stringify(items)).not.toContain(key);
});

test("many processes that start at once take a key over once", async () => {
  const made = await Promise.all(Array.from({ length: 5 }, () => Key.adopt(system.ports, Key.hashOf(key))));
  expect(made.filter(Boolean)).toHaveLength(1);
  expect((await Key.list(scope(), { limit: 10 })).items).toHaveLength(1);
});

test("a deployment's key that was revoked stays void, and another is the way back in", async () => {
  const { ports } = system;
  await Key.adopt(ports, Key.hashOf(key));
  const [first] = (await Key.list(scope(), { limit: 10 })).items;
  const other = "wgk_qponmlkjihgfedcba9876543210";
  expect(await Key.adopt(ports, Key.hashOf(other))).toBe(true);
  await Key.revoke(scope(), first?.id ?? "");
  expect(await Key.adopt(ports, Key.hashOf(key))).toBe(false);
  expect(await Key.authenticate(ports, key)).toBeUndefined();
  expect(await Key.authenticate(ports, other)).toBeDefined();
});

test("admins who revoke one another at once leave one of them, however many keys there are beside theirs", async () => {
  for (let n = 0; n < 205; n++) await Key.create(scope(), { role: "reader" });
  const admins = [await Key.create(scope(), { role: "admin" }), await Key.create(scope(), { role: "admin" })];
  const revoked = await Promise.allSettled(admins.map(({ info }) => Key.revoke(scope(), info.id)));
  expect(revoked.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  const [left] = revoked.flatMap(({ status }, n) => (status === "rejected" ? [admins[n]] : []));
  expect(await Key.authenticate(system.ports, left?.key ?? "")).toMatchObject({ actor: { role: "admin" } });
});
