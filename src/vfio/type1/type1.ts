/**
 * The type 1 IOMMU driver of a container: the domains of its groups, and the mappings that all of them show.
 *
 * Groups behind the same kind of IOMMU with the same promise about cache coherency share one domain. A group that comes late gets
 * every mapping there is, or is refused because of one: its IOMMU translates fewer IOVAs, or a device of it has a reserved region
 * there. When a domain's last group leaves, the domain goes; with the last domain all mappings go, because a group's ownership is
 * what entitles a container to pin memory.
 *
 * Not here: emulated devices (mediated ones, which pin pages themselves); no driver of a machine has any.
 *
 * Invariants: {@link DmaMapping}'s; every domain has at least one group; `iovas` is what apertures and reserved regions of the
 * groups leave.
 *
 * After drivers/vfio/vfio_iommu_type1.c (attach_group, detach_group, open, release, check_extension).
 */
import { Errno } from '../../base/errno.ts';
import { hex, showSpan, spanOf } from '../../base/position.ts';
import { RangeMap } from '../../base/range-map.ts';
import { attachSubgroup, detachSubgroup } from '../../iommu/attach.ts';
import type { Domain, IommuDevice } from '../../iommu/domain.ts';
import type { IommuGroup, Subgroup } from '../../iommu/group.ts';
import { PagingDomain } from '../../iommu/paging-domain.ts';
import { groupReservedRegions } from '../../iommu/reserved-regions.ts';
import type { Pinning } from '../../pinning/pages.ts';
import {
  __VFIO_RESERVED_TYPE1_NESTING_IOMMU,
  VFIO_DMA_CC_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
} from '../../uapi/vfio.ts';
import type { VfioCall } from '../../uapi/vfio-ioctls.ts';
import type { ContainerIommu, VfioParameters, VfioTable } from '../state.ts';
import { removeDma, type DmaMapping } from './dma.ts';
import { TYPE1_IOCTLS } from './ioctls.ts';
import { isExcluded, withinAperture, withoutRegions, type IovaRange } from './iova-list.ts';

const OPENABLE = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, __VFIO_RESERVED_TYPE1_NESTING_IOMMU];
const ALWAYS = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL];
const PAGE = 4096n;
const EVERYTHING: IovaRange = { first: 0n, last: 2n ** 64n - 1n };

/** What CHECK_EXTENSION says before there is a driver. */
export function supportsExtension(extension: number): number {
  return ALWAYS.includes(extension) ? 1 : 0;
}

/** A domain of a container, and the groups on it. */
export type SharedDomain = {
  readonly domain: Domain;
  readonly ops: IommuDevice['ops'];
  readonly coherent: boolean;
  readonly groups: IommuGroup[];
};

export class Type1 implements ContainerIommu {
  /** Version 2 refuses to cut mappings. */
  readonly v2: boolean;
  readonly pinning: Pinning;
  /** The container's domains, newest first; each has at least one group. */
  readonly domains: SharedDomain[] = [];
  readonly dmas = new RangeMap<DmaMapping>();
  /** mappings that can still be made */
  entriesLeft: number;
  /** mappings without valid address */
  invalidCount = 0;
  tracksDirty = false;
  /** what can be mapped; empty before the first group */
  iovas: readonly IovaRange[] = [];
  /** what all domains can map with one entry, a bit for each size; parts of a page count as a page */
  pageSizes = ~(PAGE - 1n) & EVERYTHING.last;
  readonly #parameters: VfioParameters;

  /** @throws Errno EINVAL for an extension that is not an IOMMU type */
  constructor(type: number, { parameters, pinning }: Pick<VfioTable, 'parameters' | 'pinning'>) {
    if (!OPENABLE.includes(type)) throw new Errno('EINVAL', `${type} is not an IOMMU type`);
    this.v2 = type !== VFIO_TYPE1_IOMMU;
    this.#parameters = parameters;
    this.pinning = pinning;
    this.entriesLeft = parameters.entryLimit;
  }

