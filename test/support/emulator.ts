import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { freePort } from "./process.ts";
import { root } from "./root.ts";

/** A service of AWS on this machine. */
export interface Emulator {
  readonly endpoint: string;
  readonly port: number;
  end(): Promise<void>;
}

/** What is installed into `.cache/emulators`, once. */
export interface Installable {
  readonly name: string;
  /** Programs it needs, and what they are asked to see that they are there. */
  readonly needs: readonly (readonly [program: string, ask: string])[];
  install(folder: string): void;
}

export interface EmulatorKind extends Installable {
  command(folder: string, port: number, scratch: string): { program: string; args: string[]; env?: NodeJS.ProcessEnv };
}

const cache = join(root, ".cache/emulators");
const support = join(root, "test/support");

/** MiniStack and all it needs, as they were tried together. */
const ministackPins = [
  "ministack==1.5.33",
  "botocore==1.43.106",
  "defusedxml==0.7.1",
  "graphql-core==3.2.12",
  "h11==0.16.0",
  "h2==4.4.1",
  "hpack==4.2.0",
  "hypercorn==0.18.0",
  "hyperframe==6.1.0",
  "jmespath==1.1.0",
  "jsonata-python==0.7.1",
  "priority==2.0.0",
  "python-dateutil==2.9.0.post0",
  "PyYAML==6.0.4",
  "six==1.17.0",
  "urllib3==2.8.0",
  "wsproto==1.3.2",
];

/** LocalStack's API on one port: https://pypi.org/project/ministack/ */
const ministack: EmulatorKind = {
  name: "ministack-1.5.33",
  needs: [["python3", "--version"]],
  install(folder) {
    must("python3", ["-m", "venv", folder]);
    must(join(folder, "bin/pip"), ["install", "--quiet", "--disable-pip-version-check", "--no-deps", ...ministackPins]);
  },
  command(folder, port, scratch) {
    return {
      program: join(folder, "bin/python"),
      args: [join(support, "emulator-ministack.py")],
      env: {
        BIND_HOST: "127.0.0.1",
        GATEWAY_PORT: String(port),
        // As an address it makes URLs of APIs that Node refuses.
        MINISTACK_HOST: "localhost",
        MINISTACK_REGION: "us-east-1",
        LAMBDA_EXECUTOR: "local",
        PERSIST_STATE: "0",
        TMPDIR: scratch,
        STATE_DIR: join(scratch, "state"),
        S3_DATA_DIR: join(scratch, "s3"),
        LOG_LEVEL: "WARNING",
      },
    };
  },
};

/** AWS's own: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/DynamoDBLocal.html */
const dynamo: EmulatorKind = {
  name: "dynamodb-local-3.1.0",
  needs: [
    ["java", "-version"],
    ["mvn", "--version"],
  ],
  install(folder) {
    fromMaven(
      folder,
      "<groupId>software.amazon.dynamodb</groupId><artifactId>DynamoDBLocal</artifactId><version>3.1.0</version>",
      ["dependency:copy-dependencies", `-DoutputDirectory=${join(folder, "lib")}`],
    );
    must("javac", ["-d", join(folder, "loopback"), join(support, "emulator-dynamo.java")]);
  },
  command(folder, port) {
    const lib = join(folder, "lib");
    return {
      program: "java",
      args: [
        "-Xmx512m",
        "-XX:TieredStopAtLevel=1",
        `-Djava.library.path=${lib}`,
        "-cp",
        `${join(folder, "loopback")}:${lib}/*`,
        "Loopback",
        "-inMemory",
        "-sharedDb",
        "-disableTelemetry",
        "-port",
        String(port),
      ],
    };
  },
};

/** Has Maven do something with a dependency, all in the folder. */
export function fromMaven(folder: string, dependency: string, goal: readonly string[]): void {
  mkdirSync(folder, { recursive: true });
  const pom = join(folder, "pom.xml");
  writeFileSync(
    pom,
    `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>waggle</groupId><artifactId>emulator</artifactId><version>1</version><dependencies><dependency>${dependency}</dependency></dependencies></project>\n`,
  );
  const repository = join(folder, "repository");
  must("mvn", ["--quiet", "--batch-mode", `--file=${pom}`, `-Dmaven.repo.local=${repository}`, ...goal]);
  rmSync(repository, { recursive: true, force: true });
}

