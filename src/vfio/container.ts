/**
 * VFIO's container: /dev/vfio/vfio. Groups join it, then SET_IOMMU picks what translates for all of them.
 *
 * A group that joins is claimed, with VFIO's group as owner: once, so a second container is refused EPERM. A container without
 * groups is unset: the last group that leaves takes the IOMMU driver with it. Container, groups and devices may be closed in any order;
 * groups keep the container alive.
 *
 * After drivers/vfio/container.c.
 */
import { Errno } from '../base/errno.ts';
import { claimGroup, releaseGroup } from '../iommu/ownership.ts';
import type { VfioGroup } from './group.ts';
import { supportsExtension, Type1 } from './type1.ts';

export class Container {
  /** newest first */
  readonly #groups: VfioGroup[] = [];
  #iommu: Type1 | undefined;

  get hasIommu(): boolean {
    return this.#iommu !== undefined;
  }

  get groups(): readonly VfioGroup[] {
    return this.#groups;
  }

  /**
   * SET_CONTAINER of a group: claim, then attach if SET_IOMMU was called.
   * @throws Errno EPERM if the group is in use, what blocking it throws, what attaching it throws; nothing is claimed then
   */
  attachGroup(group: VfioGroup): void {
    const { iommuGroup } = group;
    if (iommuGroup === undefined) throw new Error('a dead group joins no container');
    claimGroup(iommuGroup, group);
    try {
      this.#iommu?.attachGroup(iommuGroup);
    } catch (error) {
      releaseGroup(iommuGroup);
      throw error;
    }
    group.container = this;
    group.containerUsers = 1;
    this.#groups.unshift(group);
  }

  /** The group leaves. Cannot fail. */
  detachGroup(group: VfioGroup): void {
    const { iommuGroup } = group;
    if (iommuGroup === undefined) throw new Error('a dead group is in no container');
    this.#iommu?.detachGroup(iommuGroup);
    releaseGroup(iommuGroup);
    group.container = undefined;
    group.containerUsers = 0;
    this.#groups.splice(this.#groups.indexOf(group), 1);
    if (this.#groups.length === 0) {
      this.#iommu?.release();
      this.#iommu = undefined;
    }
  }

  /** CHECK_EXTENSION. */
  checkExtension(extension: number): number {
    return this.#iommu?.checkExtension(extension) ?? supportsExtension(extension);
  }

  /**
   * SET_IOMMU.
   * @throws Errno EINVAL without group or for a second time, ENODEV for a type that nobody has, what attaching throws
   */
  setIommu(type: number): void {
    if (this.#groups.length === 0) throw new Errno('EINVAL', 'the container has no group');
    if (this.#iommu !== undefined) throw new Errno('EINVAL', 'the container has its IOMMU already');
    if (supportsExtension(type) <= 0) {
      throw new Errno('ENODEV', `there is no VFIO IOMMU driver for type ${type}`);
    }
    const [first] = this.#groups;
    const iommu = new Type1(type, first?.vfio.unsafeInterrupts ?? false);
    for (const group of this.#groups) {
      if (group.iommuGroup === undefined) continue;
      try {
        iommu.attachGroup(group.iommuGroup);
      } catch (error) {
        iommu.detachAll();
        iommu.release();
        throw error;
      }
    }
    this.#iommu = iommu;
  }
}
