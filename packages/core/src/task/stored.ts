import type { JsonText } from "../json.ts";
import { taskKey } from "../rows.ts";
import type { Scope } from "../scope.ts";
import type { Row } from "./row.ts";

export async function readTask(scope: Scope, id: string): Promise<Row | undefined> {
  return (await scope.ports.store.get(taskKey(scope.tenant, id))) as Row | undefined;
}

/** undefined once it is deleted, as with its task: that may be after the task's row was read. */
export async function readBlob(scope: Scope, key: string): Promise<JsonText | undefined> {
  const bytes = await scope.ports.blobs.get(key);
  return bytes && (new TextDecoder().decode(bytes) as JsonText);
}