export function must(program: string, args: readonly string[]): void {
  const { status, error, stderr, stdout } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} failed: ${error?.message ?? ""}${stderr}${stdout}`);
}

export function missing({ name, needs }: Installable): string | undefined {
  const gone = needs.filter(([program, ask]) => spawnSync(program, [ask]).status !== 0).map(([program]) => program);
  return gone.length > 0 ? `${name} needs ${gone.join(" and ")}, which this machine lacks` : undefined;
}

/** What the emulators of AWS lack here; undefined when they can run. Asking installs nothing. */
export const emulatorsLack = {
  ministack: () => missing(ministack),
  dynamo: () => missing(dynamo),
};

/** Downloads what is missing of one, some 50 to 90 MB each, into `.cache/emulators`; resolves with its folder. */
export const installEmulator = (name: keyof typeof emulatorsLack): Promise<string> =>
  installed({ ministack, dynamo }[name]);

/** Installs once, also when two processes begin at the same time. @returns its folder */
export async function installed(kind: Installable): Promise<string> {
  const folder = join(cache, kind.name);
  const done = join(folder, ".installed");
  const lock = join(cache, `${kind.name}.lock`);
  mkdirSync(cache, { recursive: true });
  while (!existsSync(done)) {
    try {
      writeFileSync(lock, String(process.pid), { flag: "wx" });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      if (!holds(lock)) rmSync(lock, { force: true });
      await pause(200);
      continue;
    }
    try {
      if (existsSync(done)) break;
      const lack = missing(kind);
      if (lack !== undefined) throw new Error(lack);
      rmSync(folder, { recursive: true, force: true });
      kind.install(folder);
      writeFileSync(done, "");
    } finally {
      rmSync(lock, { force: true });
    }
  }
  return folder;
}

/** Whether whoever made the lock is still there. */
function holds(lock: string): boolean {
  try {
    process.kill(Number(readFileSync(lock, "utf8") || process.ppid), 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Installs it where it is missing, and starts it on a free port; it ends with this process, however that ends. */
export async function startEmulator(kind: EmulatorKind): Promise<Emulator> {
  const folder = await installed(kind);
  for (let tries = 1; ; tries++) {
    const port = await freePort();
    const scratch = join(cache, "run", `${kind.name}-${port}`);
    mkdirSync(scratch, { recursive: true });
    // Functions run below this folder as what they are, and not as modules because this repository says so.
    writeFileSync(join(scratch, "package.json"), "{}\n");
    const { program, args, env } = kind.command(folder, port, scratch);
    const log = join(scratch, "log");
    const out = openSync(log, "w");
    // A group of its own, and an input that ends with this process.
    const child = spawn(program, args, {
      cwd: scratch,
      env: { ...process.env, AWS_ENDPOINT_URL: undefined, ...env },
      stdio: ["pipe", out, out],
      detached: true,
    });
    closeSync(out);
    child.unref();
    (child.stdin as unknown as { unref(): void }).unref();
    child.on("error", () => {});
    const clean = () => rmSync(scratch, { recursive: true, force: true });
    process.once("exit", clean);
    if (await answers(child, port)) {
      return {
        endpoint: `http://localhost:${port}`,
        port,
        async end() {
          child.ref();
          child.stdin?.end();
          await ended(child);
          clean();
        },
      };
    }
    const said = readFileSync(log, "utf8").slice(-2000);
    child.kill("SIGKILL");
    clean();
    // Somebody else may have taken the port meanwhile.
    if (tries === 3) throw new Error(`${kind.name} does not start: ${said}`);
  }
}

async function answers(child: ChildProcess, port: number): Promise<boolean> {
  const until = Date.now() + 60_000;
  while (Date.now() < until && child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.once("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.once("error", () => resolve(false));
    });
    if (open) return true;
    await pause(50);
  }
  return false;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>((resolve) => child.once("exit", () => resolve()));
}

const once = (kind: EmulatorKind) => {
  let started: Promise<Emulator> | undefined;
  return () => (started ??= startEmulator(kind));
};

/** The emulators of this process, started when first asked for; they end with it. */
export const emulators = { ministack: once(ministack), dynamo: once(dynamo) };

/**
 * DynamoDB Local, started anew after so many uses: it keeps the streams of deleted tables, and each write takes longer by what
 * they hold (8 ms a transaction with 2,000 records, 37 with 16,000). One that was replaced stays until the next one is.
 */
export function renewedDynamo(uses: number): () => Promise<Emulator> {
  const started: Promise<Emulator>[] = [];
  let used = 0;
  return async () => {
    if (used++ % uses === 0) started.unshift(startEmulator(dynamo));
    for (const old of started.splice(2)) await (await old).end();
    return await (started[0] as Promise<Emulator>);
  };
}
