import type { Ports } from "@waggle/core";
import type { Admission } from "./admission.ts";
import { family, gauge } from "./metrics.ts";

/** What a server that runs all the time holds in memory and on disk, as Prometheus text. */
export function heldText(ports: Ports, admission: Admission): string {
  const lines: string[] = [];
  const { requests, bodyBytes, refused } = admission.now;
  gauge(lines, "waggle_requests_held", "Requests with new work being worked on.", requests);
  gauge(lines, "waggle_request_bytes_held", "Bytes of request bodies being worked on.", bodyBytes);
  family(lines, "waggle_requests_refused_total", "counter", "Requests refused because there was too much to do.");
  lines.push(`waggle_requests_refused_total ${refused}`);
  const backlog = ports.backlog?.();
  if (backlog) {
    gauge(lines, "waggle_backlog_changes", "Changes still to be followed up.", backlog.changes);
    gauge(lines, "waggle_backlog_bytes", "Bytes changed in memory and not yet in the table.", backlog.bytes);
  }
  const disk = ports.disk?.();
  if (disk) {
    gauge(lines, "waggle_table_bytes", "Size of the file of the rows.", disk.tableBytes);
    gauge(lines, "waggle_table_free_bytes", "Bytes of it that are free for new rows.", disk.freeBytes);
    gauge(lines, "waggle_log_bytes", "Size of the write-ahead log.", disk.logBytes);
  }
  return `${lines.join("\n")}\n`;
}
