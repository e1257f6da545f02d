/**
 * Area: a range of IOVAs that stands for a slice of a page set.
 *
 * An area is in its io_pagetable from the moment its IOVAs are chosen. It is `filled` while every domain of the
 * io_pagetable shows it, and then is one user of its pages. Accesses that pinned pages under it are counted; an area that
 * an HW queue uses is locked against unmapping.
 *
 * Words: index, number of a page in the page set; pageOffset, bytes from the start of page `firstIndex` to the first byte.
 * After struct iopt_area (drivers/iommu/iommufd/io_pagetable.h) and iopt_area_fill_domain of pages.c.
 */
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES, addressOf, pageOf, offsetOf, showSpan } from '../base/position.ts';
import type { Span } from '../base/range-map.ts';
import { PROT_READ, PROT_WRITE } from '../iommu/page-table.ts';
import type { PagingDomain } from '../iommu/paging-domain.ts';
import type { IoPagetable } from './io-pagetable.ts';
import type { Pages } from '../pinning/pages.ts';
import type { Piece } from '../pinning/pins.ts';

/** A byte of a page set. */
export type PagesByte = { readonly index: number; readonly offset: number };

/** Distance between two positions in whole pages and bytes; `to` is not before `from`. */
function distance(span: Span, page: number, offset: number): { pages: number; bytes: number } {
  const bytes = offset - span.firstOffset;
  const pages = page - span.firstPage;
  return bytes < 0 ? { pages: pages - 1, bytes: bytes + PAGE_BYTES } : { pages, bytes };
}

export class Area implements Span {
  readonly firstPage: number;
  readonly firstOffset: number;
  readonly lastPage: number;
  readonly lastOffset: number;
  readonly iopt: IoPagetable;
  readonly pages: Pages;
  readonly prot: number;
  readonly pageOffset: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** every domain of the io_pagetable shows the area (storage_domain of the kernel) */
  filled = false;
  /** accesses that have pages of the area pinned */
  accesses = 0;
  /** HW queues that use the area */
  locks = 0;
  /** an unmap is under way, accesses must let go */
  preventAccess = false;
  /** It is a user of its pages: not where it was filled with a dma-buf that was revoked already. */
  holdsPages = false;

  constructor(
    iopt: IoPagetable,
    span: Span,
    slice: PagesByte & { readonly pages: Pages },
    prot: number,
  ) {
    this.firstPage = span.firstPage;
    this.firstOffset = span.firstOffset;
    this.lastPage = span.lastPage;
    this.lastOffset = span.lastOffset;
    this.iopt = iopt;
    this.pages = slice.pages;
    this.prot = prot;
    this.pageOffset = slice.offset;
    this.firstIndex = slice.index;
    const bytes = slice.offset + span.lastOffset - span.firstOffset;
    this.lastIndex = slice.index + span.lastPage - span.firstPage + Math.floor(bytes / PAGE_BYTES);
  }

  /** The byte of the page set behind a position of the area (iopt_area_start_byte). */
  byteAt(page: number, offset: number): PagesByte {
    const { pages, bytes } = distance(this, page, offset);
    const inPage = this.pageOffset + bytes;
    return inPage < PAGE_BYTES
      ? { index: this.firstIndex + pages, offset: inPage }
      : { index: this.firstIndex + pages + 1, offset: inPage - PAGE_BYTES };
  }

  get readable(): boolean {
    return (this.prot & PROT_READ) !== 0;
  }

  get writable(): boolean {
    return (this.prot & PROT_WRITE) !== 0;
  }

  /** Whether first IOVA, length and source all are multiples of `alignment`, a power of two up to a page. */
  isAligned(alignment: number): boolean {
    return (
      this.firstOffset % alignment === 0 &&
      (this.lastOffset + 1) % alignment === 0 &&
      this.pageOffset % alignment === 0
    );
  }

