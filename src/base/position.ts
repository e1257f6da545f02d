/**
 * Positions in a 64-bit address space as pairs (page, offset), and the bigint addresses of the ABI.
 *
 * A double holds page numbers exactly (2^52 pages of 4 KiB), not addresses; bigint arithmetic costs ten times as much.
 * So the engine converts once at its edge and works with pairs. Words: "last" is inclusive, as in range-map.ts.
 */
import type { Span } from './range-map.ts';

/** One past the last address that a program can have (TASK_SIZE_MAX of x86-64, with four levels of page tables). */
export const USER_END = 2n ** 47n - 4096n;

export const PAGE_BYTES = 4096;
export const KIB_PER_PAGE = PAGE_BYTES / 1024;

/** ULONG_MAX: the last address there is. */
export const MAX_ADDRESS = 0xffff_ffff_ffff_ffffn;

// An address is taken apart and put together in these eight bytes: a shift, a mask and two conversions of a bigint take
// 45 ns, this takes 4 (little-endian, as every processor that Node supports on Linux in practice).
const WORD = new BigUint64Array(1);
const HALVES = new Uint32Array(WORD.buffer);
/** pages in 4 GiB */
const HIGH = 2 ** 20;
/** of a 64-bit address space */
export const ALL_PAGES = 2 ** 52;

/** @param address within 64 bits */
export function pageOf(address: bigint): number {
  WORD[0] = address;
  return (HALVES[1] ?? 0) * HIGH + ((HALVES[0] ?? 0) >>> 12);
}

export function offsetOf(address: bigint): number {
  WORD[0] = address;
  return (HALVES[0] ?? 0) & (PAGE_BYTES - 1);
}

export function addressOf(page: number, offset: number): bigint {
  const high = Math.floor(page / HIGH);
  HALVES[0] = (page - high * HIGH) * PAGE_BYTES + offset;
  HALVES[1] = high;
  return WORD[0] ?? 0n;
}

/**
 * A class, though a literal would do: V8 first lays out a literal for small integers, and then every span with page numbers
 * above 2^31 is laid out anew where it is read, which took 200 ns of each map.
 */
class AddressSpan implements Span {
  readonly firstPage: number;
  readonly firstOffset: number;
  readonly lastPage: number;
  readonly lastOffset: number;

  constructor(firstPage: number, firstOffset: number, lastPage: number, lastOffset: number) {
    this.firstPage = firstPage;
    this.firstOffset = firstOffset;
    this.lastPage = lastPage;
    this.lastOffset = lastOffset;
  }
}

/** The closed range [first, last] as a span; both within 64 bits and first ≤ last. */
export function spanOf(first: bigint, last: bigint): Span {
  return new AddressSpan(pageOf(first), offsetOf(first), pageOf(last), offsetOf(last));
}

/** The closed range of `length` bytes from `first`, both within 64 bits; undefined if it is empty or wraps around. */
export function spanFrom(first: bigint, length: bigint): Span | undefined {
  const firstPage = pageOf(first);
  const firstOffset = offsetOf(first);
  const bytes = firstOffset + offsetOf(length) - 1;
  const lastPage = firstPage + pageOf(length) + Math.floor(bytes / PAGE_BYTES);
  if (lastPage >= ALL_PAGES || length === 0n) return undefined;
  return new AddressSpan(firstPage, firstOffset, lastPage, bytes & (PAGE_BYTES - 1));
}

export function firstOf(span: Span): bigint {
  return addressOf(span.firstPage, span.firstOffset);
}

export function lastOf(span: Span): bigint {
  return addressOf(span.lastPage, span.lastOffset);
}

/** Adds up lengths of disjoint spans; a bigint is made at the end only. */
export class ByteCount {
  #pages = 0;
  #bytes = 0;

  add(span: Span): void {
    this.#pages += span.lastPage - span.firstPage;
    this.#bytes += span.lastOffset - span.firstOffset + 1;
  }

  /** in bytes; 2^64 for all there is */
  get total(): bigint {
    const inPage = this.#bytes % PAGE_BYTES;
    const pages = this.#pages + (this.#bytes - inPage) / PAGE_BYTES;
    if (inPage === 0 && pages < ALL_PAGES) return addressOf(pages, 0);
    return BigInt(pages) * BigInt(PAGE_BYTES) + BigInt(inPage);
  }
}

export function overlaps(a: Span, b: Span): boolean {
  return !isBefore(a, b) && !isBefore(b, a);
}

/** Whether `a` ends before `b` starts. */
export function isBefore(a: Span, b: Span): boolean {
  return a.lastPage < b.firstPage || (a.lastPage === b.firstPage && a.lastOffset < b.firstOffset);
}

/** Whether `inner` lies within `outer`. */
export function contains(outer: Span, inner: Span): boolean {
  const startsIn =
    outer.firstPage < inner.firstPage ||
    (outer.firstPage === inner.firstPage && outer.firstOffset <= inner.firstOffset);
  const endsIn =
    outer.lastPage > inner.lastPage ||
    (outer.lastPage === inner.lastPage && outer.lastOffset >= inner.lastOffset);
  return startsIn && endsIn;
}

/** 0x1234, for reasons. */
export function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}

/** [0x1000, 0x1fff], for reasons. */
export function showSpan(span: Span): string {
  return `[${hex(firstOf(span))}, ${hex(lastOf(span))}]`;
}
