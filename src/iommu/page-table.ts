/**
 * PageTable: what a paging domain needs of a page-table format, and its simplest form, a map of extents.
 *
 * An extent is one IOVA range onto consecutive pages of one backing. Leaves are not stored: within an extent they follow
 * from IOVA, physical address, length and the sizes that the format offers, by the rule of generic_pt (the largest size
 * that alignment, end of range and physical contiguity allow; drivers/iommu/generic_pt/pt_iter.h,
 * pt_compute_best_pgsize). A leaf is what one dirty bit stands for.
 *
 * Invariant: extents are disjoint. Unmapping takes away whole extents or cuts them between leaves.
 */
import { PAGE_BYTES, addressOf, contains, hex, showSpan } from '../base/position.ts';
import { RangeMap, type Span } from '../base/range-map.ts';
import type { Backing } from '../base/task.ts';
import { LeafSet } from './leaf-set.ts';
import { pfnOf, type FrameRun } from '../machine/memory.ts';

/** Permissions of a mapping (IOMMU_READ, IOMMU_WRITE of include/linux/iommu.h). */
export const PROT_READ = 1;
export const PROT_WRITE = 2;

/** A mapping to make: `span` of IOVAs onto memory from byte `offset` of page `page` on, which lies in `run`. */
export type Mapping = {
  readonly span: Span;
  readonly run: FrameRun;
  /** page number in the run's backing that holds the first byte */
  readonly page: number;
  /** of the first byte within that page */
  readonly offset: number;
  readonly prot: number;
  /** never use leaves above the page size (iopt disable_large_pages) */
  readonly small: boolean;
};

/** Where an IOVA leads. */
export type Translation = {
  /** physical address, exact in a double */
  readonly phys: number;
  readonly backing: Backing;
  /** byte offset in the backing */
  readonly offset: number;
  readonly prot: number;
};

/** Told of dirty leaves that follow one another, each run once: first IOVA, size of all and of each, in bytes. */
export type DirtyLeaves = (first: bigint, size: number, leaf: number) => void;

export type PageTable = {
  /** Sizes of leaves in bytes, descending powers of two. */
  readonly leafSizes: readonly number[];
  /** Adds a mapping. Its span is free: whoever maps keeps areas disjoint, so an overlap is a bug and throws Error. */
  map(mapping: Mapping): void;
  /** Takes away everything in `span`; holes are fine. */
  unmap(span: Span): void;
  walk(page: number, offset: number): Translation | undefined;
  /** What is mapped, ascending and disjoint; for checks. */
  spans(): Iterable<Span>;
  /** Physical address, or -1 where nothing is mapped. */
  translate(page: number, offset: number): number;
  /** A device wrote there; false where nothing is mapped. */
  setDirty(page: number, offset: number): boolean;
  /**
   * Reports the dirty leaves that touch `span`, ascending; forgets them where `clear` is set. One that starts before the
   * span is reported apart from those that follow it.
   */
  readDirty(span: Span, clear: boolean, report: DirtyLeaves): void;
};

/** A mapping that is there. */
export class Extent implements Span {
  readonly firstPage: number;
  readonly firstOffset: number;
  readonly lastPage: number;
  readonly lastOffset: number;
  readonly run: FrameRun;
  readonly page: number;
  readonly offset: number;
  readonly prot: number;
  readonly small: boolean;
  /** starts of dirty leaves, in bytes from the first byte of the extent */
  dirty: LeafSet | undefined;
  /** the size of all its leaves; 0 where they differ; undefined until somebody asks */
  leafSize: number | undefined;

  constructor({ span, run, page, offset, prot, small }: Mapping) {
    this.firstPage = span.firstPage;
    this.firstOffset = span.firstOffset;
    this.lastPage = span.lastPage;
    this.lastOffset = span.lastOffset;
    this.run = run;
    this.page = page;
    this.offset = offset;
    this.prot = prot;
    this.small = small;
  }

  /** Distance of a position from the first byte. */
  delta(page: number, offset: number): number {
    return (page - this.firstPage) * PAGE_BYTES + (offset - this.firstOffset);
  }

