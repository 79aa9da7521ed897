import { setTimeout as sleep } from "node:timers/promises";
import type { CloudWatchClient, MetricDataQuery, MetricDataResult } from "@aws-sdk/client-cloudwatch";
import { noUnits, type Units } from "../../bench/cost/units.ts";
import type { Metered } from "../../bench/prices.ts";
import { type FunctionName, functions, queues } from "../../infra/manifest.ts";

/** Where the metrics of a stage are found: what `sst.config.ts` puts out. Functions and queues are called as in `infra/stage.ts`. */
export interface Places {
  readonly stage: string;
  readonly table: string;
  readonly socketUrl: string;
}

const minuteMs = 60_000;

/** SQS counts messages and no requests: those that went together are counted as if each had gone alone. */
const queueMetrics = [
  "NumberOfMessagesSent",
  "NumberOfMessagesReceived",
  "NumberOfMessagesDeleted",
  "NumberOfEmptyReceives",
];

interface Asked {
  readonly unit: Metered;
  /** Units for each of what the metric counts. */
  readonly factor: number;
  readonly namespace: string;
  readonly metric: string;
  readonly dimensions: Readonly<Record<string, string>>;
}

function asked({ stage, table, socketUrl }: Places): Asked[] {
  const named = (name: string) => `waggle-${stage}-${name}`;
  const of = (namespace: string, dimensions: Readonly<Record<string, string>>) => {
    return (unit: Metered, metric: string, factor = 1): Asked => ({ unit, factor, namespace, metric, dimensions });
  };
  const ofTable = of("AWS/DynamoDB", { TableName: table });
  const ofSocket = of("AWS/ApiGateway", { ApiId: new URL(socketUrl).hostname.split(".")[0] as string });
  return [
    ofTable("writeUnits", "ConsumedWriteCapacityUnits"),
    ofTable("readUnits", "ConsumedReadCapacityUnits"),
    ofSocket("socketMessages", "MessageCount"),
    // Nobody asks for dead letters.
    ...Object.keys(queues).flatMap((name) =>
      queueMetrics.map((metric) => of("AWS/SQS", { QueueName: named(name) })("queueRequests", metric)),
    ),
    ...(Object.keys(functions) as FunctionName[]).flatMap((name) => {
      const ofFunction = of("AWS/Lambda", { FunctionName: named(name) });
      return [
        ofFunction("lambdaCalls", "Invocations"),
        ofFunction("lambdaGbSeconds", "Duration", functions[name].memoryMiB / 1024 / 1000),
      ];
    }),
  ];
}

/** What CloudWatch is asked for: sums by the minute, under ids that are the places in `asked`. */
export const queriesOf = (places: Places): MetricDataQuery[] =>
  asked(places).map(({ namespace, metric, dimensions }, at) => ({
    Id: `m${at}`,
    MetricStat: {
      Metric: {
        Namespace: namespace,
        MetricName: metric,
        Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
      },
      Period: minuteMs / 1000,
      Stat: "Sum",
    },
  }));

/**
 * What an answer of GetMetricData comes to, in the units AWS bills. Not among them: events on the bus, and connection minutes,
 * for which there are no metrics. A metric without a value counts as nothing, as CloudWatch leaves out what did not happen.
 */
export function unitsOf(places: Places, results: readonly Pick<MetricDataResult, "Id" | "Values">[]): Units {
  const units = noUnits();
  const sums = new Map<string | undefined, number>();
  // The values of one metric may come on several pages.
  for (const { Id, Values = [] } of results)
    sums.set(Id, (sums.get(Id) ?? 0) + Values.reduce((sum, value) => sum + value, 0));
  for (const [at, { unit, factor }] of asked(places).entries()) units[unit] += (sums.get(`m${at}`) ?? 0) * factor;
  return units;
}

/** Metrics come some minutes late, and not together: those of the table may follow after five. */
const patience = { betweenMs: minuteMs, tries: 12 } as const;

/**
 * Asks until an answer is like the one before, and there is something in it of the table and of the functions.
 * @param read one answer
 * @throws when that does not happen in `patience`
 */
export async function settled(
  read: () => Promise<Units>,
  pause: () => Promise<unknown> = () => sleep(patience.betweenMs),
): Promise<Units> {
  let before: string | undefined;
  for (let tried = 0; tried < patience.tries; tried++) {
    const units = await read();
    const now = JSON.stringify(units);
    if (now === before && units.writeUnits > 0 && units.lambdaCalls > 0) return units;
    before = now;
    await pause();
  }
  throw new Error("the metrics did not come to rest");
}

/** The whole minutes from `from` to `to`, as CloudWatch has them by now. */
export async function measured(client: CloudWatchClient, places: Places, from: Date, to: Date): Promise<Units> {
  const { paginateGetMetricData } = await import("@aws-sdk/client-cloudwatch");
  const input = { MetricDataQueries: queriesOf(places), StartTime: from, EndTime: to };
  const results: MetricDataResult[] = [];
  for await (const page of paginateGetMetricData({ client }, input)) results.push(...(page.MetricDataResults ?? []));
  return unitsOf(places, results);
}

/** Metrics are kept by the minute: what is to be told apart begins with one. */
export async function nextMinute(): Promise<Date> {
  await sleep(minuteMs - (Date.now() % minuteMs));
  return new Date(Math.floor(Date.now() / minuteMs) * minuteMs);
}
