import { routes } from "@waggle/api";
import { errorKinds } from "@waggle/core";
import { beforeAll, describe, expect, test } from "vitest";
import { good, startApi, type TestApi } from "./support.ts";

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});

describe("the OpenAPI document", () => {
  // biome-ignore lint/suspicious/noExplicitAny: a document whose shape is what is tested
  type Node = Record<string, any>;
  let spec: Node;
  beforeAll(async () => {
    spec = good(200, await api.call("GET", "/openapi.json", { key: null }));
  });

  test("is OpenAPI 3.1 and names every route once", () => {
    expect(spec.openapi).toMatch(/^3\.1\.\d+$/);
    expect(spec.info).toMatchObject({ title: "Waggle", version: "1.2.3" });
    const named = Object.entries(spec.paths as Node).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(named.sort()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).sort());
    const ids = operations(spec).map(({ operationId }) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
  });

  test("has no reference that leads nowhere", () => {
    const refs = [...JSON.stringify(spec).matchAll(/"\$ref":"([^"]+)"/g)].map((match) => match[1] as string);
    expect(refs.length).toBeGreaterThan(100);
    for (const ref of new Set(refs)) {
      const found = ref
        .slice(2)
        .split("/")
        .reduce((at: Node | undefined, part) => at?.[part], spec);
      expect(found, ref).toBeTypeOf("object");
    }
  });

  test("declares every part of each path", () => {
    for (const [path, methods] of Object.entries(spec.paths as Node)) {
      const parts = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      for (const operation of Object.values(methods as Node)) {
        const declared = (operation.parameters ?? []).filter((parameter: Node) => parameter.in === "path");
        expect(declared.map((parameter: Node) => parameter.name)).toEqual(parts);
        expect(declared.every((parameter: Node) => parameter.required === true)).toBe(true);
      }
    }
  });

  test("lists the problems of every call, by codes that exist", () => {
    for (const operation of operations(spec)) {
      const problems = Object.entries(operation.responses as Node).filter(([status]) => Number(status) >= 400);
      const codes = problems.flatMap(([status, response]) => {
        const schema = response.content?.["application/problem+json"]?.schema;
        return schema ? schema.properties.code.enum.map((code: string) => ({ code, status: Number(status) })) : [];
      });
      expect(codes.length, operation.operationId).toBeGreaterThan(0);
      for (const { code, status } of codes) expect(errorKinds.get(code)?.status, code).toBe(status);
      if (operation.security.length > 0) expect(codes.map(({ code }) => code)).toContain("auth.required");
    }
  });

  test("shows payloads as any JSON and limits as they are", () => {
    const { CreateTask, Task, RegisterAgent } = spec.components.schemas;
    expect(CreateTask.properties.input).toEqual({});
    expect(Task.properties.result).toEqual({});
    expect(CreateTask.properties.priority).toMatchObject({ minimum: 0, maximum: 9, default: 5 });
    expect(CreateTask.additionalProperties).toBe(false);
    expect(CreateTask.required).toEqual(["type"]);
    expect(RegisterAgent.properties.capabilities).toMatchObject({ maxItems: 64 });
    expect(CreateTask.properties.retry.$ref ?? CreateTask.properties.retry.allOf?.[0]?.$ref).toMatch(/RetryPolicy$/);
    expect(JSON.stringify(spec)).not.toContain('"payload"');
  });

  test("names the headers by which calls are repeated and streams resumed", () => {
    for (const { id, idempotent, streams } of routes) {
      const operation = operations(spec).find(({ operationId }) => operationId === id) as Node;
      const named = (operation.parameters ?? []).map((parameter: Node) => parameter.$ref?.split("/").at(-1));
      expect(named.includes("IdempotencyKey"), id).toBe(idempotent !== undefined);
      expect(named.includes("LastEventId"), id).toBe(streams === true);
      const [answer] = Object.values(operation.responses as Node);
      expect("Idempotency-Replayed" in answer.headers, id).toBe(idempotent !== undefined);
    }
  });

  const operations = (from: Node): Node[] =>
    Object.values(from.paths as Node).flatMap((methods) => Object.values(methods as Node));
});

test("every route says who may call it, and answers something", () => {
  for (const route of routes) {
    expect(route.roles.length, route.id).toBeGreaterThan(0);
    expect(Object.keys(route.responses).length, route.id).toBeGreaterThan(0);
    expect(route.summary.length, route.id).toBeGreaterThan(5);
  }
});

test("the docs page carries all it needs and may load nothing from elsewhere", async () => {
  const reply = await api.call("GET", "/docs", { key: null });
  expect(reply.status).toBe(200);
  expect(reply.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(reply.text).not.toMatch(/(src|href)="(https?:)?\/\//);
  const policy = reply.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toContain("unsafe");
  const script = /<script>([\s\S]*)<\/script>/.exec(reply.text)?.[1] ?? "";
  expect(() => new Function(script)).not.toThrow();
  expect(script).not.toMatch(/innerHTML|document\.write|eval\(/);
});
