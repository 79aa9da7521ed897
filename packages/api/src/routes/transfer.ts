import { TransferRequest, toProblem } from "@waggle/core";
import { ExportAnswer, ImportAnswer } from "../answers.ts";
import { admins, json, type Route, route } from "../route.ts";

export const transferRoutes: readonly Route[] = [
  route({
    method: "GET",
    path: "/v1/export",
    id: "exportRecords",
    tag: "System",
    summary: "Export everything a tenant consists of, to move it to another server",
    description:
      "Limits, agents and keys (hashes, never secrets), then tasks with their payloads, in the order in which they were made. Each row is as " +
      "it stood when it was read: for an exact copy, export from a quiet server. `waggle export` writes it to a file.",
    roles: admins,
    query: TransferRequest.ExportQuery,
    responses: { 200: { description: "A page of records", schema: ExportAnswer } },
    errors: [],
    async handler({ scope, shared, query }) {
      const { Transfer } = await import("@waggle/core/transfer");
      return json(JSON.stringify({ server: shared.version, ...(await Transfer.page(scope, query)) }));
    },
  }),
  route({
    method: "POST",
    path: "/v1/import",
    id: "importRecords",
    tag: "System",
    summary: "Import up to 100 records of an export",
    description:
      "Each record is a `TransferRecord` of a file with this `version`. What exists already stays as it is, so the same records again change " +
      "nothing. Tasks that an agent held are given back. `waggle import` sends a file.",
    roles: admins,
    body: TransferRequest.Import,
    responses: { 200: { description: "What became of each record, in order", schema: ImportAnswer } },
    errors: [TransferRequest.newerFormat],
    async handler({ scope, body }) {
      const { Transfer } = await import("@waggle/core/transfer");
      const results = await Transfer.take(scope, body);
      const entries = results.map(({ outcome, problem }) =>
        problem === undefined
          ? `{"outcome":"${outcome}"}`
          : `{"outcome":"${outcome}","problem":${toProblem(problem, undefined).text}}`,
      );
      return json(`{"results":[${entries.join(",")}]}`);
    },
  }),
];
