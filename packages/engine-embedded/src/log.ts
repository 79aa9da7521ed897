import { randomBytes } from "node:crypto";
import * as nodeFs from "node:fs";
import { dirname, join } from "node:path";
import { crc32 } from "node:zlib";
import { storeErrors } from "@waggle/core";

/** The few file calls of the log, so that a test can make a disk fail. */
export interface LogFiles {
  write(fd: number, bytes: Buffer, length: number, at: number): Promise<void>;
  /** Makes a file of that many zero bytes, on disk. */
  fill(path: string, bytes: number): Promise<void>;
}

export interface LogOptions {
  readonly folder: string;
  readonly segmentBytes: number;
  readonly files: LogFiles;
}

/**
 * The write-ahead log: segments of a fixed size, written over and over. One frame is one group commit.
 *
 * Segment: header (64 bytes), frames, rest anything. A frame: payload bytes u32, crc u32, first and last LSN f64, payload.
 * Frames begin at multiples of 8 bytes. The crc is seeded with the segment's nonce, so frames of an earlier use of the file never pass for new ones.
 * One frame is in flight at a time; so only the last one can be torn, and it was never acknowledged.
 */
const headerBytes = 64;
const frameBytes = 24;
/** Frames are put together behind room for a segment's header. */
const payloadAt = headerBytes + frameBytes;
const magic = "WAGLOG1\n";

interface Segment {
  readonly sequence: number;
  readonly path: string;
  readonly bytes: number;
  firstLsn: number;
  lastLsn: number;
}

export type Log = ReturnType<typeof openLog>;

