/**
 * DMA mappings of a container: IOVAs onto memory of a process, pinned from MAP_DMA to UNMAP_DMA and shown in every domain of the
 * container.
 *
 * A mapping is charged to the process that made it (its locked memory, as mlock counts it), also where CAP_IPC_LOCK lifts the
 * limit. UNMAP_DMA with VADDR and MAP_DMA with VADDR hand a mapping on to another process: the pages stay as they are, the new
 * owner pays.
 *
 * Invariants: mappings are disjoint; each is one user of its pages, and all domains show exactly these; `invalidCount` is the
 * number of mappings without valid address.
 *
 * After vfio_dma_do_map, vfio_dma_do_unmap, vfio_pin_map_dma and vfio_iommu_replay of drivers/vfio/vfio_iommu_type1.c.
 */
import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES, addressOf, hex, pageOf, showSpan, spanOf } from '../../base/position.ts';
import type { Span } from '../../base/range-map.ts';
import type { Task } from '../../base/task.ts';
import { PROT_WRITE } from '../../iommu/page-table.ts';
import type { PagingDomain } from '../../iommu/paging-domain.ts';
import { headroom, type Payer } from '../../pinning/accounting.ts';
import { Pages } from '../../pinning/pages.ts';
import { DirtyBitmap } from './dirty.ts';
import { requireValid } from './iova-list.ts';
import type { Type1 } from './type1.ts';

export class DmaMapping implements Span {
  readonly firstPage: number;
  readonly firstOffset = 0;
  readonly lastPage: number;
  readonly lastOffset = PAGE_BYTES - 1;
  readonly pages: Pages;
  readonly prot: number;
  /** where the owner has the memory; only compared and reported, the pages are pinned */
  vaddr: bigint;
  /** The owner gave its address up, and the next one has not said where it has the memory. */
  vaddrInvalid = false;
  /** while the container tracks dirty pages */
  bitmap: DirtyBitmap | undefined;

  constructor(
    span: Span,
    memory: { readonly pages: Pages; readonly vaddr: bigint; readonly prot: number },
  ) {
    this.firstPage = span.firstPage;
    this.lastPage = span.lastPage;
    this.pages = memory.pages;
    this.vaddr = memory.vaddr;
    this.prot = memory.prot;
  }

  get count(): number {
    return this.lastPage - this.firstPage + 1;
  }

  /** Shows the pinned pages in a domain. ENOMEM, and nothing is shown then. */
  mapInto(domain: PagingDomain, small: boolean): void {
    for (const { run, page, index, count } of this.pages.pieces(0, this.count - 1)) {
      const firstPage = this.firstPage + index;
      const span = {
        firstPage,
        firstOffset: 0,
        lastPage: firstPage + count - 1,
        lastOffset: PAGE_BYTES - 1,
      };
      domain.table.map({ span, run, page, offset: 0, prot: this.prot, small });
    }
  }
}

/** What MAP_DMA asks for; the range does not wrap. */
export type MapRequest = {
  readonly first: bigint;
  readonly last: bigint;
  readonly vaddr: bigint;
  readonly prot: number;
};

/** Which process a mapping of the caller is charged to. */
function payerOf(task: Task): Payer {
  const { memory, uid, limits } = task;
  return { memory, uid, limits, mode: 'locked', unlimited: task.capable('CAP_IPC_LOCK') };
}

/**
 * MAP_DMA: pins and maps.
 * @throws Errno EEXIST, ENOSPC (dma_entry_limit), EINVAL outside the valid ranges, EFAULT, ENOMEM
 */
export function mapDma(type1: Type1, task: Task, request: MapRequest): void {
  const { first, last, vaddr, prot } = request;
  const span = spanOf(first, last);
  refuseOverlap(type1, span);
  if (type1.entriesLeft === 0) {
    throw new Errno(
      'ENOSPC',
      `the container has ${type1.dmas.size} mappings, as many as dma_entry_limit of vfio_iommu_type1 allows`,
    );
  }
  requireValid(type1.iovas, first, last);
  const payer = payerOf(task);
  const source = { kind: 'user', memory: task.memory } as const;
  const count = span.lastPage - span.firstPage + 1;
  const writable = (prot & PROT_WRITE) !== 0;
  const pages = new Pages(type1.pinning, source, {
    firstPage: pageOf(vaddr),
    count,
    writable,
    payer,
  });
  const dma = new DmaMapping(span, { pages, vaddr, prot });
  pin(type1, dma);
  type1.dmas.insert(dma);
  type1.entriesLeft--;
  if (!type1.tracksDirty) return;
  try {
    dma.bitmap = bitmapFor(type1, dma);
  } catch (error) {
    removeDma(type1, dma);
    throw error;
  }
}

/** Linux counts the bits of a bitmap in an int. */
const MOST_BITS = 2 ** 31 - 1;

/** EINVAL for a mapping of more pages than a bitmap can have. */
function bitmapFor(type1: Type1, dma: DmaMapping): DirtyBitmap {
  const bits = dma.count / type1.pagesPerBit;
  if (bits > MOST_BITS) {
    throw new Errno(
      'EINVAL',
      `${bits} pages are too many for a dirty bitmap, ${MOST_BITS} the most`,
    );
  }
  return new DirtyBitmap(bits);
}

