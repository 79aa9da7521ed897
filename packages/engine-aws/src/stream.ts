import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import type { Change, Item } from "@waggle/core";
import { fromRow } from "./marshal.ts";

/** A record of a DynamoDB stream, from the SDK or from a Lambda event; the two differ in letters only. */
export interface StreamRecord {
  readonly eventName?: string | undefined;
  readonly dynamodb?:
    | {
        readonly Keys?: Readonly<Record<string, AttributeValue>> | undefined;
        readonly OldImage?: Readonly<Record<string, AttributeValue>> | undefined;
        readonly NewImage?: Readonly<Record<string, AttributeValue>> | undefined;
        readonly SequenceNumber?: string | undefined;
      }
    | undefined;
}

/** Sequence numbers have up to 40 digits, and rise for each row: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html */
const positionDigits = 40;

/**
 * The changes in a stream's records. For a batch that fails in part: what a handler must name is the record's
 * `dynamodb.SequenceNumber`, which is `position` without its leading zeros.
 * @example export const handler = ({ Records }) => outboxHandler(ports)(fromStream(Records))
 */
export function fromStream(records: readonly StreamRecord[]): Change[] {
  const changes: Change[] = [];
  for (const { dynamodb = {} } of records) {
    const { Keys, OldImage, NewImage, SequenceNumber = "" } = dynamodb;
    const old: Item | undefined = OldImage && fromRow(OldImage);
    const next: Item | undefined = NewImage && fromRow(NewImage);
    changes.push({
      position: SequenceNumber.padStart(positionDigits, "0"),
      key: { pk: Keys?.pk?.S ?? "", sk: Keys?.sk?.S ?? "" },
      ...(old === undefined ? undefined : { old }),
      ...(next === undefined ? undefined : { new: next }),
    });
  }
  return changes;
}

/** Whether a change is of rows of these kinds, as they were or as they are. */
export const isOf = (kinds: readonly string[], { old, new: next }: Change): boolean =>
  (next !== undefined && kinds.includes(next.kind)) || (old !== undefined && kinds.includes(old.kind));
