/**
 * IoPagetable (iopt): which IOVAs of an IOAS stand for what memory, and the domains that show it to devices.
 *
 * Areas stand for memory, reservations forbid IOVAs, the allowed list limits where IOVAs are chosen. Every domain shows
 * every area, fully; with no domain nothing is pinned. Accesses read and write without a domain.
 *
 * Invariants: areas are disjoint from each other and from reservations; allowed ranges are disjoint from each other and
 * from reservations; an area is filled exactly while there is a domain; every area, and every domain's and access's needs,
 * conform to `alignment`.
 *
 * After drivers/iommu/iommufd/io_pagetable.c. One call is one atomic step here, so an area never is seen half-made.
 */
import { Errno } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';
import {
  ALL_PAGES,
  MAX_ADDRESS,
  ByteCount,
  firstOf,
  contains,
  hex,
  lastOf,
  offsetOf,
  overlaps,
  pageOf,
  showSpan,
  spanFrom,
  spanOf,
} from '../base/position.ts';
import { RangeMap, type Span } from '../base/range-map.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import { PROT_WRITE } from '../iommu/page-table.ts';
import type { PagingDomain } from '../iommu/paging-domain.ts';
import type { ReservedRegion } from '../iommu/domain.ts';
import { Area, type PagesByte } from './area.ts';
import { allocIova } from './iova-alloc.ts';
import type { Pages } from '../pinning/pages.ts';
import { Reservations } from './reservations.ts';

/** An in-kernel user of an IOAS, as the io_pagetable sees it. */
export type IoptAccess = {
  /** what its accesses need, in bytes: a page where it pins, else 1 */
  readonly alignment: number;
  /** must drop all pins that touch the range, before it returns */
  onUnmap(first: bigint, last: bigint): void;
};

/** A slice of a page set to be mapped: `length` bytes from one of its bytes on. */
export type Slice = PagesByte & { readonly pages: Pages; readonly length: bigint };

export type MapRequest = {
  /** where; undefined lets the io_pagetable choose */
  readonly iova: bigint | undefined;
  readonly prot: number;
};

// An access that does not let go is asked this often (iopt_unmap_iova_range).
const UNMAP_TRIES = 100;

export class IoPagetable {
  readonly areas = new RangeMap<Area>();
  readonly reserved = new Reservations();
  readonly domains: PagingDomain[] = [];
  readonly accesses = new Set<IoptAccess>();
  #allowed: readonly Span[] = [];
  #alignment = 1;
  #largePagesOff = false;
  readonly faults: Faults;

  constructor(faults: Faults) {
    this.faults = faults;
  }

  /** iova_alignment in bytes, a power of two from 1 to a page. */
  get alignment(): number {
    return this.#alignment;
  }

  get largePagesOff(): boolean {
    return this.#largePagesOff;
  }

  get allowed(): readonly Span[] {
    return this.#allowed;
  }

  /**
   * Maps slices one after the other, as one range. Takes over the reference on each page set; on failure gives it back.
   * EINVAL, EOVERFLOW, EEXIST, ENOSPC, EPERM, and what pinning answers; nothing is changed then.
   * @returns the first IOVA. After iopt_map_pages.
   */
  map(slices: readonly Slice[], request: MapRequest): bigint {
    try {
      for (let left = slices.length; left > 0; left--) this.faults.alloc('area');
      const span = this.#place(slices, request);
      this.#show(this.#areasOf(slices, span, request.prot));
      return request.iova ?? firstOf(span);
    } catch (error) {
      for (const { pages } of slices) pages.put();
      throw error;
    }
  }

