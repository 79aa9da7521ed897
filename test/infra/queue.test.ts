import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dispatchHandler } from "@waggle/edge";
import { expect, test, vi } from "vitest";
import { onQueue } from "../../functions/support/lambda.ts";

test("messages a function has no time for come again in a second, not when they would have been forgotten", async () => {
  const hidden: unknown[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      // The table says nothing for as long as the function may take.
      if (!String(request.headers["x-amz-target"]).startsWith("AmazonSQS.")) return;
      const { ReceiptHandle, VisibilityTimeout } = JSON.parse(body);
      hidden.push([request.headers["x-amz-target"], ReceiptHandle, VisibilityTimeout]);
      response.end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const env = { AWS_REGION: "us-east-1", AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };
  for (const [name, value] of Object.entries({ ...env, AWS_ENDPOINT_URL: endpoint })) vi.stubEnv(name, value);
  for (const name of ["TABLE", "BUS", "BUCKET"]) vi.stubEnv(`WAGGLE_${name}`, "x");
  for (const name of ["DISPATCH", "TIMERS", "DELIVER", "INTAKE"])
    for (const part of ["QUEUE", "DLQ"]) vi.stubEnv(`WAGGLE_${part}_${name}`, `${endpoint}/${name}`);
  const log = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const end = Date.now() + 2_600;
  const context = { awsRequestId: "r", getRemainingTimeInMillis: () => end - Date.now() };
  const record = (id: string) => ({
    messageId: id,
    receiptHandle: `receipt-${id}`,
    body: JSON.stringify({ tenant: "acme", id }),
    attributes: { ApproximateReceiveCount: "1" },
  });
  const answer = await onQueue("dispatch", dispatchHandler)({ Records: ["a", "b"].map(record) }, context);
  log.mockRestore();
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
  expect(answer).toEqual({ batchItemFailures: [{ itemIdentifier: "a" }, { itemIdentifier: "b" }] });
  const target = "AmazonSQS.ChangeMessageVisibility";
  expect(hidden.sort()).toEqual([
    [target, "receipt-a", 1],
    [target, "receipt-b", 1],
  ]);
});
