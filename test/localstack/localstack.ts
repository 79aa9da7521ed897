import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import {
  type EmulatorKind,
  emulatorsLack,
  fromMaven,
  type Installable,
  installEmulator,
  installed,
  missing,
  must,
  startEmulator,
} from "../support/emulator.ts";
import { freePort } from "../support/process.ts";
import { root } from "../support/root.ts";

/** A LocalStack that answers. */
export interface LocalStack {
  readonly endpoint: string;
  /** Where it is from, for people. */
  readonly what: string;
  /** Its Lambda functions are processes here, so that they reach what the tests reach. */
  readonly functions: boolean;
  end(): Promise<void>;
}

export interface LocalStackOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: (line: string) => void;
}

const here = join(root, "test/localstack");
const requirements = join(here, "requirements.txt");
const uv = "uv==0.13.9";
/** All that the engine uses, and what functions need. */
const services = "dynamodb,dynamodbstreams,sqs,events,s3,lambda,iam,sts,logs";

/**
 * The interpreter that the packages are locked for, where the machine has none: Bytedeco's build, of which Maven Central has
 * one that needs nothing but glibc. https://github.com/bytedeco/javacpp-presets/tree/master/cpython
 */
const cpython: Installable = {
  name: "cpython-3.13.0",
  needs: [["mvn", "--version"]],
  install(folder) {
    const classifier = "linux-x86_64";
    fromMaven(
      folder,
      `<groupId>org.bytedeco</groupId><artifactId>cpython</artifactId><version>3.13.0-1.5.11</version><classifier>${classifier}</classifier>` +
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>",
      ["dependency:unpack-dependencies", `-DoutputDirectory=${folder}`],
    );
    renameSync(join(folder, "org/bytedeco/cpython", classifier), join(folder, "python"));
    // An archive of Java keeps no rights.
    chmodSync(join(folder, "python/bin/python3.13"), 0o755);
  },
};

/** Why it cannot be installed here; undefined when it can. */
const cpythonLacks = (): string | undefined =>
  process.platform === "linux" && process.arch === "x64" ? missing(cpython) : "it is built for Linux on x86-64 alone";

/** One that is here already. */
function python(): string | undefined {
  const pyenv = join(homedir(), ".pyenv/versions");
  const found = existsSync(pyenv) ? readdirSync(pyenv).filter((name) => name.startsWith("3.13.")) : [];
  const candidates = ["python3.13", "python3", ...found.map((name) => join(pyenv, name, "bin/python3"))];
  const right = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))";
  return candidates.find((program) => spawnSync(program, ["-c", right]).status === 0);
}

/** Why LocalStack's open core cannot run here; undefined when it can. */
export function localStackLacks(): string | undefined {
  const lack = python() === undefined ? cpythonLacks() : undefined;
  return lack === undefined
    ? emulatorsLack.dynamo()
    : `LocalStack's open core needs Python 3.13 with venv, which this machine lacks, and cannot have: ${lack}`;
}