  /**
   * Removes the areas in [first, last]; an area that is not wholly inside stops it with ENOENT, those before are gone.
   * EBUSY for an area that an HW queue uses, EDEADLK for an access that does not let go.
   * @param removed counts what is gone, also where the call fails
   * @returns how many bytes. After iopt_unmap_iova_range.
   */
  unmap(first: bigint, last: bigint, removed = new ByteCount()): bigint {
    const range = spanOf(first, last);
    const { firstPage, firstOffset, lastPage, lastOffset } = range;
    for (;;) {
      const area = this.areas.firstOverlap(firstPage, firstOffset, lastPage, lastOffset);
      if (area === undefined) break;
      if (area.locks > 0) {
        throw new Errno(
          'EBUSY',
          `area ${String(area)} is used by ${area.locks} HW queue(s); destroy them first`,
        );
      }
      if (!contains(range, area)) {
        throw new Errno(
          'ENOENT',
          `[${hex(first)}, ${hex(last)}] cuts the area ${String(area)}; only whole areas can be unmapped`,
        );
      }
      if (area.accesses > 0) this.#evictAccesses(area);
      removed.add(area);
      this.#removeArea(area);
      if (area.lastPage === lastPage && area.lastOffset === lastOffset) break;
    }
    return removed.total;
  }

  /** Removes everything; nothing mapped is fine. */
  unmapAll(removed = new ByteCount()): bigint {
    return this.unmap(0n, MAX_ADDRESS, removed);
  }

  firstArea(span: Span): Area | undefined {
    return this.areas.firstOverlap(
      span.firstPage,
      span.firstOffset,
      span.lastPage,
      span.lastOffset,
    );
  }

  /** Areas that follow one another without a hole over [first, last]; undefined where there is a hole. */
  contiguous(first: bigint, last: bigint): Area[] | undefined {
    const found: Area[] = [];
    let area = this.areas.at(pageOf(first), offsetOf(first));
    while (area !== undefined) {
      found.push(area);
      const end = lastOf(area);
      if (end >= last) return found;
      const next = this.areas.after(area);
      area = next !== undefined && firstOf(next) === end + 1n ? next : undefined;
    }
    return undefined;
  }

  /** The slices of page sets behind [first, last], each with a reference; ENOENT for a hole. After iopt_get_pages. */
  slices(first: bigint, last: bigint): Slice[] {
    const areas = this.contiguous(first, last);
    if (areas === undefined) {
      throw new Errno('ENOENT', `not all of [${hex(first)}, ${hex(last)}] is mapped`);
    }
    areas.forEach(() => {
      this.faults.alloc('page list element');
    });
    return areas.map((area) => {
      const from = max(first, firstOf(area));
      const to = min(last, lastOf(area));
      const { index, offset } = area.byteAt(pageOf(from), offsetOf(from));
      return { pages: area.pages.get(), index, offset, length: to - from + 1n };
    });
  }

  /** Forbids [first, last] for `owner`; EADDRINUSE where an area or an allowed range is. After iopt_reserve_iova. */
  reserve(span: Span, owner: object | undefined, why: string): void {
    const area = this.firstArea(span);
    if (area !== undefined) {
      throw new Errno(
        'EADDRINUSE',
        `${why} needs ${showSpan(span)}, where ${String(area)} is mapped`,
      );
    }
    const allowed = this.#allowed.find((range) => overlaps(range, span));
    if (allowed !== undefined) {
      throw new Errno(
        'EADDRINUSE',
        `${why} needs ${showSpan(span)}, but ${showSpan(allowed)} was promised to stay usable`,
      );
    }
    this.faults.alloc('reservation');
    this.reserved.add({ span, owner, why });
  }

  /** The regions that a device cannot use as memory. After iopt_table_enforce_dev_resv_regions. */
  enforceRegions(owner: object, name: string, regions: readonly ReservedRegion[]): void {
    this.faults.point('EINVAL', 'reserved regions of a device');
    try {
      for (const { start, last, type } of regions) {
        if (type === 'direct-relaxable') continue;
        this.reserve(spanOf(start, last), owner, `the ${type} region of ${name}`);
      }
    } catch (error) {
      this.reserved.removeOwner(owner);
      throw error;
    }
  }