export function openLog({ folder, segmentBytes, files }: LogOptions) {
  makeFolder(folder);
  /** Segments with frames, oldest first; the last one is written to. */
  const segments: Segment[] = [];
  let seed = 0;
  let fd = -1;
  let position = 0;
  let full = false;
  let lastLsn = 0;
  let nextSequence = 1;
  /** An empty file of the standard size, ready to become the next segment. */
  let spare: Promise<string> | undefined;
  /** There was no room for one; the next segment tries again, and reports. Tries in between would take what room others need. */
  let noRoom = false;
  /** A failed write may have reached the disk whole; before anything follows it must not look like a frame any more. */
  let unsure = false;
  let output = Buffer.allocUnsafeSlow(256 * 1024);

  const pathOf = (sequence: number) => join(folder, `${String(sequence).padStart(12, "0")}.log`);
  // Each spare has a name of its own: one may be on its way into use while the next is being made.
  let spares = 0;
  const sparePath = () => join(folder, `spare-${process.pid}-${++spares}`);

  /** Reads every frame after `afterLsn` in order. Throws on damage that lost acknowledged writes. */
  function replay(afterLsn: number, upTo: number, visit: (firstLsn: number, payload: Buffer) => void): Segment[] {
    const found: Segment[] = [];
    const unused: string[] = [];
    let expected: number | undefined;
    let stopped = "";
    for (const name of nodeFs.readdirSync(folder).sort()) {
      if (!/^\d{12}\.log$/.test(name)) continue;
      const path = join(folder, name);
      const sequence = Number(name.slice(0, 12));
      nextSequence = Math.max(nextSequence, sequence + 1);
      const bytes = nodeFs.readFileSync(path);
      const header = readHeader(bytes, sequence);
      if (header === undefined) {
        // Its first write never finished; if acknowledged ones were in it, the next segment shows the gap.
        unused.push(path);
        stopped ||= `${path} has no valid header`;
        continue;
      }
      // Freed segments may be back after a crash, some and not others: what is missing between them is in the checkpoint.
      const freed = expected !== undefined && expected < header.firstLsn && header.firstLsn <= afterLsn + 1;
      if (expected !== undefined && header.firstLsn !== expected && !freed) {
        throw damaged(stopped || `${path} begins at step ${header.firstLsn}, not ${expected}`);
      }
      if (expected === undefined && header.firstLsn > afterLsn + 1) {
        throw damaged(`${path} begins at step ${header.firstLsn}, but steps from ${afterLsn + 1} on are missing`);
      }
      expected = header.firstLsn;
      let at = headerBytes;
      for (;;) {
        const frame = readFrame(bytes, at, header.seed, expected);
        if (frame === undefined || frame.last > upTo) break;
        if (frame.last > afterLsn) visit(frame.first, frame.payload);
        expected = frame.last + 1;
        at = frame.end;
      }
      const lost = laterFrame(bytes, at, header.seed, expected);
      if (lost !== undefined) {
        throw damaged(`${path} is damaged at byte ${at}, with valid writes after it at byte ${lost}`);
      }
      stopped = `${path} is damaged at byte ${at}`;
      found.push({ sequence, path, bytes: bytes.length, firstLsn: header.firstLsn, lastLsn: expected - 1 });
    }
    if (upTo === Number.POSITIVE_INFINITY) {
      segments.push(...found);
      lastLsn = Math.max(afterLsn, expected === undefined ? 0 : expected - 1);
      for (const path of unused) nodeFs.rmSync(path, { force: true });
      for (const name of nodeFs.readdirSync(folder)) {
        if (!name.startsWith("spare")) continue;
        const path = join(folder, name);
        if (spare === undefined && nodeFs.statSync(path).size === segmentBytes) spare = Promise.resolve(path);
        else nodeFs.rmSync(path, { force: true });
      }
      if (spare === undefined) prepareSpare();
    }
    return found;
  }

  /** Begins a new segment for the next frame. */
  async function rotate(leastBytes: number): Promise<void> {
    const sequence = nextSequence;
    const path = pathOf(sequence);
    let size = segmentBytes;
    noRoom = false;
    if (leastBytes > segmentBytes) {
      size = leastBytes;
      await files.fill(path, size);
    } else {
      const ready = spare;
      spare = undefined;
      if (ready === undefined) await files.fill(path, size);
      else nodeFs.renameSync(await ready, path);
    }
    syncFolder(folder);
    const next = nodeFs.openSync(path, nodeFs.constants.O_RDWR | nodeFs.constants.O_DSYNC);
    if (fd !== -1) nodeFs.closeSync(fd);
    fd = next;
    nextSequence = sequence + 1;
    const nonce = randomBytes(16);
    seed = crc32(nonce);
    const header = makeHeader(sequence, lastLsn + 1, nonce);
    header.copy(output, 0);
    position = 0;
    full = false;
    segments.push({ sequence, path, bytes: size, firstLsn: lastLsn + 1, lastLsn });
  }

  function prepareSpare(): void {
    const path = sparePath();
    const filled = files.fill(path, segmentBytes).then(() => path);
    spare = filled;
    filled.catch(() => {
      if (spare !== filled) return;
      spare = undefined;
      noRoom = true;
    });
  }

  /** Empties the segment begun last, when its first write failed, so that the next try begins it anew. */
  function abandon(): void {
    nodeFs.closeSync(fd);
    fd = -1;
    const segment = segments.pop();
    if (segment === undefined) return;
    // The next try takes the same name, so that nothing of this one can come back after a crash.
    nextSequence = segment.sequence;
    nodeFs.rmSync(segment.path, { force: true });
  }

  return {
    replay,
    lastLsn: () => lastLsn,
    segments: (): number => segments.length,
    /** Of the segments in use and the one kept ready. */
    bytes: () => segments.reduce((sum, { bytes }) => sum + bytes, spare === undefined ? 0 : segmentBytes),

    /**
     * Puts the payload of the next frame where it will be written from. @returns its bytes
     */
    stage(text: string): number {
      const most = headerBytes + frameBytes + text.length * 3 + 8;
      if (output.length < most) output = Buffer.allocUnsafeSlow(most * 2);
      return output.write(text, payloadAt, "utf8");
    },

    /** Resolves once the steps up to `last`, staged before, are on disk. One call at a time. */
    async append(payloadBytes: number, last: number): Promise<void> {
      if (unsure) {
        await files.write(fd, Buffer.alloc(frameBytes), frameBytes, position);
        unsure = false;
      }
      const need = (frameBytes + payloadBytes + 7) & ~7;
      const current = segments[segments.length - 1];
      if (fd === -1 || current === undefined || full || position + need > current.bytes) {
        await rotate(headerBytes + need);
      }
      output.writeUInt32LE(payloadBytes, headerBytes);
      output.writeDoubleLE(lastLsn + 1, headerBytes + 8);
      output.writeDoubleLE(last, headerBytes + 16);
      output.writeUInt32LE(crc32(output.subarray(headerBytes + 8, payloadAt + payloadBytes), seed), headerBytes + 4);
      // The header of a segment goes to disk with its first frame, in one write.
      const start = position === 0 ? 0 : headerBytes;
      const length = headerBytes + need - start;
      try {
        await files.write(fd, output.subarray(start), length, position);
      } catch (error) {
        if (position === 0) abandon();
        else unsure = true;
        throw error;
      }
      position += length;
      lastLsn = last;
      (segments[segments.length - 1] as Segment).lastLsn = last;
      if (spare === undefined && !noRoom && position > segmentBytes / 2) prepareSpare();
    },

    /** Everything up to `lsn` is in a checkpoint: its segments are free. */
    async free(lsn: number): Promise<void> {
      while (segments.length > 1 && (segments[0] as Segment).lastLsn <= lsn) {
        const segment = segments.shift() as Segment;
        if (spare === undefined && segment.bytes === segmentBytes) {
          const path = sparePath();
          nodeFs.renameSync(segment.path, path);
          spare = Promise.resolve(path);
        } else nodeFs.rmSync(segment.path, { force: true });
      }
    },
    /** Lets the next frame begin a segment, so that the ones before it can be freed whole. */
    turn(): void {
      full = position > segmentBytes / 2;
    },
    async close(): Promise<void> {
      await spare?.catch(() => {});
      if (fd !== -1) nodeFs.closeSync(fd);
      fd = -1;
    },
  };
}

