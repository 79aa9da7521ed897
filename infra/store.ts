import { table as entry } from "./manifest.ts";
import { isProduction, tags } from "./stage.ts";

const production = isProduction($app.stage);

export const table = new sst.aws.Dynamo("Table", {
  fields: { [entry.hashKey]: "string", [entry.rangeKey]: "string" },
  primaryIndex: { hashKey: entry.hashKey, rangeKey: entry.rangeKey },
  stream: "new-and-old-images",
  ttl: entry.ttl,
  deletionProtection: production,
  transform: {
    table(args) {
      args.pointInTimeRecovery = { enabled: true, recoveryPeriodInDays: entry.recoveryDays };
      args.tags = tags;
    },
  },
});

/** Payloads too large for a row. Not public, HTTPS only, encrypted by S3. In production what is deleted can be had back as long as rows can. */
export const bucket = new sst.aws.Bucket("Blobs", {
  enforceHttps: true,
  cors: false,
  versioning: production,
  transform: {
    bucket(args) {
      // Removing a stage must not take payloads with it that somebody still needs.
      args.forceDestroy = !production;
      args.tags = tags;
    },
  },
});

if (production) {
  new aws.s3.BucketLifecycleConfiguration(
    "BlobsLifecycle",
    {
      bucket: bucket.name,
      rules: [
        {
          id: "earlier-versions",
          status: "Enabled",
          filter: { prefix: "" },
          noncurrentVersionExpiration: { noncurrentDays: entry.recoveryDays },
          expiration: { expiredObjectDeleteMarker: true },
        },
      ],
    },
    { dependsOn: bucket },
  );
}