  /** Replaces the list of ranges, ascending, that must stay usable; EADDRINUSE if one is reserved. After iopt_set_allow_iova. */
  setAllowed(ranges: readonly Span[]): void {
    for (const range of ranges) {
      const hit = this.reserved.firstOverlap(range);
      if (hit !== undefined) {
        throw new Errno(
          'EADDRINUSE',
          `${showSpan(range)} cannot be kept usable, ${hit.why} reserves ${showSpan(hit.span)}`,
        );
      }
    }
    this.#allowed = ranges;
  }

  /** A domain starts to show everything; EINVAL, EADDRINUSE, or what pinning answers. After iopt_table_add_domain. */
  addDomain(domain: PagingDomain): void {
    const alignment = Math.max(domain.minPageSize, this.#alignment);
    if (alignment > PAGE_SIZE) {
      throw new Errno(
        'EINVAL',
        `the domain's smallest page is ${hex(alignment)} bytes, more than a page of memory`,
      );
    }
    this.#checkAlignment(alignment);
    const filled: Area[] = [];
    try {
      this.#reserveOutside(domain);
      this.faults.alloc('domain slot');
      for (const area of this.areas) {
        this.#showIn(area, domain);
        filled.push(area);
      }
    } catch (error) {
      for (const area of filled) this.#hide(area, domain);
      this.reserved.removeOwner(domain);
      throw error;
    }
    this.domains.push(domain);
    this.#alignment = alignment;
  }

  /** After iopt_table_remove_domain; the last domain that leaves unpins everything. */
  removeDomain(domain: PagingDomain): void {
    const at = this.domains.indexOf(domain);
    if (at === -1) throw new Error('the domain is not in this io_pagetable');
    // The list stays linear, the last one moves into the gap: auto-selection depends on no order, the kernel's does not either.
    const tail = this.domains.pop();
    if (tail !== undefined && tail !== domain) this.domains[at] = tail;
    for (const area of this.areas) this.#hide(area, domain);
    this.reserved.removeOwner(domain);
    this.#recalculateAlignment();
  }

  /** After iopt_add_access; EADDRINUSE where areas do not conform to what the access needs. */
  addAccess(access: IoptAccess): void {
    this.faults.alloc('access slot');
    this.accesses.add(access);
    try {
      this.#recalculateAlignment();
    } catch (error) {
      this.accesses.delete(access);
      throw error;
    }
  }

  removeAccess(access: IoptAccess): void {
    this.accesses.delete(access);
    this.#recalculateAlignment();
  }

  /** After iopt_disable_large_pages: EINVAL once a domain shows an area, EADDRINUSE for areas that are not page aligned. */
  disableLargePages(): void {
    if (this.#largePagesOff) return;
    if (this.domains.length > 0 && this.areas.size > 0) {
      throw new Errno(
        'EINVAL',
        'large pages cannot be switched off any more, domains already map areas',
      );
    }
    this.#largePagesOff = true;
    try {
      this.#recalculateAlignment();
    } catch (error) {
      this.#largePagesOff = false;
      throw error;
    }
  }

  enableLargePages(): void {
    this.#largePagesOff = false;
    this.#recalculateAlignment();
  }

  /** Cuts areas so that one ends at each of `lasts` (VFIO type 1). After iopt_cut_iova. */
  cut(lasts: readonly bigint[]): void {
    for (const last of lasts) {
      const area = this.areas.at(pageOf(last), offsetOf(last));
      if (area !== undefined) this.#split(area, last);
    }
  }

  /** What {@link destroy} of an IOAS does before it is freed. */
  destroy(): void {
    this.unmapAll();
    this.#allowed = [];
    this.reserved.removeOwner(undefined);
  }

  /** The IOVAs that a map is going to take. */
  #place(slices: readonly Slice[], { iova }: MapRequest): Span {
    const length = totalLength(slices);
    if (length === 0n || offsetOf(length) % this.#alignment !== 0) {
      throw new Errno(
        'EINVAL',
        `length ${hex(length)} is not a multiple of the IOVA alignment ${hex(this.#alignment)}`,
      );
    }
    if (iova === undefined) {
      const [first] = slices;
      // The alignment of a chosen IOVA follows the source.
      const address = first?.pages.addressOf(first) ?? 0n;
      const space = {
        areas: this.areas,
        reserved: this.reserved,
        allowed: this.#allowed,
        alignment: this.#alignment,
      };
      const chosen = allocIova(space, address, length);
      return spanOf(chosen, chosen + length - 1n);
    }
    return this.#checkFree(iova, length);
  }

  /** After iopt_check_iova. The allowed list is not asked: it limits only what is chosen automatically. */
  #checkFree(iova: bigint, length: bigint): Span {
    if (offsetOf(iova) % this.#alignment !== 0) {
      throw new Errno(
        'EINVAL',
        `IOVA ${hex(iova)} is not a multiple of the IOVA alignment ${hex(this.#alignment)}`,
      );
    }
    const span = spanFrom(iova, length);
    if (span === undefined) {
      throw new Errno('EOVERFLOW', `IOVA ${hex(iova)} + length ${hex(length)} wraps around`);
    }
    const reserved = this.reserved.firstOverlap(span);
    if (reserved !== undefined) {
      throw new Errno(
        'EINVAL',
        `${showSpan(span)} touches ${showSpan(reserved.span)}, reserved by ${reserved.why}`,
      );
    }
    const area = this.firstArea(span);
    if (area !== undefined) {
      throw new Errno('EEXIST', `${showSpan(span)} overlaps the mapped area ${String(area)}`);
    }
    return span;
  }

