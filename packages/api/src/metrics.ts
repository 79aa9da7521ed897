import { monitorEventLoopDelay } from "node:perf_hooks";

/** Upper bounds in seconds. */
const bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] as const;

interface Series {
  readonly method: string;
  readonly route: string;
  readonly byStatus: Map<number, number>;
  readonly buckets: number[];
  sum: number;
  count: number;
}

/** Counts of this process; gauges are read when asked for. */
export interface Metrics {
  request(method: string, route: string, status: number, seconds: number): void;
  readonly sockets: { open: number; framesIn: number; framesOut: number; slow: number };
  readonly streams: { open: number };
  render(): string;
}

export function createMetrics(): Metrics {
  const all = new Map<string, Series>();
  const sockets = { open: 0, framesIn: 0, framesOut: 0, slow: 0 };
  const streams = { open: 0 };
  const delay = monitorEventLoopDelay({ resolution: 20 });
  let watching = false;
  return {
    sockets,
    streams,
    request(method, route, status, seconds) {
      const name = `${method} ${route}`;
      let series = all.get(name);
      if (series === undefined) {
        series = { method, route, byStatus: new Map(), buckets: Array(bounds.length).fill(0), sum: 0, count: 0 };
        all.set(name, series);
      }
      series.byStatus.set(status, (series.byStatus.get(status) ?? 0) + 1);
      series.sum += seconds;
      series.count++;
      for (let i = 0; i < bounds.length; i++) {
        if (seconds <= (bounds[i] as number)) {
          (series.buckets[i] as number)++;
          break;
        }
      }
    },
    render() {
      // The timer behind it costs a little; nobody who does not scrape pays.
      if (!watching) watching = delay.enable();
      const lines: string[] = [];
      family(lines, "waggle_http_requests_total", "counter", "HTTP requests answered.");
      for (const { method, route, byStatus } of all.values()) {
        for (const [status, count] of byStatus)
          lines.push(`waggle_http_requests_total${labels({ method, route, status: String(status) })} ${count}`);
      }
      const seconds = "waggle_http_request_duration_seconds";
      family(lines, seconds, "histogram", "Time from request to answer, long polls included.");
      for (const { method, route, buckets, sum, count } of all.values()) {
        let below = 0;
        for (const [i, bound] of bounds.entries()) {
          below += buckets[i] as number;
          lines.push(`${seconds}_bucket${labels({ method, route, le: String(bound) })} ${below}`);
        }
        lines.push(`${seconds}_bucket${labels({ method, route, le: "+Inf" })} ${count}`);
        lines.push(`${seconds}_sum${labels({ method, route })} ${sum}`);
        lines.push(`${seconds}_count${labels({ method, route })} ${count}`);
      }
      gauge(lines, "waggle_agent_connections", "Agents connected by WebSocket to this process.", sockets.open);
      gauge(lines, "waggle_event_streams", "Open event streams of this process.", streams.open);
      family(lines, "waggle_agent_frames_total", "counter", "WebSocket frames of agents.");
      lines.push(`waggle_agent_frames_total{direction="in"} ${sockets.framesIn}`);
      lines.push(`waggle_agent_frames_total{direction="out"} ${sockets.framesOut}`);
      family(
        lines,
        "waggle_agent_connections_slow_total",
        "counter",
        "Connections closed because their agents did not read.",
      );
      lines.push(`waggle_agent_connections_slow_total ${sockets.slow}`);
      const { user, system } = process.cpuUsage();
      family(lines, "process_cpu_seconds_total", "counter", "CPU time of the process.");
      lines.push(`process_cpu_seconds_total ${(user + system) / 1e6}`);
      gauge(lines, "process_resident_memory_bytes", "Resident memory of the process.", process.memoryUsage.rss());
      gauge(
        lines,
        "process_start_time_seconds",
        "Start of the process, Unix time.",
        Date.now() / 1000 - process.uptime(),
      );
      const p99 = delay.count > 0 ? Math.max(0, delay.percentile(99) / 1e9 - 0.02) : 0;
      gauge(lines, "nodejs_eventloop_lag_p99_seconds", "Lag of the event loop since the last scrape, p99.", p99);
      delay.reset();
      return `${lines.join("\n")}\n`;
    },
  };
}

export function family(lines: string[], name: string, type: string, help: string): void {
  lines.push(`# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`, `# TYPE ${name} ${type}`);
}

export function gauge(lines: string[], name: string, help: string, value: number): void {
  family(lines, name, "gauge", help);
  lines.push(`${name} ${value}`);
}

/** `{a="b"}`, escaped as https://prometheus.io/docs/instrumenting/exposition_formats/ says; empty for none. */
export function labels(values: Readonly<Record<string, string>>): string {
  const parts = Object.entries(values).map(([name, value]) => {
    const escaped = value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
    return `${name}="${escaped}"`;
  });
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}
