import { afterAll, beforeAll, expect, test } from "vitest";
import { apiOf } from "../support/api.ts";
import { emulators } from "../support/emulator.ts";
import { bundle, type Deployment, deploy } from "./deploy.ts";

let deployment: Deployment;
beforeAll(async () => {
  const { endpoint } = await emulators.ministack();
  deployment = await deploy({ endpoint, bundles: process.env.WAGGLE_AWS_BUNDLES ?? (await bundle()) });
});
afterAll(() => deployment?.stop());

test("a task is submitted, dispatched, leased and completed through the bundles", async () => {
  const api = apiOf(deployment.url, deployment.key);
  const agent = await api.register();
  const { id } = await api.delegate({ input: { n: 1 } });
  await agent.complete(await agent.take(), { n: 2 });
  expect(await api.taskWhen(id, "completed")).toMatchObject({ result: { n: 2 }, attempt: 1 });
});
