/** read, write and their kin on files whose data we make; dup of such files, which must stay at numbers that are seen. */
import { Errno } from '../../base/errno.ts';
import { NR } from '../../os/numbers.ts';
import { beginCall, type Call } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import type { OpenEntry } from '../files.ts';
import { callerAndFile } from './caller.ts';

const IOVEC_SIZE = 16;
const UIO_MAXIOV = 1024;
// MAX_RW_COUNT would be 2 GiB; no file of ours takes or gives that much, so the kernel may answer short.
const MOST = 1 << 20;
const F_DUPFD_CLOEXEC = 1030;

type Piece = { readonly address: bigint; readonly length: number };

function pieces(context: Context, call: Call): Piece[] {
  const { listener } = context;
  switch (listener.nr) {
    case NR.read:
    case NR.write:
    case NR.pread64:
    case NR.pwrite64:
      return [{ address: listener.word(1), length: shorten(listener.word(2), MOST) }];
  }
  const count = listener.uint(2);
  if (count > UIO_MAXIOV) throw new Errno('EINVAL', `${count} pieces; at most ${UIO_MAXIOV}`);
  const bytes = new Uint8Array(count * IOVEC_SIZE);
  call.memory.copyIn(listener.word(1), bytes);
  const view = new DataView(bytes.buffer);
  let left = MOST;
  return Array.from({ length: count }, (_, i) => {
    const length = shorten(view.getBigUint64(i * IOVEC_SIZE + 8, true), left);
    left -= length;
    return { address: view.getBigUint64(i * IOVEC_SIZE, true), length };
  });
}

const shorten = (length: bigint, most: number): number =>
  length > BigInt(most) ? most : Number(length);

function read(entry: OpenEntry, call: Call, into: readonly Piece[], offset: number): number {
  const { file, link } = entry;
  if (file.read === undefined) throw new Errno('EINVAL', `${link} cannot be read`);
  const count = into.reduce((sum, { length }) => sum + length, 0);
  const bytes = file.read(call, count, offset);
  let done = 0;
  for (const { address, length } of into) {
    const piece = bytes.subarray(done, done + length);
    if (piece.length > 0) call.memory.copyOut(address, piece);
    done += piece.length;
  }
  return done;
}

function write(entry: OpenEntry, call: Call, from: readonly Piece[], offset: number): number {
  const { file, link } = entry;
  if (file.write === undefined) throw new Errno('EINVAL', `${link} cannot be written`);
  const bytes = new Uint8Array(from.reduce((sum, { length }) => sum + length, 0));
  let done = 0;
  for (const { address, length } of from) {
    call.memory.copyIn(address, bytes.subarray(done, done + length));
    done += length;
  }
  return file.write(call, bytes, offset);
}

const READS: readonly number[] = [NR.read, NR.pread64, NR.readv, NR.preadv, NR.preadv2];
const UNPOSITIONED: readonly number[] = [NR.read, NR.write, NR.readv, NR.writev];

export function readWrite(context: Context): number {
  const { listener } = context;
  const fd = listener.int(0);
  const found = callerAndFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { entry, thread } = found;
  if (entry.file.read === undefined && entry.file.write === undefined) return CONTINUE;
  const call = beginCall(context, thread, () => [`${fd}<${entry.link}>`, String(listener.word(2))]);
  const offset = UNPOSITIONED.includes(listener.nr)
    ? 0
    : Number(BigInt.asIntN(64, listener.word(3)));
  const transfer = READS.includes(listener.nr) ? read : write;
  return transfer(entry, call, pieces(context, call), offset);
}

export function duplicate(context: Context): number {
  const { listener, files } = context;
  const found = callerAndFile(context, listener.int(0));
  if (found?.entry.pipe === undefined) return CONTINUE;
  const cloexec = listener.nr === NR.fcntl && listener.uint(1) === F_DUPFD_CLOEXEC;
  beginCall(context, found.thread, () => [`${listener.int(0)}<${found.entry.link}>`]);
  context.current.opened = found.entry.link;
  const number = files.duplicate(
    found.entry,
    (fd, at, answers) => listener.addFile(fd, { cloexec, at, answers }),
    found.thread.files,
  );
  if (number < 0) throw new Errno('EMFILE', "the client's table takes no further file");
  return number;
}
