/** Strings in a client's memory. */
import { PIECE, pieceBytes, readMemory } from '../../os/process.ts';

const PAGE_SIZE = 4096n;
const PATH_MAX = 4096;
const FIRST_PIECE = 256n;

const decoder = new TextDecoder();

/**
 * A path as the kernel would read it.
 * @returns undefined if it cannot be read or is too long: the kernel then finds the errno itself
 */
export function readPath(tid: number, address: bigint): string | undefined {
  if (address === 0n) return undefined;
  const pieces: Uint8Array[] = [];
  let length = 0;
  for (let at = address; length < PATH_MAX;) {
    // Up to the end of the page: what follows may not be mapped.
    const rest = PAGE_SIZE - (at % PAGE_SIZE);
    const want = Number(rest < FIRST_PIECE ? rest : FIRST_PIECE);
    const got = readMemory(tid, at, Math.min(want, PIECE));
    if (got <= 0) return undefined;
    const end = pieceBytes.subarray(0, got).indexOf(0);
    const piece = pieceBytes.slice(0, end < 0 ? got : end);
    if (end >= 0 && pieces.length === 0) return decoder.decode(piece);
    pieces.push(piece);
    length += piece.length;
    if (end >= 0) return length < PATH_MAX ? decoder.decode(Buffer.concat(pieces)) : undefined;
    at += BigInt(got);
  }
  return undefined;
}
