/** read, write and their kin on files whose data we make; dup of such files, which must stay at numbers that are seen. */
import { PENDING } from '../../base/answer-later.ts';
import { Errno } from '../../base/errno.ts';
import { hex, USER_END } from '../../base/position.ts';
import { NR } from '../../os/numbers.ts';
import { beginCall, type Call } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import { putFile, tableFull } from '../fds/limit.ts';
import type { OpenEntry } from '../fds/files.ts';
import { identifyEntry } from '../../os/files.ts';
import { fileLimits } from '../../os/process.ts';
import { callerAndFile, type Caller } from './caller.ts';

const IOVEC_SIZE = 16;
const UIO_MAXIOV = 1024;
const MAX_RW_COUNT = 0x7fff_f000;
const RWF_HIPRI = 1;
const SPLICE_FLAGS = 0xf;
const F_DUPFD = 0;
const F_DUPFD_CLOEXEC = 1030;

const SINGLE: readonly number[] = [NR.read, NR.write, NR.pread64, NR.pwrite64];
const READS: readonly number[] = [NR.read, NR.pread64, NR.readv, NR.preadv, NR.preadv2];
const UNPOSITIONED: readonly number[] = [NR.read, NR.write, NR.readv, NR.writev];
const FLAGGED: readonly number[] = [NR.preadv2, NR.pwritev2];

type Piece = { readonly address: bigint; readonly length: number };

/** What a transfer is about, one after the other (import_iovec). EINVAL, EFAULT. */
function pieces({ listener }: Context, call: Call): Piece[] {
  if (SINGLE.includes(listener.nr)) {
    const [address, length] = [listener.word(1), listener.word(2)];
    checkRange(address, length);
    return [{ address, length: shorten(length, MAX_RW_COUNT) }];
  }
  const count = listener.uint(2);
  if (count > UIO_MAXIOV) throw new Errno('EINVAL', `${count} pieces; at most ${UIO_MAXIOV}`);
  let left = MAX_RW_COUNT;
  const found = readVector(call, listener.word(1), count).map(({ address, wanted }) => {
    const length = shorten(wanted, left);
    // One piece alone is cut to what can be moved before it is looked at (import_ubuf).
    checkRange(address, count === 1 ? BigInt(length) : wanted);
    left -= length;
    return { address, length };
  });
  return left === MAX_RW_COUNT ? [] : found;
}

type Entry = { readonly address: bigint; readonly wanted: bigint };

/** Entry by entry: a negative length is EINVAL, unless one before it cannot be read (copy_iovec_from_user). */
function readVector({ memory }: Call, address: bigint, count: number): Entry[] {
  const bytes = new Uint8Array(count * IOVEC_SIZE);
  const view = new DataView(bytes.buffer);
  let unreadable: Errno | undefined;
  try {
    memory.copyIn(address, bytes);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    unreadable = error;
  }
  return Array.from({ length: count }, (_, i) => {
    const at = i * IOVEC_SIZE;
    if (unreadable !== undefined) {
      memory.copyIn(address + BigInt(at), bytes.subarray(at, at + IOVEC_SIZE));
    }
    const wanted = view.getBigUint64(at + 8, true);
    if (BigInt.asIntN(64, wanted) < 0n)
      throw new Errno('EINVAL', `piece ${i} has a negative length`);
    return { address: view.getBigUint64(at, true), wanted };
  });
}

function checkRange(address: bigint, length: bigint): void {
  if (address + length <= USER_END) return;
  throw new Errno(
    'EFAULT',
    `${hex(address)} (${length} bytes) does not lie below ${hex(USER_END)}`,
  );
}

const shorten = (length: bigint, most: number): number =>
  length > BigInt(most) ? most : Number(length);

/** Moves one piece from or to a place in the file. @returns bytes moved */
type Transfer = (piece: Piece, offset: number) => number;

/** EINVAL where the file cannot be read or written, before anything is said of the buffers (FMODE_CAN_READ, FMODE_CAN_WRITE). */
function transferOf({ file, link }: OpenEntry, call: Call, reads: boolean): Transfer {
  if (reads) {
    const read = file.read?.bind(file);
    if (read === undefined) throw new Errno('EINVAL', `${link} cannot be read`);
    return ({ address, length }, offset) => {
      const put = (at: number, bytes: Uint8Array): void => {
        call.memory.copyOut(address + BigInt(at), bytes);
      };
      return read(call, { length, put }, offset);
    };
  }
  const write = file.write?.bind(file);
  if (write === undefined) throw new Errno('EINVAL', `${link} cannot be written`);
  return ({ address, length }, offset) => {
    const take = (at: number, count: number): Uint8Array => {
      const bytes = new Uint8Array(count);
      call.memory.copyIn(address + BigInt(at), bytes);
      return bytes;
    };
    return write(call, { length, take }, offset);
  };
}

/** Where a transfer begins; ESPIPE for a file that has no positions, EINVAL. */
function positionOf({ listener }: Context, { file, link, position: kept }: OpenEntry): number {
  if (UNPOSITIONED.includes(listener.nr)) return file.advances === true ? kept : 0;
  const position = BigInt.asIntN(64, listener.word(3));
  if (position === -1n && FLAGGED.includes(listener.nr)) return 0;
  if (position < 0n) throw new Errno('EINVAL', `position ${position} is negative`);
  if (file.positioned !== true) throw new Errno('ESPIPE', `${link} has no positions`);
  return Number(position);
}