  /**
   * Frames run downwards, so IOVA page plus frame number is the same for all pages of an extent: a translation that needs
   * nothing else. NaN where it is not so, for huge pages and where the two offsets within a page differ.
   */
  get pageSum(): number {
    if (this.run.backing.unit !== 1 || this.offset !== this.firstOffset) return NaN;
    return this.firstPage + pfnOf(this.run, this.page);
  }

  get length(): number {
    return this.delta(this.lastPage, this.lastOffset) + 1;
  }

  /** Physical address of the byte at distance `delta`. */
  phys(delta: number): number {
    const byte = this.offset + delta;
    const inPage = byte % PAGE_BYTES;
    return pfnOf(this.run, this.page + (byte - inPage) / PAGE_BYTES) * PAGE_BYTES + inPage;
  }
}

// Alignment needs the low bits of an IOVA only; 2^32 of them fit a double with room to spare.
const LOW_PAGES = 2 ** 20;

export class ExtentTable implements PageTable {
  readonly leafSizes: readonly number[];
  /** each with its {@link Extent.pageSum} beside it */
  readonly extents = new RangeMap<Extent>({ numbers: true });

  readonly #smallestLeaf: number;

  constructor(leafSizes: readonly number[]) {
    this.leafSizes = leafSizes;
    this.#smallestLeaf = Math.min(...leafSizes);
  }

  map(mapping: Mapping): void {
    this.#insert(new Extent(mapping));
  }

  unmap(span: Span): void {
    for (;;) {
      const extent = this.extents.firstOverlap(
        span.firstPage,
        span.firstOffset,
        span.lastPage,
        span.lastOffset,
      );
      if (extent === undefined) return;
      this.extents.delete(extent);
      if (!contains(span, extent)) this.#keepOutside(extent, span);
      if (!endsBefore(extent, span)) return;
    }
  }

  walk(page: number, offset: number): Translation | undefined {
    const extent = this.extents.at(page, offset);
    if (extent === undefined) return undefined;
    const delta = extent.delta(page, offset);
    return {
      phys: extent.phys(delta),
      backing: extent.run.backing,
      offset: extent.page * PAGE_BYTES + extent.offset + delta,
      prot: extent.prot,
    };
  }

  spans(): Iterable<Span> {
    return this.extents;
  }

  translate(page: number, offset: number): number {
    const sum = this.extents.numberAt(page, offset);
    if (!Number.isNaN(sum)) return (sum - page) * PAGE_BYTES + offset;
    const extent = this.extents.at(page, offset);
    return extent === undefined ? -1 : extent.phys(extent.delta(page, offset));
  }

  setDirty(page: number, offset: number): boolean {
    const extent = this.extents.at(page, offset);
    if (extent === undefined) return false;
    const [start] = this.#leafAt(extent, extent.delta(page, offset));
    extent.dirty ??= new LeafSet(this.#smallestLeaf);
    extent.dirty.add(start);
    return true;
  }

  readDirty(span: Span, clear: boolean, report: DirtyLeaves): void {
    let extent = this.extents.ceiling(span.firstPage, span.firstOffset);
    while (extent !== undefined && startsIn(extent, span)) {
      if (extent.dirty !== undefined) this.#readExtent(extent, span, { clear, report });
      extent = this.extents.after(extent);
    }
  }

  #insert(extent: Extent): void {
    this.extents.insert(extent, extent.pageSum);
  }

