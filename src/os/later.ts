/**
 * System calls that may wait for somebody else, perhaps for ever: made by another thread, while this one goes on. There are
 * four such threads (libuv's); a fifth call waits for one of them.
 *
 * Which errno it was is not told: it belongs to the other thread.
 */
import { allocate, type Block } from './arena.ts';
import { sysLater } from './libc.ts';
import { AT_FDCWD, NR } from './numbers.ts';

/** The largest piece of memory, in bytes. */
export const LATER_PIECE = 1 << 16;

const IOVECS = 32;
const spare: Block[] = [];

// Buffers live until the call ends, and arenas for good: they are used again.
async function withBlock<T>(use: (block: Block) => Promise<T>): Promise<T> {
  const block = spare.pop() ?? allocate(IOVECS + LATER_PIECE);
  try {
    return await use(block);
  } finally {
    spare.push(block);
  }
}

/** Has memory of a thread brought in, as if it were read. @returns false if not all of it can be read */
export function touchMemory(tid: number, address: bigint, length: number): Promise<boolean> {
  const piece = Math.min(length, LATER_PIECE);
  return withBlock(async (block) => {
    const { view, address: vector } = block;
    view.setBigUint64(0, BigInt(vector + IOVECS), true);
    view.setBigUint64(8, BigInt(piece), true);
    view.setBigUint64(16, address, true);
    view.setBigUint64(24, BigInt(piece), true);
    return (await sysLater(NR.process_vm_readv, tid, vector, 1, vector + 16, 1, 0)) === piece;
  });
}

/** Writes at byte `offset` of a file. @returns false if not all of it could be written */
export async function writeLater(fd: number, bytes: Uint8Array, offset: number): Promise<boolean> {
  for (let done = 0; done < bytes.length; done += LATER_PIECE) {
    const piece = bytes.subarray(done, done + LATER_PIECE);
    const written = await withBlock((block) => {
      block.bytes.set(piece);
      return sysLater(NR.pwrite64, fd, block.address, piece.length, offset + done, 0, 0);
    });
    if (written !== piece.length) return false;
  }
  return true;
}

const encoder = new TextEncoder();
const PATH_MAX = 4096;

/** What a symbolic link says; undefined for what is none. */
export function readLinkLater(path: string): Promise<string | undefined> {
  return withBlock(async (block) => {
    const { written } = encoder.encodeInto(path, block.bytes.subarray(0, PATH_MAX));
    block.bytes[written] = 0;
    const into = block.address + 2 * PATH_MAX;
    const got = await sysLater(NR.readlinkat, AT_FDCWD, block.address, into, PATH_MAX, 0, 0);
    if (got < 0) return undefined;
    return new TextDecoder().decode(block.bytes.slice(2 * PATH_MAX, 2 * PATH_MAX + got));
  });
}
