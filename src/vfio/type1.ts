/**
 * The type 1 IOMMU driver of a container, as far as ownership goes: which groups share which domain. Groups behind the same
 * kind of IOMMU with the same promise about cache coherency share one domain, so what is mapped reaches all of them.
 *
 * Not here: mapping. MAP_DMA and UNMAP_DMA of a real container come with its DMA map; an IOMMUFD as container has them.
 *
 * After drivers/vfio/vfio_iommu_type1.c (attach, detach, open, check_extension).
 */
import { Errno } from '../base/errno.ts';
import { attachSubgroup, detachSubgroup } from '../iommu/attach.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import type { Subgroup, IommuGroup } from '../iommu/group.ts';
import {
  __VFIO_RESERVED_TYPE1_NESTING_IOMMU,
  VFIO_DMA_CC_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
} from '../uapi/vfio.ts';

const OPENABLE = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, __VFIO_RESERVED_TYPE1_NESTING_IOMMU];
const ALWAYS = [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL];

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

export class Type1 {
  /** Version 2 refuses to cut mappings. */
  readonly v2: boolean;
  readonly #unsafeInterrupts: boolean;
  /** The container's domains, newest first; each has at least one group. */
  readonly domains: SharedDomain[] = [];

  /** @throws Errno EINVAL for an extension that is no IOMMU type */
  constructor(type: number, unsafeInterrupts: boolean) {
    if (!OPENABLE.includes(type)) throw new Errno('EINVAL', `${type} is no type of IOMMU`);
    this.v2 = type !== VFIO_TYPE1_IOMMU;
    this.#unsafeInterrupts = unsafeInterrupts;
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
   * @throws Errno EINVAL for a group that is in already, EPERM where interrupts can be forged, what allocating and attaching
   *   throw; the group then is on the blocking domain
   */
  attachGroup(group: IommuGroup): void {
    const device = group.firstMember;
    if (device === undefined) throw new Error(`group ${group.id} has no member`);
    if (this.domains.some(({ groups }) => groups.includes(group))) {
      throw new Errno('EINVAL', `group ${group.id} is in the container already`);
    }
    const { ops } = device;
    const domain = ops.allocPaging(device, { kind: 'unmanaged', flags: 0 });
    const coherent = ops.capable(device, 'enforce-cache-coherency');
    try {
      attachAll(group.subgroups, domain);
    } catch (error) {
      domain.free();
      throw error;
    }
    if (!this.#unsafeInterrupts) this.#refuseForgedInterrupts(group, domain);
    if (this.#joinCompatible(group, { ops, coherent })) domain.free();
    else this.domains.unshift({ domain, ops, coherent, groups: [group] });
  }

  #refuseForgedInterrupts(group: IommuGroup, domain: Domain): void {
    const culprit = group.members.find(({ isolatedMsi }) => !isolatedMsi);
    if (culprit === undefined) return;
    group.subgroups.forEach(detachSubgroup);
    domain.free();
    throw new Errno(
      'EPERM',
      `interrupts of ${culprit.name} are not isolated, so it could forge others`,
    );
  }

  // The group is on a domain of its own now; it moves if another one does as well.
  #joinCompatible(group: IommuGroup, kind: Pick<SharedDomain, 'ops' | 'coherent'>): boolean {
    const match = this.domains.find(
      ({ ops, coherent }) => ops === kind.ops && coherent === kind.coherent,
    );
    if (match === undefined) return false;
    const own = group.domain;
    group.subgroups.forEach(detachSubgroup);
    try {
      attachAll(group.subgroups, match.domain);
    } catch (error) {
      if (!(error instanceof Errno) || own === undefined) throw error;
      attachAll(group.subgroups, own);
      return false;
    }
    match.groups.unshift(group);
    return true;
  }

  /** Back to the blocking domain. Cannot fail. */
  detachGroup(group: IommuGroup): void {
    const index = this.domains.findIndex(({ groups }) => groups.includes(group));
    const shared = this.domains[index];
    if (shared === undefined) return;
    group.subgroups.forEach(detachSubgroup);
    shared.groups.splice(shared.groups.indexOf(group), 1);
    if (shared.groups.length > 0) return;
    shared.domain.free();
    this.domains.splice(index, 1);
  }

  detachAll(): void {
    for (const group of this.domains.flatMap(({ groups }) => groups)) this.detachGroup(group);
  }

  /** The container is unset. All groups have left. */
  release(): void {
    this.domains.length = 0;
  }
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
