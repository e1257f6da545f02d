/**
 * Read-ahead: what lies around the bytes that a call asked for. A struct, and the data that it points to, are mostly
 * neighbours on a stack: who reads a block of both saves a system call of the two or three that a call needs.
 *
 * Invariant: the block shows the memory of `owner` as it is. It holds because it is kept for one call alone, and only until
 * something of ours writes to memory of any client. What another thread of the client writes meanwhile may be seen or not,
 * as in the kernel. A block lies in one page, unless what was asked for does not: it can be read exactly where that can.
 */
import { blockBytes, readBlock, READ_BLOCK } from '../../os/process.ts';

let owner: object | undefined;
let first = 0;
let end = 0;

/** Something may have changed: a call has begun, or memory of a client is written. */
export function forgetReadAhead(): void {
  owner = undefined;
}

/**
 * Fills `into`, at most READ_BLOCK bytes, from memory of `space` in which thread `tid` runs.
 * @param address below 2^53
 * @returns false if it cannot be read
 */
export function readAhead(
  space: object,
  tid: number,
  { address, into }: { readonly address: number; readonly into: Uint8Array },
): boolean {
  const { length } = into;
  if (owner !== space || address < first || address + length > end) {
    owner = undefined;
    const from = address - (address % READ_BLOCK);
    const to = Math.ceil((address + length) / READ_BLOCK) * READ_BLOCK;
    if (readBlock(tid, from, to - from) !== to - from) return false;
    owner = space;
    first = from;
    end = to;
  }
  const at = address - first;
  for (let i = 0; i < length; i++) into[i] = blockBytes[at + i] ?? 0;
  return true;
}
