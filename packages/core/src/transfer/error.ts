import { defineError } from "../error.ts";

export const newerFormat = defineError("transfer.newer_format", {
  status: 409,
  title: "Records of a newer format",
  retry: "never",
});
export const fileInvalid = defineError("transfer.file_invalid", {
  status: 400,
  title: "Not a whole export",
  retry: "never",
});
/** Of one record: what is there under its name is something else. */
export const differs = defineError("transfer.differs", {
  status: 409,
  title: "Something else is there",
  retry: "never",
});
/** Of one record: its payload has not come. */
export const piecesMissing = defineError("transfer.pieces_missing", {
  status: 409,
  title: "Pieces of a payload are missing",
  retry: "never",
});
