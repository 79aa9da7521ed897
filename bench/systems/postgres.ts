import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { eventually } from "../../test/support/eventually.ts";
import { freePort, launch } from "../../test/support/process.ts";
import { root } from "../../test/support/root.ts";
import { treeOf } from "../usage.ts";
import { installPackage, loadPeer, preparePeer } from "./peers.ts";
import type { RunningServer } from "./system.ts";

/* A new cluster for each measure, with the settings it ships with: fsync and synchronous_commit on. */

const versions = "/usr/lib/postgresql";

function programs(): string | undefined {
  if (process.env.PG_BIN) return process.env.PG_BIN;
  const found = (existsSync(versions) ? readdirSync(versions) : [])
    .map((version) => join(versions, version, "bin"))
    .filter((bin) => existsSync(join(bin, "postgres")));
  return found.sort((a, b) => b.localeCompare(a, "en", { numeric: true }))[0];
}
const program = (name: string) => join(programs() ?? "", name);

/** @returns why there is no PostgreSQL, or not what the peer needs beside it */
export const preparePostgres = (nodeAtLeast?: number): string | undefined =>
  preparePeer(nodeAtLeast) ?? installPackage("postgresql", () => programs() !== undefined);

/** PostgreSQL refuses to run as root. */
function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return;
  const id = (what: string) => Number(execFileSync("id", [what, "postgres"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}

/** Making a cluster takes two seconds of both cores; a copy of one is the same. */
function makeCluster(data: string, user: ReturnType<typeof unprivileged>): void {
  const version = execFileSync(program("postgres"), ["--version"], { encoding: "utf8" }).replace(/[^\d.]+/g, "-");
  const template = join(root, ".cache", `postgres${version}`);
  const own = () => user && execFileSync("chown", ["-R", `${user.uid}:${user.gid}`, data]);
  if (existsSync(template)) {
    cpSync(template, data, { recursive: true });
    chmodSync(data, 0o700);
    own();
    return;
  }
  mkdirSync(data, { mode: 0o700 });
  own();
  const settings = ["-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"];
  execFileSync(program("initdb"), ["-D", data, ...settings], { ...user, cwd: data, stdio: "ignore" });
  cpSync(data, `${template}.${process.pid}`, { recursive: true });
  renameSync(`${template}.${process.pid}`, template);
}

interface Pool {
  query<Row>(text: string, values?: readonly unknown[]): Promise<{ rows: Row[] }>;
  on(event: "error", listener: () => void): void;
  end(): Promise<void>;
}
interface Pg {
  default: { Pool: new (options: object) => Pool };
}

/** Connections of the measure's own, for counting and reading results. They outlive a restart of the server. */
export async function openPool(url: string): Promise<Pool> {
  const pg = await loadPeer<Pg>("pg");
  const pool = new pg.default.Pool({ connectionString: url, max: 4 });
  pool.on("error", () => {});
  return pool;
}

/** For those that cannot wait for a result: reads by id every 2 ms until there is one. */
export async function pollFor<Result>(read: (id: string) => Promise<Result | undefined>, id: string): Promise<Result> {
  for (;;) {
    const result = await read(id);
    if (result !== undefined) return result;
    await sleep(2);
  }
}

export async function startPostgres(dataDir: string): Promise<RunningServer> {
  const data = join(dataDir, "postgres");
  const user = unprivileged();
  chmodSync(dataDir, 0o711);
  makeCluster(data, user);
  const port = await freePort();
  const url = `postgres://bench@127.0.0.1:${port}/postgres`;
  const args = ["-D", data, "-p", String(port)];
  for (const setting of ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=400"])
    args.push("-c", setting);
  const pool = await openPool(url);
  const open = () =>
    eventually(
      "postgres answers",
      async () => {
        // After a kill it does not start until the last process of the old one is gone.
        if (!server.running) server = launch(program("postgres"), args, { user, cwd: data });
        await pool.query("select 1");
        return true;
      },
      { seconds: 30, everyMs: 5 },
    );
  let server = launch(program("postgres"), args, { user, cwd: data });
  await open();
  return {
    connection: { url },
    get process() {
      return server;
    },
    async restart() {
      const all = treeOf(server.pid);
      await server.end("SIGKILL");
      for (const pid of all) {
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          // It has ended.
        }
      }
      await open();
    },
    async stop() {
      await pool.end();
      await server.end("SIGINT");
    },
  };
}
