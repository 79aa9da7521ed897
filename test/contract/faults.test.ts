import type { Item } from "@waggle/core";
import { type AwsConfig, createAws, createResources, deleteResources, openAws } from "@waggle/engine-aws";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { emulators, emulatorsLack } from "../support/emulator.ts";
import { eventually } from "../support/eventually.ts";
import { createFaults, type FaultRates, type Stack } from "./faults.ts";

const none: FaultRates = {
  throttle: 0,
  failure: 0,
  lostReply: 0,
  conflict: 0,
  partial: 0,
  reorder: 0,
  duplicate: 0,
};
const quick = { baseMs: 1, capMs: 5 };

describe.skipIf(emulatorsLack.ministack() !== undefined)("the AWS engine, when services fail", () => {
  let config: AwsConfig;
  beforeAll(async () => {
    process.env.AWS_ACCESS_KEY_ID ??= "test";
    process.env.AWS_SECRET_ACCESS_KEY ??= "test";
    const { endpoint } = await emulators.ministack();
    config = await createResources({ prefix: `faults-${process.pid}`, endpoint });
  });
  afterAll(() => deleteResources(config));

  const withFaults = (rates: Partial<FaultRates>, { retry = {}, sends = false } = {}) => {
    const faults = createFaults(7, { ...none, ...rates }, sends);
    const aws = createAws(config, { onClient: faults.onClient, retry: { ...quick, ...retry } });
    return { ...aws, faults, store: aws.ports.store };
  };
  const numbers = Array.from({ length: 60 }, (_, n) => n);

  describe("a write whose reply is lost", () => {
    test("is no refusal: who wrote first is told so", async () => {
      const { store, faults } = withFaults({ lostReply: 50 });
      for (const n of numbers) {
        const put = { pk: "lost", sk: `p${n}`, kind: "row", n };
        expect(await store.write({ put, if: { exists: false } })).toEqual({ ok: true, item: put });
        const update = { update: put, kind: "row", set: { n: n + 1 }, if: { equals: { n } } };
        expect(await store.write(update)).toEqual({ ok: true, item: { ...put, n: n + 1 } });
        const transact = [{ update: put, kind: "row", add: { n: 1 }, if: { equals: { n: n + 1 } } }];
        expect(await store.transact(transact)).toEqual({ ok: true });
        expect(await store.write({ delete: put, if: { equals: { n: n + 2 } } })).toEqual({ ok: true });
      }
      expect(faults.befallen.lostReply).toBeGreaterThan(50);
    });

    test("is still refused when another's write stands", async () => {
      const { store } = withFaults({ lostReply: 50 });
      const other = createAws(config).ports.store;
      for (const n of numbers) {
        const put = { pk: "stands", sk: `p${n}`, kind: "row", same: "bytes" };
        await other.write({ put });
        expect(await store.write({ put, if: { exists: false } })).toEqual({
          ok: false,
          code: "condition",
          winner: put,
        });
        expect(await store.write({ delete: put, if: { exists: false } })).toMatchObject({ ok: false });
      }
    });

    test("counts once", async () => {
      const { store, faults } = withFaults({ lostReply: 50 });
      const add = { update: { pk: "sum", sk: "n" }, kind: "sum", add: { n: 1 } };
      await Promise.all(numbers.map(() => store.write(add)));
      expect(await store.get(add.update)).toMatchObject({ n: numbers.length });
      expect(faults.befallen.lostReply).toBeGreaterThan(10);
    });

    test("loses no message and no blob", async () => {
      const { ports, faults } = withFaults({ lostReply: 40, partial: 40 }, { sends: true });
      const queue = ports.queues.intake;
      await queue.send(numbers.map((body) => ({ body })));
      const seen = new Map<unknown, number>();
      for (;;) {
        const messages = await queue.receive({ max: 10, visibilitySeconds: 30 });
        if (messages.length === 0) break;
        for (const { body } of messages) seen.set(body, (seen.get(body) ?? 0) + 1);
        await queue.ack(messages.map((message) => message.receipt));
      }
      expect([...seen.keys()].sort((a, b) => Number(a) - Number(b))).toEqual(numbers);
      expect(await queue.depth()).toEqual({ waiting: 0, inFlight: 0, delayed: 0, dead: 0 });
      await ports.blobs.put("t/lost/input", new Uint8Array([1, 2, 3]));
      expect(await ports.blobs.get("t/lost/input")).toEqual(new Uint8Array([1, 2, 3]));
      await ports.blobs.delete("t/lost/input");
      expect(faults.befallen.lostReply).toBeGreaterThan(2);
    });
  });

  test("a transaction that meets another is tried again, and in the end told which write met it", async () => {
    const some = withFaults({ conflict: 30 });
    const both = (sk: string) => ["a", "b"].map((each) => ({ put: { pk: "met", sk: sk + each, kind: "row" } }));
    for (const n of numbers) expect(await some.store.transact(both(`${n}`))).toEqual({ ok: true });
    expect(some.faults.befallen.conflict).toBeGreaterThan(10);
    const { store } = withFaults({ conflict: 100 });
    const result = await store.transact(both("never"));
    const reasons = result.ok ? [] : result.reasons;
    expect(reasons.filter((reason) => reason !== undefined)).toEqual([{ code: "conflict" }]);
    const put = { pk: "met", sk: "nevera", kind: "row" };
    expect(await store.write({ put })).toEqual({ ok: false, code: "conflict" });
    expect(await createAws(config).ports.store.get(put)).toBeUndefined();
  });

  test.each([
    ["throttles", { throttle: 100 }],
    ["does not answer", { failure: 100 }],
  ])(
    "a service that %s for long ends in an error that says when to try again, within the invocation",
    async (_, rates) => {
      const { ports, invocation } = withFaults(rates, { retry: { budgetMs: 60_000 } });
      const { store, queues, bus, blobs } = ports;
      const row = { pk: "t", sk: "a", kind: "row" };
      const event = { id: "e", source: "waggle", detailType: "x", detail: {}, time: "2025-01-01T00:00:00Z" };
      const calls: [() => Promise<unknown>, string][] = [
        [() => store.get(row), "store.unavailable"],
        [() => store.write({ put: row }), "store.unavailable"],
        [() => store.batchWrite([{ put: row }]), "store.unavailable"],
        [() => store.batchGet([row]), "store.unavailable"],
        [() => store.query({ pk: "t", limit: 1 }), "store.unavailable"],
        [() => store.transact([{ put: row }]), "store.unavailable"],
        [() => queues.dispatch.send([{ body: 1 }]), "queue.unavailable"],
        [() => queues.dispatch.receive({ max: 1 }), "queue.unavailable"],
        [() => queues.dispatch.depth(), "queue.unavailable"],
        [() => bus.publish([event]), "bus.unavailable"],
        [() => blobs.put("a", new Uint8Array(1)), "store.unavailable"],
      ];
      await Promise.all(
        calls.map(async ([call, code]) => {
          const refused = { code, extra: { retryAfterSeconds: 1 } };
          await expect(invocation(200, call), call.toString()).rejects.toMatchObject(refused);
        }),
      );
    },
  );

  test("a record of the stream that cannot be read ends nothing: it is read again, and what follows it comes", async () => {
    let broken = 2;
    // Below what retries: as if the service had answered so.
    const onClient = ({ middlewareStack }: { readonly middlewareStack: unknown }) =>
      (middlewareStack as Stack).add(
        (next, { commandName }) =>
          async (args) => {
            const answer = await next(args);
            const [record] = (answer.output.Records ?? []) as { dynamodb: { NewImage: unknown } }[];
            if (commandName === "GetRecordsCommand" && record && broken-- > 0)
              record.dynamodb.NewImage = { kind: { SS: ["of a type that no row holds"] } };
            return answer;
          },
        { step: "initialize", name: "broken" },
      );
    const engine = await openAws(config, { onClient, streamIdleMs: 20 });
    const seen: string[] = [];
    engine.changes.consume("broken", ["told"], async (changes) => void seen.push(...changes.map(({ key }) => key.sk)));
    const [a, b] = ["a", "b"].map((sk) => ({ pk: "broken", sk, kind: "told" })) as [Item, Item];
    await engine.ports.store.write({ put: a });
    await engine.ports.store.write({ put: b });
    await eventually("both are told", () => seen.includes("a") && seen.includes("b"));
    expect(broken).toBeLessThan(1);
    await engine.close();
  });

  test("a call that takes a batch in part is repeated for the rest alone", async () => {
    const { store, ports, faults } = withFaults({ partial: 100 });
    const rows = numbers.map((n) => ({ pk: "part", sk: String(n).padStart(3, "0"), kind: "row", n }));
    await store.batchWrite(rows.map((put) => ({ put })));
    expect(await store.batchGet(rows)).toEqual(rows);
    await ports.bus.publish(
      numbers.map((n) => ({
        id: `e${n}`,
        source: "waggle",
        detailType: "x",
        detail: { n },
        time: "2025-01-01T00:00:00Z",
      })),
    );
    expect(faults.befallen.partial).toBeGreaterThan(10);
  });
});