/** Piece by piece, as the kernel does it for files that take no list (do_loop_readv_writev). */
function transferAll(context: Context, entry: OpenEntry, call: Call): number {
  const { listener } = context;
  const position = positionOf(context, entry);
  const transfer = transferOf(entry, call, READS.includes(listener.nr));
  const list = pieces(context, call);
  if (list.length > 0 && FLAGGED.includes(listener.nr) && (listener.uint(5) & ~RWF_HIPRI) !== 0) {
    throw new Errno('EOPNOTSUPP', `${entry.link} takes no flags but RWF_HIPRI`);
  }
  let done = 0;
  for (const [i, piece] of list.entries()) {
    // Going on from one piece to the next skips empty ones (iov_iter_advance).
    if (i > 0 && piece.length === 0) continue;
    try {
      const moved = transfer(piece, position + done);
      // Only a call that has moved nothing yet can wait: one answer is all it gets.
      if (moved === PENDING) return done === 0 ? PENDING : done;
      done += moved;
      if (moved !== piece.length) break;
    } catch (error) {
      if (done === 0 || !(error instanceof Errno)) throw error;
      break;
    }
  }
  return done;
}

export function readWrite(context: Context): number {
  const { listener } = context;
  const fd = listener.int(0);
  const found = callerAndFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { entry, thread } = found;
  if (entry.file.read === undefined && entry.file.write === undefined) return CONTINUE;
  const call = beginCall(context, thread, () => [`${fd}<${entry.link}>`, String(listener.word(2))]);
  const moved = transferAll(context, entry, call);
  if (moved > 0 && UNPOSITIONED.includes(listener.nr)) entry.position += moved;
  return moved;
}

/** Bytes from file to file: our streams have no pages to give or take (splice_read, splice_write). */
export function move(context: Context): number {
  const { listener } = context;
  // Nothing is always moved, save by sendfile.
  const lengthAt = listener.nr === NR.splice ? 4 : 2;
  if (listener.nr !== NR.sendfile && listener.word(lengthAt) === 0n) return CONTINUE;
  const second = listener.nr === NR.splice ? 2 : 1;
  for (const argument of [0, second]) {
    const found = streamAt(context, argument);
    if (found === undefined) continue;
    const other = listener.int(argument === 0 ? second : 0);
    if (identifyEntry(found.thread.files, other) < 0) {
      throw new Errno('EBADF', `fd ${other} is not open`);
    }
    if (listener.nr === NR.sendfile && argument === 1 && listener.word(2) !== 0n) {
      throw new Errno('ESPIPE', `${found.entry.link} has no positions`);
    }
    throw new Errno('EINVAL', `${found.entry.link} moves no pages, and is not a pipe`);
  }
  return CONTINUE;
}

export function vmsplice(context: Context): number {
  const { listener } = context;
  // What is wrong with flags the host says, and that nothing is to be moved.
  if ((listener.uint(3) & ~SPLICE_FLAGS) !== 0 || listener.word(2) === 0n) return CONTINUE;
  const found = streamAt(context, 0);
  if (found === undefined) return CONTINUE;
  throw new Errno('EBADF', `${found.entry.link} is not a pipe`);
}

function streamAt(context: Context, argument: number): Caller | undefined {
  const fd = context.listener.int(argument);
  const found = callerAndFile(context, fd);
  if (found?.entry.pipe === undefined) return undefined;
  beginCall(context, found.thread, () => [`${fd}<${found.entry.link}>`]);
  return found;
}

export function duplicate(context: Context): number {
  const { listener } = context;
  const found = streamAt(context, 0);
  if (found === undefined) return CONTINUE;
  if (listener.nr === NR.dup) return copyOf(context, found, { cloexec: false, least: 0 });
  const command = listener.uint(1);
  if (command !== F_DUPFD && command !== F_DUPFD_CLOEXEC) {
    throw new Errno('EBADF', `${found.entry.link} is not a pipe`);
  }
  const least = listener.uint(2);
  const limit = fileLimits(found.thread.process.pid)?.soft ?? Infinity;
  if (least >= limit) {
    throw new Errno('EINVAL', `number ${least} is beyond RLIMIT_NOFILE, ${limit}`);
  }
  const cloexec = command === F_DUPFD_CLOEXEC;
  if (!hasFree(found.thread.files, least, limit)) {
    throw new Errno('EMFILE', `no number from ${least} to ${limit} is free`);
  }
  return copyOf(context, found, { cloexec, least });
}

function hasFree(numbers: number, least: number, limit: number): boolean {
  for (let number = least; number < limit; number++) {
    if (identifyEntry(numbers, number) < 0) return true;
  }
  return false;
}

type Copy = { readonly cloexec: boolean; readonly least: number };

function copyOf({ listener, files, current }: Context, found: Caller, how: Copy): number {
  const { cloexec, least } = how;
  current.opened = found.entry.link;
  const number = files.duplicate(
    found.entry,
    (fd, at) => putFile(listener, found.thread.process.pid, fd, { cloexec, at }),
    { numbers: found.thread.files, least },
  );
  if (number < 0) throw tableFull();
  return number;
}