  /** The areas that slices become, one behind the other; EPERM, EINVAL. */
  #areasOf(slices: readonly Slice[], span: Span, prot: number): Area[] {
    const [only] = slices;
    // The usual case: a list of one that was made as such takes an eighth of what a list that grows does.
    if (only !== undefined && slices.length === 1) return [this.#areaOf(only, span, prot)];
    let next = firstOf(span);
    return slices.map((slice) => {
      const first = next;
      next += slice.length;
      return this.#areaOf(slice, spanOf(first, next - 1n), prot);
    });
  }

  /** After iopt_insert_area. */
  #areaOf(slice: Slice, span: Span, prot: number): Area {
    const { pages, offset } = slice;
    if ((prot & PROT_WRITE) !== 0 && !pages.writable) {
      throw new Errno('EPERM', 'the source was mapped read-only, it cannot be mapped writeable');
    }
    if (offset % this.#alignment !== 0) {
      throw new Errno(
        'EINVAL',
        `the source starts ${hex(offset)} bytes into a page, no multiple of the IOVA alignment ${hex(this.#alignment)}`,
      );
    }
    // The kernel's count of pages wraps (DIV_ROUND_UP in iopt_alloc_pages); it looks at it only now.
    if (
      pageOf(slice.length) >= ALL_PAGES - 2 &&
      slice.length + BigInt(offset + PAGE_SIZE - 1) > MAX_ADDRESS
    ) {
      throw new Errno('EOVERFLOW', `${hex(slice.length)} bytes are more pages than can be counted`);
    }
    return new Area(this, span, slice, prot);
  }

  /** Adds areas, shown by every domain; what filling answers, and nothing changed then. */
  #show(areas: readonly Area[]): void {
    for (const area of areas) this.areas.insert(area);
    if (this.domains.length === 0) return;
    try {
      for (const area of areas) area.fill(this.domains);
    } catch (error) {
      for (const area of areas) {
        area.unfill();
        this.areas.delete(area);
      }
      throw error;
    }
  }

  #removeArea(area: Area): void {
    area.unfill();
    this.areas.delete(area);
    area.pages.put();
  }

  #evictAccesses(area: Area): void {
    area.preventAccess = true;
    for (let tries = 0; area.accesses > 0; tries++) {
      if (tries >= UNMAP_TRIES) {
        throw new Errno('EDEADLK', `an access keeps pages of ${String(area)} pinned`);
      }
      for (const access of [...this.accesses]) access.onUnmap(firstOf(area), lastOf(area));
    }
  }

  #showIn(area: Area, domain: PagingDomain): void {
    if (!area.filled) {
      area.fill([domain]);
      return;
    }
    area.mapInto(domain);
  }

  /** Undoes {@link IoPagetable.#showIn}; `domain` is not in the list. */
  #hide(area: Area, domain: PagingDomain): void {
    domain.table.unmap(area);
    if (this.domains.length === 0) area.unfill();
  }

  #reserveOutside(domain: PagingDomain): void {
    const { first, last } = domain.geometry;
    if (first !== 0n) {
      this.reserve(spanOf(0n, first - 1n), domain, `the aperture of ${domain.name}`);
    }
    if (last !== MAX_ADDRESS) {
      this.reserve(spanOf(last + 1n, MAX_ADDRESS), domain, `the aperture of ${domain.name}`);
    }
  }

  #recalculateAlignment(): void {
    let alignment = this.#largePagesOff ? PAGE_SIZE : 1;
    for (const { minPageSize } of this.domains) alignment = Math.max(alignment, minPageSize);
    for (const access of this.accesses) alignment = Math.max(alignment, access.alignment);
    this.#checkAlignment(alignment);
    this.#alignment = alignment;
  }

  #checkAlignment(alignment: number): void {
    if (alignment <= this.#alignment) return;
    for (const area of this.areas) {
      if (area.isAligned(alignment)) continue;
      throw new Errno(
        'EADDRINUSE',
        `area ${String(area)} or its source is not aligned to ${hex(alignment)} bytes`,
      );
    }
  }

  /** After iopt_area_split: two areas over the same pages, the first ending at `last`. */
  #split(area: Area, last: bigint): void {
    const [start, end] = [firstOf(area), lastOf(area)];
    if (last === start || last === end) return;
    this.#checkSplit(area, last + 1n);
    this.faults.alloc('left area');
    this.faults.alloc('right area');
    if (area.accesses > 0)
      throw new Errno('EINVAL', `area ${String(area)} cannot be cut, an access uses it`);
    if (area.filled && !this.#largePagesOff) {
      throw new Errno(
        'EINVAL',
        `area ${String(area)} cannot be cut, a domain may map it with large pages`,
      );
    }
    const { pages, prot } = area;
    const cut = (first: bigint, to: bigint): Area => {
      const { index, offset } = area.byteAt(pageOf(first), offsetOf(first));
      return new Area(this, spanOf(first, to), { pages, index, offset }, prot);
    };
    const parts = [cut(start, last), cut(last + 1n, end)];
    this.areas.delete(area);
    pages.get();
    for (const part of parts) {
      part.inheritFill(area);
      this.areas.insert(part);
    }
    area.abandonFill();
  }

  #checkSplit(area: Area, newStart: bigint): void {
    if (area.preventAccess) throw new Errno('EBUSY', `area ${String(area)} is being unmapped`);
    if (area.pages.isDmaBuf) {
      throw new Errno('EOPNOTSUPP', `area ${String(area)} is a dma-buf, which cannot be cut`);
    }
    const { offset } = area.byteAt(pageOf(newStart), offsetOf(newStart));
    const alignment = BigInt(this.#alignment);
    if (newStart % alignment !== 0n || BigInt(offset) % alignment !== 0n) {
      throw new Errno(
        'EINVAL',
        `area ${String(area)} cannot be cut at ${hex(newStart)}, not aligned to ${hex(alignment)}`,
      );
    }
  }
}

function totalLength(slices: readonly Slice[]): bigint {
  const first = slices[0];
  if (first !== undefined && slices.length === 1) return first.length;
  return slices.reduce((sum, slice) => sum + slice.length, 0n);
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