  /** disable_hugepages: mappings get leaves of a page only. */
  get smallPages(): boolean {
    return this.#parameters.smallPages;
  }

  /** Domains that have page tables: all, but for the IOMMUs without any that tests use. */
  get pagingDomains(): PagingDomain[] {
    return this.domains.flatMap(({ domain }) => (domain instanceof PagingDomain ? domain : []));
  }

  /** Smallest size that can be mapped, in bytes. */
  get pageSize(): bigint {
    return this.pageSizes & -this.pageSizes;
  }

  /** Pages of 4 KiB for each bit of a dirty bitmap. */
  get pagesPerBit(): number {
    return Number(this.pageSize / PAGE);
  }

  checkExtension(extension: number): number {
    if (extension === VFIO_UPDATE_VADDR) return 1;
    if (extension === VFIO_DMA_CC_IOMMU) {
      return this.domains.every(({ coherent }) => coherent) ? 1 : 0;
    }
    return supportsExtension(extension);
  }

  /**
   * Takes a claimed group up.
   * @throws Errno EBUSY while a mapping has no valid address, EINVAL for a group that is in already and for one whose aperture or
   *   reserved regions conflict with mappings, EPERM where interrupts can be forged, what allocating and attaching throw; the
   *   group then is on the blocking domain
   */
  attachGroup(group: IommuGroup): void {
    if (this.invalidCount > 0) {
      throw new Errno(
        'EBUSY',
        `${this.invalidCount} mapping(s) have no valid address (VFIO_DMA_UNMAP_FLAG_VADDR)`,
      );
    }
    if (this.domains.some(({ groups }) => groups.includes(group))) {
      throw new Errno('EINVAL', `group ${group.id} is in the container already`);
    }
    const device = group.firstMember;
    if (device === undefined) throw new Error(`group ${group.id} has no member`);
    const { ops } = device;
    const domain = ops.allocPaging(device, { kind: 'unmanaged', flags: 0 });
    try {
      attachAll(group.subgroups, domain);
    } catch (error) {
      domain.free();
      throw error;
    }
    const coherent = ops.capable(device, 'enforce-cache-coherency');
    try {
      const iovas = this.#iovasWith(group, domain);
      if (!this.#parameters.unsafeInterrupts) refuseForgedInterrupts(group);
      if (this.#joinCompatible(group, { ops, coherent })) domain.free();
      else this.#add({ domain, ops, coherent, groups: [group] });
      this.iovas = iovas;
    } catch (error) {
      group.subgroups.forEach(detachSubgroup);
      domain.free();
      throw error;
    }
  }

  /** The valid ranges once `group` is in, with `domain`. EINVAL where that contradicts what is mapped. */
  #iovasWith(group: IommuGroup, domain: Domain): readonly IovaRange[] {
    const aperture = apertureOf(domain);
    this.#refuseSmallerAperture(domain, aperture);
    const regions = groupReservedRegions(group);
    for (const { start, last, type } of regions.filter(isExcluded)) {
      const there = this.#mappingIn(start, last);
      if (there === undefined) continue;
      throw new Errno(
        'EINVAL',
        `the mapping ${showSpan(there)} is in a region of group ${group.id} that is reserved (${type}): ${hex(start)}-${hex(last)}`,
      );
    }
    return withoutRegions(withinAperture(this.iovas, aperture), regions);
  }

  #refuseSmallerAperture({ name }: Domain, { first, last }: IovaRange): void {
    const lowest = this.iovas[0];
    const highest = this.iovas.at(-1);
    if (lowest === undefined || highest === undefined) return;
    const translates = `${name} translates ${hex(first)}-${hex(last)}`;
    if (first > highest.last || last < lowest.first) {
      throw new Errno('EINVAL', `${translates}, the container others only`);
    }
    const there =
      (first > lowest.first ? this.#mappingIn(lowest.first, first - 1n) : undefined) ??
      (last < highest.last ? this.#mappingIn(last + 1n, highest.last) : undefined);
    if (there === undefined) return;
    throw new Errno('EINVAL', `${translates}, the mapping ${showSpan(there)} is beyond`);
  }

  #mappingIn(first: bigint, last: bigint): DmaMapping | undefined {
    const { firstPage, firstOffset, lastPage, lastOffset } = spanOf(first, last);
    return this.dmas.firstOverlap(firstPage, firstOffset, lastPage, lastOffset);
  }

  // The group is on a domain of its own now; it moves if another one does as well.
  #joinCompatible(group: IommuGroup, kind: Pick<SharedDomain, 'ops' | 'coherent'>): boolean {
    for (const shared of this.domains) {
      if (shared.ops !== kind.ops || shared.coherent !== kind.coherent) continue;
      const own = group.domain;
      group.subgroups.forEach(detachSubgroup);
      try {
        attachAll(group.subgroups, shared.domain);
      } catch (error) {
        if (!(error instanceof Errno) || own === undefined) throw error;
        attachAll(group.subgroups, own);
        continue;
      }
      shared.groups.unshift(group);
      return true;
    }
    return false;
  }

