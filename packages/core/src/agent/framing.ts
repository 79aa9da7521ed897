import { assignmentJson } from "../task/row.ts";
import type { AgentMessage } from "./message.ts";

/**
 * The largest message API Gateway carries, in bytes.
 * Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
 */
export const gatewayBytes = 128 * 1024;

/** For what stands around the assignments of a frame. */
const aroundBytes = 64;
const bytesOf = (text: string) => Buffer.byteLength(text);

/**
 * What an agent is told, as the text of messages that each fit through API Gateway. A task too large for one comes without
 * its input, and whatever else of it may be large, and says so by `inputOmitted`: the agent gets the task by `GET /v1/tasks/{id}`.
 */
export const frames = (message: AgentMessage): string[] =>
  framesOf(message, gatewayBytes, (_, bytes) => bytes > gatewayBytes - aroundBytes + 1);

/**
 * As `frames`, with assignments in groups of at most so many bytes, or one that is larger by itself.
 * @param omits whether one of so many bytes comes without its input; `before`: those of the frames that were made before it
 */
export function framesOf(
  message: AgentMessage,
  frameBytes: number,
  omits: (before: number, bytes: number) => boolean,
): string[] {
  if (!("assign" in message)) return [JSON.stringify({ op: "command", ...message })];
  const open = `{"op":"assign","assignments":[`;
  const texts: string[] = [];
  let group: string[] = [];
  let before = 0;
  let bytes = 0;
  for (const assignment of message.assign) {
    let text = assignmentJson(assignment);
    let size = bytesOf(text) + 1;
    if (omits(before + bytes, size)) {
      const { input: _, metadata: __, details: ___, ...task } = assignment.task;
      text = assignmentJson({ ...assignment, task: { ...task, labels: [] }, inputOmitted: true });
      size = bytesOf(text) + 1;
    }
    if (group.length > 0 && bytes + size > frameBytes - aroundBytes) {
      texts.push(`${open}${group.join(",")}]}`);
      group = [];
      before += bytes;
      bytes = 0;
    }
    group.push(text);
    bytes += size;
  }
  if (group.length > 0) texts.push(`${open}${group.join(",")}]}`);
  return texts;
}
