import { Option } from "commander";
import { type Declaring, examples, parsed, remote, shown } from "./declare.ts";

/** What a tenant is allowed, and moving it. */
export function declareAdminister({ io, parse, program, run }: Declaring): void {
  program.commandsGroup("Administer:");
  const limit = program.command("limit").description("Limits that override what tasks ask for");
  shown(limit.command("set"))
    .description("Set a limit")
    .argument("<key>", "the key that tasks name")
    .option("--concurrency <n>", "how many tasks at a time", parsed(parse.integer("concurrency", 1, 1_000_000)))
    .option("--rate <n/duration>", "how many may start in a time: 100/1m", parsed(parse.rate))
    .addHelpText("after", examples("waggle limit set openai --concurrency 10 --rate 100/1m"))
    .action(run(async (key, options) => (await import("../command/admin.ts")).setLimit(io, key, options)));
  shown(limit.command("unset"))
    .description("Remove a limit; what tasks ask for applies again")
    .argument("<key>", "`waggle get limits` lists them")
    .addHelpText("after", examples("waggle limit unset openai"))
    .action(run(async (key, options) => (await import("../command/admin.ts")).unsetLimit(io, key, options)));
  const retention = program.command("retention").description("How long finished tasks and events are kept");
  shown(retention.command("get"))
    .description("Show the retention")
    .action(run(async (options) => (await import("../command/admin.ts")).getRetention(io, options)));
  shown(retention.command("set"))
    .description("Set the retention; tasks that have already finished follow in the background")
    .option("--tasks <duration|never>", "how long a finished task is kept", parsed(parse.kept))
    .option("--events <duration|never>", "how long an event is kept", parsed(parse.kept))
    .addHelpText(
      "after",
      examples("waggle retention set --tasks 90d --events 30d", "waggle retention set --tasks never"),
    )
    .action(run(async (options) => (await import("../command/admin.ts")).setRetention(io, options)));
  const quota = program.command("quota").description("Limits on what a tenant may have");
  shown(quota.command("get"))
    .description("Show the quotas of a tenant and what is used of them")
    .argument("[tenant]", "the first tenant by default", "default")
    .action(run(async (tenant, options) => (await import("../command/admin.ts")).getQuota(io, tenant, options)));
  const most = (what: string) => parsed(parse.integer(what, 0, 1e15));
  shown(quota.command("set"))
    .description("Set all quotas of a tenant; what is left out is not limited. Needs an admin of the first tenant")
    .argument("<tenant>", "the tenant")
    .option("--tasks <n>", "stored tasks of any status", most("tasks"))
    .option("--bytes <n>", "bytes of their payloads, plus 1024 per task", most("bytes"))
    .option("--waiting <n>", "queued and scheduled tasks", most("waiting"))
    .option("--agents <n>", "agents that are not stopped", most("agents"))
    .option("--submits <n/duration>", "tasks submitted in a time: 100/1s", parsed(parse.rate))
    .addHelpText(
      "after",
      examples(
        "waggle quota set acme --tasks 1000000 --waiting 10000 --submits 100/1s",
        "waggle quota set acme   # removes all its quotas",
      ),
    )
    .action(run(async (tenant, options) => (await import("../command/admin.ts")).setQuota(io, tenant, options)));
  const key = program.command("key").description("API keys");
  shown(key.command("create"))
    .description("Create a key; it is shown only once")
    .addOption(
      new Option("--role <role>", "what it may do")
        .choices(["admin", "operator", "client", "reader"])
        .makeOptionMandatory(),
    )
    .option("--name <name>", "a name to recognise it by")
    .option("--tenant <tenant>", "for another tenant; only for an admin of the first")
    .addHelpText("after", examples("waggle key create --role client --name ci"))
    .action(run(async (options) => (await import("../command/admin.ts")).createKey(io, options)));
  shown(key.command("revoke"))
    .description("Revoke a key, at once")
    .argument("<key-id>", "`waggle get keys` lists them")
    .addHelpText("after", examples("waggle key revoke key_01jx…"))
    .action(run(async (id, options) => (await import("../command/admin.ts")).revokeKey(io, id, options)));

  remote(program.command("export"))
    .description("Write everything a tenant has (agents, keys, limits, tasks) to a file, to import into another server")
    .argument("[file]", "the file to write; - or nothing means standard output")
    .option("--resume", "continue a file that was cut short, after its last checkpoint")
    .option("--force", "overwrite an existing file")
    .option("--verify <file>", "only check a file: its hash, its counts and every field; needs no server")
    .option("--json", "print a summary as JSON")
    .option("-q, --quiet", "no progress")
    .addHelpText(
      "after",
      `
Needs an admin key. The file holds payloads but no secrets: of keys and tokens it has the hashes, so they keep working where
it is imported. Each row is as it stood when it was read: for an exact copy, export while nothing is running
(\`waggle drain\`, and no submits).
${examples(
  "waggle export fleet.jsonl",
  "waggle export fleet.jsonl --resume",
  "waggle export --verify fleet.jsonl",
  "waggle export | gzip > fleet.jsonl.gz",
)}`,
    )
    .action(run(async (file, options) => (await import("../command/export.ts")).exportTo(io, file, options)));
  remote(program.command("import"))
    .description("Import a file that `waggle export` wrote; what exists already stays as it is")
    .argument("<file>", "the exported file; - means standard input")
    .option("--resume", "continue after the last checkpoint that the previous import reached")
    .option("--json", "print a summary as JSON")
    .option("-q, --quiet", "no progress")
    .addHelpText(
      "after",
      `
Needs an admin key. Importing a file again changes nothing. Tasks that an agent held are given back, at no cost to their
attempts. Records are sent only up to a checkpoint whose hash and counts are right. Exits with 4 if something else exists
under the same name; all the rest is imported.
${examples("waggle import fleet.jsonl --url https://waggle.example.com", "gunzip -c fleet.jsonl.gz | waggle import -")}`,
    )
    .action(run(async (file, options) => (await import("../command/import.ts")).importFrom(io, file, options)));
}
