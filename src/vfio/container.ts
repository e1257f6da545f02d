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
import { remove } from '../base/list.ts';
import { claimGroup, releaseGroup } from '../iommu/ownership.ts';
import type { Container, VfioGroup } from './state.ts';
import { supportsExtension, Type1 } from './type1/type1.ts';

/**
 * SET_CONTAINER of a group: claim, then attach if SET_IOMMU was called.
 * @throws Errno EPERM if the group is in use, what blocking it throws, what attaching it throws; nothing is claimed then
 */
export function joinContainer(container: Container, group: VfioGroup): void {
  const { iommuGroup } = group;
  if (iommuGroup === undefined) throw new Error('a dead group joins no container');
  claimGroup(iommuGroup, group);
  try {
    container.iommu?.attachGroup(iommuGroup);
  } catch (error) {
    releaseGroup(iommuGroup);
    throw error;
  }
  group.container = container;
  group.containerUsers = 1;
  container.groups.unshift(group);
}

/** The group leaves its container, if it is in one. Cannot fail. */
export function leaveContainer(group: VfioGroup): void {
  const { iommuGroup, container } = group;
  if (container === undefined) return;
  if (iommuGroup === undefined) throw new Error('a dead group is in no container');
  container.iommu?.detachGroup(iommuGroup);
  releaseGroup(iommuGroup);
  group.container = undefined;
  group.containerUsers = 0;
  remove(container.groups, group);
  if (container.groups.length > 0) return;
  container.iommu?.release();
  container.iommu = undefined;
}

/** CHECK_EXTENSION. */
export function checkExtension({ iommu }: Container, extension: number): number {
  return iommu?.checkExtension(extension) ?? supportsExtension(extension);
}

/**
 * SET_IOMMU.
 * @throws Errno EINVAL without group or for a second time, ENODEV for a type that no driver has, what attaching throws
 */
export function setIommu(container: Container, type: number): void {
  const [first] = container.groups;
  if (first === undefined) throw new Errno('EINVAL', 'the container has no group');
  if (container.iommu !== undefined) {
    throw new Errno('EINVAL', 'the container has its IOMMU already');
  }
  if (supportsExtension(type) <= 0) {
    throw new Errno('ENODEV', `there is no VFIO IOMMU driver for type ${type}`);
  }
  const iommu = new Type1(type, first.table.type1);
  for (const { iommuGroup } of container.groups) {
    if (iommuGroup === undefined) continue;
    try {
      iommu.attachGroup(iommuGroup);
    } catch (error) {
      iommu.detachAll();
      iommu.release();
      throw error;
    }
  }
  container.iommu = iommu;
}