  /** A domain more: everything that is mapped is shown in it too. */
  #add(shared: SharedDomain): void {
    const { domain } = shared;
    if (domain instanceof PagingDomain) {
      for (const dma of this.dmas) dma.mapInto(domain, this.smallPages);
    }
    this.domains.unshift(shared);
    this.#updatePageSizes();
  }

  #updatePageSizes(): void {
    let sizes = EVERYTHING.last;
    for (const { pageSizes } of this.pagingDomains) sizes &= pageSizes;
    if ((sizes & (PAGE - 1n)) !== 0n) sizes = (sizes & ~(PAGE - 1n)) | PAGE;
    this.pageSizes = sizes;
  }

  /** Back to the blocking domain. Cannot fail. */
  detachGroup(group: IommuGroup): void {
    const index = this.domains.findIndex(({ groups }) => groups.includes(group));
    const shared = this.domains[index];
    if (shared === undefined) return;
    group.subgroups.forEach(detachSubgroup);
    shared.groups.splice(shared.groups.indexOf(group), 1);
    if (shared.groups.length === 0) {
      if (this.domains.length === 1) this.#removeAll();
      this.domains.splice(index, 1);
      shared.domain.free();
      this.#updatePageSizes();
    }
    this.#refreshIovas();
  }

  /** What the groups that are left can map. */
  #refreshIovas(): void {
    if (this.domains.length === 0) {
      this.iovas = [];
      return;
    }
    let ranges: readonly IovaRange[] = [];
    for (const { domain } of this.domains) ranges = withinAperture(ranges, apertureOf(domain));
    const groups = this.domains.flatMap((shared) => shared.groups);
    this.iovas = withoutRegions(ranges, groups.flatMap(groupReservedRegions));
  }

  #removeAll(): void {
    for (const dma of [...this.dmas]) removeDma(this, dma);
  }

  ioctl(call: VfioCall): number {
    return TYPE1_IOCTLS.execute(this, call);
  }

  /** The container is unset. All groups have left, and everything that was mapped with them. */
  release(): void {
    this.#removeAll();
    this.domains.length = 0;
  }
}

function apertureOf(domain: Domain): IovaRange {
  return domain instanceof PagingDomain ? domain.geometry : EVERYTHING;
}

function refuseForgedInterrupts(group: IommuGroup): void {
  const culprit = group.members.find(({ isolatedMsi }) => !isolatedMsi);
  if (culprit === undefined) return;
  throw new Errno(
    'EPERM',
    `interrupts of ${culprit.name} are not isolated, so it could forge others`,
  );
}

function attachAll(subgroups: readonly Subgroup[], domain: Domain): void {
  const done: Subgroup[] = [];
  for (const subgroup of subgroups) {
    try {
      attachSubgroup(subgroup, domain);
    } catch (error) {
      done.forEach(detachSubgroup);
      throw error;
    }
    done.push(subgroup);
  }
}
