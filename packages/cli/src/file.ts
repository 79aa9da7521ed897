import { Transfer } from "@waggle/core/transfer";
import { exit, Failure } from "./failure.ts";

/** The segments of a file; what is wrong with it becomes a failure that names it. */
export async function* readFrom(
  file: string,
  chunks: AsyncIterable<Uint8Array | string>,
  reader: Transfer.Reader,
  advice: string,
): AsyncGenerator<Transfer.Segment, void, undefined> {
  try {
    yield* reader.segments(asBytes(chunks));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (Transfer.isFileError(error)) throw new Failure(exit.failed, `${file}: ${message}`, advice);
    if (code === "ENOENT") throw new Failure(exit.notFound, `there is no file ${file}`);
    if (code === "EISDIR") throw new Failure(exit.usage, `${file} is a folder`);
    throw error;
  }
}

async function* asBytes(chunks: AsyncIterable<Uint8Array | string>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
}