function makeHeader(sequence: number, firstLsn: number, nonce: Buffer): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.write(magic, 0, "latin1");
  header.writeDoubleLE(sequence, 8);
  header.writeDoubleLE(firstLsn, 16);
  nonce.copy(header, 24);
  header.writeUInt32LE(crc32(header.subarray(0, 40)), 40);
  return header;
}

function readHeader(bytes: Buffer, sequence: number): { firstLsn: number; seed: number } | undefined {
  if (bytes.length < headerBytes || bytes.toString("latin1", 0, 8) !== magic) return undefined;
  if (bytes.readUInt32LE(40) !== crc32(bytes.subarray(0, 40)) || bytes.readDoubleLE(8) !== sequence) return undefined;
  return { firstLsn: bytes.readDoubleLE(16), seed: crc32(bytes.subarray(24, 40)) };
}

function readFrame(bytes: Buffer, at: number, seed: number, expected: number) {
  if (at + frameBytes > bytes.length) return undefined;
  const end = at + frameBytes + bytes.readUInt32LE(at);
  if (end > bytes.length || bytes.readDoubleLE(at + 8) !== expected) return undefined;
  if (bytes.readUInt32LE(at + 4) !== crc32(bytes.subarray(at + 8, end), seed)) return undefined;
  const payload = bytes.subarray(at + frameBytes, end);
  return { first: expected, last: bytes.readDoubleLE(at + 16), payload, end: (end + 7) & ~7 };
}

/** Where, after a bad frame, a valid one of the same segment follows: then the bad one was acknowledged. */
function laterFrame(bytes: Buffer, from: number, seed: number, expected: number): number | undefined {
  for (let at = from + 8; at + frameBytes <= bytes.length; at += 8) {
    const first = bytes.readDoubleLE(at + 8);
    if (first > expected && first < expected + 1e7 && Number.isInteger(first) && readFrame(bytes, at, seed, first)) {
      return at;
    }
  }
  return undefined;
}

const damaged = (what: string) => storeErrors.unavailable(`the write-ahead log is damaged: ${what}. Restore a backup.`);

/** Makes a folder, with those above it that are missing, so that it is there after a power cut as well. */
export function makeFolder(path: string): void {
  const first = nodeFs.mkdirSync(path, { recursive: true });
  if (first === undefined) return;
  for (let made = path; made.length >= first.length; made = dirname(made)) syncFolder(dirname(made));
}

export function syncFolder(path: string): void {
  const fd = nodeFs.openSync(path, "r");
  try {
    nodeFs.fsyncSync(fd);
  } finally {
    nodeFs.closeSync(fd);
  }
}

/**
 * A small frame for a quick disk is written by this thread: handing 2 KB to another thread and being woken by it takes
 * longer than the write. A large frame, or a disk that takes its time, must not hold up the requests that come meanwhile.
 * Quick is a disk whose writes are mostly so: a single long one, as every disk has them, says nothing of the next.
 */
const ownThread = { bytes: 16 * 1024, milliseconds: 0.5, slowShare: 0.5, tryAgainAfter: 64 } as const;
let slowShare = 0;
let others = 0;

function writeHere(fd: number, bytes: Buffer, length: number, at: number): void {
  const started = performance.now();
  for (let done = 0; done < length; ) done += nodeFs.writeSync(fd, bytes, done, length - done, at + done);
  const slow = performance.now() - started > ownThread.milliseconds ? 1 : 0;
  slowShare += (slow - slowShare) / 16;
}

export const diskFiles: LogFiles = {
  async write(fd, bytes, length, at) {
    if (length <= ownThread.bytes && (slowShare < ownThread.slowShare || ++others % ownThread.tryAgainAfter === 0)) {
      writeHere(fd, bytes, length, at);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const go = (from: number) =>
        nodeFs.write(fd, bytes, from, length - from, at + from, (error, written) => {
          if (error) reject(error);
          else if (from + written < length) go(from + written);
          else resolve();
        });
      go(0);
    });
  },
  async fill(path, bytes) {
    const file = await nodeFs.promises.open(path, "w");
    try {
      const zeros = Buffer.alloc(Math.min(bytes, 1024 * 1024));
      for (let at = 0; at < bytes; ) {
        const { bytesWritten } = await file.write(zeros, 0, Math.min(zeros.length, bytes - at), at);
        at += bytesWritten;
      }
      await file.sync();
    } catch (error) {
      nodeFs.rmSync(path, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  },
};