/** DIRTY_PAGES, START: every mapping gets a bitmap, or none does and EINVAL. */
export function trackDirty(type1: Type1): void {
  if (type1.tracksDirty) return;
  const bitmaps = [...type1.dmas].map((dma) => ({ dma, bitmap: bitmapFor(type1, dma) }));
  for (const { dma, bitmap } of bitmaps) dma.bitmap = bitmap;
  type1.tracksDirty = true;
}

function refuseOverlap(type1: Type1, span: Span): void {
  const there = overlapOf(type1, span);
  if (there === undefined) return;
  throw new Errno('EEXIST', `${showSpan(span)} overlaps the mapping ${showSpan(there)}`);
}

function overlapOf(type1: Type1, span: Span): DmaMapping | undefined {
  const { firstPage, firstOffset, lastPage, lastOffset } = span;
  return type1.dmas.firstOverlap(firstPage, firstOffset, lastPage, lastOffset);
}

function pin(type1: Type1, dma: DmaMapping): void {
  const { pages, count } = dma;
  try {
    pages.acquire(0, count - 1);
  } catch (error) {
    throw limitFirst(pages, error);
  }
  try {
    for (const domain of type1.pagingDomains) dma.mapInto(domain, type1.smallPages);
  } catch (error) {
    for (const domain of type1.pagingDomains) domain.table.unmap(dma);
    pages.release(0, count - 1);
    throw error;
  }
}

/** Linux pins and charges piece by piece: over the limit before the first page that cannot be pinned is ENOMEM, not EFAULT. */
function limitFirst(pages: Pages, error: unknown): unknown {
  const { source, firstPage, count, payer, writable } = pages;
  if (!(error instanceof Errno) || error.code !== 'EFAULT' || source.kind !== 'user') return error;
  const room = headroom(payer);
  if (room >= count) return error;
  try {
    source.memory.resolve(firstPage, room + 1, writable);
  } catch {
    return error;
  }
  return new Errno(
    'ENOMEM',
    `RLIMIT_MEMLOCK of the process has room for ${room} pages, ${count} are to be mapped`,
  );
}

/**
 * MAP_DMA with VADDR: another process, or the same at another address, takes a mapping over.
 * @throws Errno ENOENT, EINVAL unless the range is that of one mapping without valid address, ENOMEM over the new owner's limit
 */
export function takeOver(type1: Type1, task: Task, request: MapRequest): void {
  const span = spanOf(request.first, request.last);
  const dma = overlapOf(type1, span);
  if (dma === undefined) throw new Errno('ENOENT', `nothing is mapped at ${showSpan(span)}`);
  if (!dma.vaddrInvalid || dma.firstPage !== span.firstPage || dma.lastPage !== span.lastPage) {
    throw new Errno(
      'EINVAL',
      dma.vaddrInvalid
        ? `${showSpan(span)} is not all of the mapping ${showSpan(dma)}`
        : `the address of the mapping ${showSpan(dma)} is still valid`,
    );
  }
  if (task.memory !== dma.pages.payer.memory) dma.pages.chargeTo(payerOf(task));
  dma.vaddr = request.vaddr;
  dma.vaddrInvalid = false;
  type1.invalidCount--;
}

/** The mappings from the one that holds `first`, or the next one, up to `last`. */
export function* mappingsIn(type1: Type1, first: bigint, last: bigint): Generator<DmaMapping> {
  const { firstPage, firstOffset, lastPage } = spanOf(first, last);
  let next = type1.dmas.ceiling(firstPage, firstOffset);
  while (next !== undefined && next.firstPage <= lastPage) {
    const dma = next;
    next = type1.dmas.after(dma);
    yield dma;
  }
}

/** EINVAL if one end of [first, last] is in the middle of a mapping. */
export function refuseCut(type1: Type1, first: bigint, last: bigint): void {
  const low = type1.dmas.at(pageOf(first), 0);
  const high = type1.dmas.at(pageOf(last), 0);
  const cut =
    low !== undefined && addressOf(low.firstPage, 0) !== first
      ? low
      : high !== undefined && addressOf(high.lastPage, high.lastOffset) !== last
        ? high
        : undefined;
  if (cut === undefined) return;
  throw new Errno('EINVAL', `${hex(first)}-${hex(last)} cuts the mapping ${showSpan(cut)}`);
}

/** Takes a mapping away: out of all domains, its pages unpinned, its owner's memory uncharged. Cannot fail. */
export function removeDma(type1: Type1, dma: DmaMapping): void {
  for (const domain of type1.pagingDomains) domain.table.unmap(dma);
  dma.pages.release(0, dma.count - 1);
  dma.pages.put();
  type1.dmas.delete(dma);
  if (dma.vaddrInvalid) type1.invalidCount--;
  type1.entriesLeft++;
}

/**
 * Gives up the addresses of all mappings in a range (UNMAP_DMA with VADDR).
 * @returns how many bytes; EINVAL if one has none already, and nothing changed then
 */
export function invalidateAddresses(type1: Type1, first: bigint, last: bigint): bigint {
  const done: DmaMapping[] = [];
  for (const dma of mappingsIn(type1, first, last)) {
    if (!type1.v2 && first > addressOf(dma.firstPage, 0)) break;
    if (dma.vaddrInvalid) {
      for (const each of done) each.vaddrInvalid = false;
      type1.invalidCount -= done.length;
      throw new Errno('EINVAL', `the address of the mapping ${showSpan(dma)} was given up already`);
    }
    dma.vaddrInvalid = true;
    type1.invalidCount++;
    done.push(dma);
  }
  return done.reduce((sum, { count }) => sum + BigInt(count) * BigInt(PAGE_BYTES), 0n);
}
