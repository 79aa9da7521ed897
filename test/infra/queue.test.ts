import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { deliverHandler, dispatchHandler } from "@waggle/edge";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { invocation, onQueue } from "../../functions/support/lambda.ts";

/** What SQS was asked, in order: the call, and for each message how long it is to be hidden. */
let asked: unknown[] = [];
const server = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    const call = String(request.headers["x-amz-target"]);
    // The table says nothing for as long as the function may take.
    if (!call.startsWith("AmazonSQS.")) return;
    const { Entries } = JSON.parse(body) as { Entries: { ReceiptHandle: string; VisibilityTimeout: number }[] };
    asked.push([call, Object.fromEntries(Entries.map((each) => [each.ReceiptHandle, each.VisibilityTimeout]))]);
    response.end("{}");
  });
});
const hide = "AmazonSQS.ChangeMessageVisibilityBatch";

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const env = { AWS_REGION: "us-east-1", AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };
  for (const [name, value] of Object.entries({ ...env, AWS_ENDPOINT_URL: endpoint })) vi.stubEnv(name, value);
  for (const name of ["TABLE", "BUS", "BUCKET"]) vi.stubEnv(`WAGGLE_${name}`, "x");
  for (const name of ["DISPATCH", "TIMERS", "DELIVER", "INTAKE"])
    for (const part of ["QUEUE", "DLQ"]) vi.stubEnv(`WAGGLE_${part}_${name}`, `${endpoint}/${name}`);
});
beforeEach(() => {
  asked = [];
  vi.spyOn(process.stdout, "write").mockReturnValue(true);
});
afterEach(() => {
  vi.restoreAllMocks();
});
afterAll(() => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
});

/** An invocation with this much time left. */
const context = (ms: number) => {
  const end = Date.now() + ms;
  return { awsRequestId: "r", getRemainingTimeInMillis: () => end - Date.now() };
};
const records = (bodies: readonly object[]) =>
  bodies.map((body, at) => ({
    messageId: `m${at}`,
    receiptHandle: `receipt-${at}`,
    body: JSON.stringify(body),
    attributes: { ApproximateReceiveCount: String(at + 1) },
  }));
const bothFailed = { batchItemFailures: [{ itemIdentifier: "m0" }, { itemIdentifier: "m1" }] };

test("messages a function has no time for come again in seconds, not when they would have been forgotten", async () => {
  const Records = records(["a", "b"].map((id) => ({ tenant: "acme", id })));
  expect(await onQueue("dispatch", dispatchHandler)({ Records }, context(2_600))).toEqual(bothFailed);
  expect(asked).toHaveLength(2);
  expect(asked).toContainEqual([hide, { "receipt-0": 1 }]);
  expect(asked).toContainEqual([hide, { "receipt-1": 2 }]);
});

test("what is worked on is hidden for a little at a time, so that it comes again soon after its process died", async () => {
  const Records = records(["a", "b"].map((taskId) => ({ tenant: "acme", agentId: "agt", taskId, fence: 1 })));
  expect(await onQueue("deliver", deliverHandler, 0.6)({ Records }, context(2_600))).toEqual(bothFailed);
  const hidden = asked.filter(
    (each) => JSON.stringify(each) === JSON.stringify([hide, { "receipt-0": 1, "receipt-1": 1 }]),
  );
  // At once, and each third of that time, as long as it takes; SQS counts whole seconds.
  expect(hidden.length).toBeGreaterThanOrEqual(3);
  expect(asked.slice(hidden.length)).toHaveLength(2);
});

test("what a function ends with is cut as its log is, since Lambda logs that by itself", async () => {
  const secret = `wga_${"x".repeat(27)}`;
  const failing = invocation("outbox", context(2_600), async () => {
    throw new TypeError(`no row for ${secret}`);
  });
  await expect(failing).rejects.toThrow(/^TypeError: no row for wga_…$/);
});