  /** Pins the pages and shows them in all `domains`; EFAULT, EINVAL, ENOMEM, and nothing changed then. */
  fill(domains: readonly PagingDomain[]): void {
    if (domains.length === 0) return;
    if (!this.pages.isRevoked) {
      if (this.pages.isDmaBuf) this.iopt.faults.alloc('note of who shows a dma-buf');
      try {
        this.pages.acquire(this.firstIndex, this.lastIndex, () => {
          for (const domain of domains) this.mapInto(domain);
        });
      } catch (error) {
        for (const domain of domains) domain.table.unmap(this);
        throw error;
      }
      this.holdsPages = true;
    }
    this.filled = true;
    this.pages.fills?.add(this);
  }

  /** Takes the area out of all domains and lets go of its pages. */
  unfill(): void {
    if (!this.filled) return;
    this.filled = false;
    this.pages.fills?.delete(this);
    this.unmapDomains();
    if (this.holdsPages) this.pages.release(this.firstIndex, this.lastIndex);
    this.holdsPages = false;
  }

  /** Takes the area out of all domains of its io_pagetable; the pages stay pinned. */
  unmapDomains(): void {
    if (this.pages.isRevoked) return;
    for (const domain of this.iopt.domains) domain.table.unmap(this);
  }

  /** Shows the pinned pages in one domain; ENOMEM, EINVAL (VFIO can ask for no access), ENXIO (alignment), and nothing changed then. */
  mapInto(domain: PagingDomain): void {
    if (this.pages.isRevoked) return;
    if (this.prot === 0) {
      throw new Errno(
        'EINVAL',
        `a page table cannot hold ${String(this)}, which may be neither read nor written`,
      );
    }
    // Only the borders of all slices together were checked when they came; those between them matter here.
    if (!this.isAligned(domain.minPageSize)) {
      throw new Errno(
        'ENXIO',
        `${String(this)} is not aligned to the smallest page of ${domain.name}, ${domain.minPageSize} bytes`,
      );
    }
    this.iopt.faults.alloc('page tables');
    for (const piece of this.pages.pieces(this.firstIndex, this.lastIndex)) {
      this.#mapPiece(domain, piece);
    }
  }

  /** Takes over the domains' view of this range from the area that it was cut out of. */
  inheritFill(from: Area): void {
    if (!from.filled) return;
    this.pages.acquire(this.firstIndex, this.lastIndex);
    this.holdsPages = true;
    this.filled = true;
  }

  /** Gives up the pages without touching any domain: the areas that it was cut into show them. */
  abandonFill(): void {
    if (this.holdsPages) this.pages.release(this.firstIndex, this.lastIndex);
    this.holdsPages = false;
    this.filled = false;
  }

  toString(): string {
    return showSpan(this);
  }

  #mapPiece(domain: PagingDomain, { run, page, index, count }: Piece): void {
    const isFirst = index === this.firstIndex;
    const isLast = index + count - 1 === this.lastIndex;
    const offset = isFirst ? this.pageOffset : 0;
    if (isFirst && isLast) {
      domain.table.map({
        span: this,
        run,
        page,
        offset,
        prot: this.prot,
        small: this.iopt.largePagesOff,
      });
      return;
    }
    const bytes = count * PAGE_BYTES - offset;
    const start = isFirst
      ? { page: this.firstPage, offset: this.firstOffset }
      : advance(this, (index - this.firstIndex) * PAGE_BYTES - this.pageOffset);
    const end = isLast
      ? { page: this.lastPage, offset: this.lastOffset }
      : advance({ firstPage: start.page, firstOffset: start.offset }, bytes - 1);
    domain.table.map({
      span: {
        firstPage: start.page,
        firstOffset: start.offset,
        lastPage: end.page,
        lastOffset: end.offset,
      },
      run,
      page,
      offset,
      prot: this.prot,
      small: this.iopt.largePagesOff,
    });
  }
}

function advance(
  from: { readonly firstPage: number; readonly firstOffset: number },
  bytes: number,
): { page: number; offset: number } {
  const address = addressOf(from.firstPage, from.firstOffset) + BigInt(bytes);
  return { page: pageOf(address), offset: offsetOf(address) };
}