  #readExtent(extent: Extent, span: Span, how: { clear: boolean; report: DirtyLeaves }): void {
    const first = Math.max(0, extent.delta(span.firstPage, span.firstOffset));
    const last = Math.min(extent.length - 1, extent.delta(span.lastPage, span.lastOffset));
    const base = addressOf(extent.firstPage, extent.firstOffset);
    const [from] = this.#leafAt(extent, first);
    let [start, end, unit] = [from, from, 0];
    const flush = (): void => {
      if (end > start) how.report(base + BigInt(start), end - start, unit);
    };
    for (const leaf of extent.dirty?.starts(from, last) ?? []) {
      const [, size] = this.#leafAt(extent, leaf);
      if (leaf !== end || start < first || size !== unit) {
        flush();
        start = leaf;
        unit = size;
      }
      end = leaf + size;
    }
    flush();
    if (how.clear) extent.dirty?.clear(from, last);
  }

  /** Puts back what `span` leaves of an extent on either side, for cuts of split areas. */
  #keepOutside(extent: Extent, span: Span): void {
    const before = extent.delta(span.firstPage, span.firstOffset);
    const after = extent.delta(span.lastPage, span.lastOffset) + 1;
    const unit = this.#smallestLeaf;
    if (before > 0) this.#insert(part(extent, { from: 0, to: before, unit }));
    if (after < extent.length) this.#insert(part(extent, { from: after, to: extent.length, unit }));
  }

  /** The leaf that holds the byte at distance `delta`: its start as a distance, and its size. */
  #leafAt(extent: Extent, delta: number): [start: number, size: number] {
    const only = (extent.leafSize ??= this.#onlySize(extent));
    if (only > 0) return [delta - (delta % only), only];
    const unit = (extent.small ? 1 : extent.run.backing.unit) * PAGE_BYTES;
    const origin = extent.page * PAGE_BYTES + extent.offset;
    const pieceStart = origin + delta - ((origin + delta) % unit);
    const end = Math.min(pieceStart + unit - origin, extent.length);
    let at = Math.max(0, pieceStart - origin);
    for (;;) {
      const size = this.#bestSize(extent, at, end);
      if (at + size > delta) return [at, size];
      at += size;
    }
  }

  /** The unit of the backing, where the extent begins and ends with one and the format has leaves of that size; else 0. */
  #onlySize(extent: Extent): number {
    const unit = (extent.small ? 1 : extent.run.backing.unit) * PAGE_BYTES;
    const origin = extent.page * PAGE_BYTES + extent.offset;
    if (origin % unit !== 0 || extent.length % unit !== 0) return 0;
    return this.#bestSize(extent, 0, unit) === unit ? unit : 0;
  }

  #bestSize(extent: Extent, at: number, end: number): number {
    const byte = extent.firstOffset + at;
    const low =
      ((extent.firstPage + Math.floor(byte / PAGE_BYTES)) % LOW_PAGES) * PAGE_BYTES +
      (byte % PAGE_BYTES);
    const phys = extent.phys(at);
    for (const size of this.leafSizes) {
      if (low % size === 0 && phys % size === 0 && at + size <= end) return size;
    }
    // The caller aligned to the smallest size (iova_alignment), so this is a bug of ours.
    throw new Error(`no leaf size fits ${hex(phys)} at distance ${at} of ${showSpan(extent)}`);
  }
}

/** Whether something of `span` lies behind the extent. */
function endsBefore(extent: Extent, span: Span): boolean {
  return (
    extent.lastPage < span.lastPage ||
    (extent.lastPage === span.lastPage && extent.lastOffset < span.lastOffset)
  );
}

function startsIn(extent: Extent, span: Span): boolean {
  return (
    extent.firstPage < span.lastPage ||
    (extent.firstPage === span.lastPage && extent.firstOffset <= span.lastOffset)
  );
}

/** Bytes [from, to) of an extent as an extent of its own, with the dirty leaves that start there. */
function part(
  extent: Extent,
  { from, to, unit }: { readonly from: number; readonly to: number; readonly unit: number },
): Extent {
  const first = addressOf(extent.firstPage, extent.firstOffset) + BigInt(from);
  const last = addressOf(extent.firstPage, extent.firstOffset) + BigInt(to - 1);
  const byte = extent.offset + from;
  const piece = new Extent({
    span: {
      firstPage: Number(first >> 12n),
      firstOffset: Number(first & 0xfffn),
      lastPage: Number(last >> 12n),
      lastOffset: Number(last & 0xfffn),
    },
    run: extent.run,
    page: extent.page + Math.floor(byte / PAGE_BYTES),
    offset: byte % PAGE_BYTES,
    prot: extent.prot,
    small: extent.small,
  });
  for (const leaf of extent.dirty?.starts(from, to - 1) ?? []) {
    (piece.dirty ??= new LeafSet(unit)).add(leaf - from);
  }
  return piece;
}