/** Its open core without Docker: https://pypi.org/project/localstack-core/ */
function openCore(dynamo: string, interpreter: string): EmulatorKind {
  const key = createHash("sha256").update(readFileSync(requirements)).update(uv).digest("hex").slice(0, 12);
  return {
    name: `localstack-${key}`,
    needs: [],
    install(folder) {
      must(interpreter, ["-m", "venv", folder]);
      const bin = join(folder, "bin/python");
      must(bin, ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", uv]);
      must(bin, ["-m", "uv", "pip", "install", "--quiet", "--python", bin, "--require-hashes", "-r", requirements]);
    },
    command(folder, port, scratch) {
      const address = `127.0.0.1:${port}`;
      mkdirSync(join(scratch, "tmp"));
      return {
        program: join(folder, "bin/python"),
        args: [join(here, "executor/boot.py"), dynamo],
        env: {
          FILESYSTEM_ROOT: scratch,
          TMPDIR: join(scratch, "tmp"),
          GATEWAY_LISTEN: address,
          LOCALSTACK_HOST: `localhost:${port}`,
          SERVICES: services,
          // Otherwise it takes port 53, and the resolver of this machine.
          DNS_ADDRESS: "0",
          SKIP_SSL_CERT_DOWNLOAD: "1",
          DISABLE_EVENTS: "1",
          // A queue's URL otherwise names a host that resolves by LocalStack's DNS.
          SQS_ENDPOINT_STRATEGY: "path",
          // The others read streams by a program that would have to be downloaded.
          PROVIDER_OVERRIDE_DYNAMODB: "v2",
          PROVIDER_OVERRIDE_DYNAMODBSTREAMS: "v2",
          DYNAMODB_IN_MEMORY: "1",
          LAMBDA_RUNTIME_EXECUTOR: "process",
          NODE: process.execPath,
          PYTHONDONTWRITEBYTECODE: "1",
          AWS_ACCESS_KEY_ID: "test",
          AWS_SECRET_ACCESS_KEY: "test",
          AWS_SESSION_TOKEN: undefined,
          AWS_DEFAULT_REGION: "us-east-1",
        },
      };
    },
  };
}

/** Downloads what is missing of the open core into `.cache/emulators`, about 340 MB. */
export async function installLocalStack(log: (line: string) => void): Promise<EmulatorKind> {
  const interpreter = python() ?? join(await installed(cpython), "python/bin/python3.13");
  const kind = openCore(await installEmulator("dynamo"), interpreter);
  if (!existsSync(join(root, ".cache/emulators", kind.name, ".installed")))
    log("installing LocalStack's open core into .cache, about 340 MB");
  await installed(kind);
  return kind;
}

/** Its image, where a Docker engine answers and the image may be used: today's asks for a token of an account. */
async function docker({ env, log }: LocalStackOptions): Promise<LocalStack | undefined> {
  if (spawnSync("docker", ["info"], { timeout: 10_000 }).status !== 0) return undefined;
  const image = env.LOCALSTACK_IMAGE ?? "localstack/localstack:latest";
  if (!env.LOCALSTACK_IMAGE && !env.LOCALSTACK_AUTH_TOKEN) {
    log(`Docker is here, but ${image} asks for LOCALSTACK_AUTH_TOKEN; name another by LOCALSTACK_IMAGE`);
    return undefined;
  }
  const port = await freePort();
  const settings = [`SERVICES=${services}`, `LOCALSTACK_HOST=localhost:${port}`, "SQS_ENDPOINT_STRATEGY=path"];
  const args = ["run", "--rm", "--detach", "--publish", `127.0.0.1:${port}:4566`];
  for (const each of settings) args.push("--env", each);
  if (env.LOCALSTACK_AUTH_TOKEN) args.push("--env", "LOCALSTACK_AUTH_TOKEN");
  const { status, stdout, stderr } = spawnSync("docker", [...args, image], { encoding: "utf8" });
  if (status !== 0) throw new Error(`docker run ${image} failed: ${stderr}`);
  const id = stdout.trim();
  const remove = () => void spawnSync("docker", ["rm", "--force", id]);
  process.once("exit", remove);
  const endpoint = `http://localhost:${port}`;
  await healthy(endpoint, 120_000);
  return { endpoint, what: `${image} in Docker`, functions: false, end: async () => remove() };
}

async function healthy(endpoint: string, patienceMs: number): Promise<void> {
  for (const until = Date.now() + patienceMs; ; await pause(200)) {
    const answer = await fetch(`${endpoint}/_localstack/health`).catch(() => undefined);
    if (answer?.ok) return;
    if (Date.now() > until) throw new Error(`LocalStack does not answer at ${endpoint}`);
  }
}

const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/**
 * A LocalStack: the one `AWS_ENDPOINT_URL` names; else in Docker; else its open core, installed on first use. What is started
 * here ends with this process.
 * @returns why there is none, where there can be none
 */
export async function openLocalStack(options: LocalStackOptions): Promise<LocalStack | { readonly lack: string }> {
  const { env, log } = options;
  if (env.AWS_ENDPOINT_URL) {
    return { endpoint: env.AWS_ENDPOINT_URL, what: "AWS_ENDPOINT_URL", functions: false, async end() {} };
  }
  const contained = await docker(options);
  if (contained !== undefined) return contained;
  const lack = localStackLacks();
  if (lack !== undefined) return { lack };
  const kind = await installLocalStack(log);
  const began = performance.now();
  const { endpoint, end } = await startEmulator(kind);
  await healthy(endpoint, 60_000);
  log(`LocalStack's open core is up after ${seconds(began)}`);
  return { endpoint, what: "LocalStack's open core 2026.3.0, without Docker", functions: true, end };
}
