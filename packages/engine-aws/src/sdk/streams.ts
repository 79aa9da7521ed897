// Bundled whole by itself: what few calls need is loaded with the first of them, and weighs on no start.
export {
  DescribeStreamCommand,
  DynamoDBStreamsClient,
  GetRecordsCommand,
  GetShardIteratorCommand,
} from "@aws-sdk/client-dynamodb-streams";
