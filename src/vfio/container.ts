/**
 * VFIO's container: /dev/vfio/vfio. Groups join it, then SET_IOMMU picks what translates for all of them.
 *
 * A group that joins is claimed, with VFIO's group as owner: once, so a second container is refused EPERM. A container without
 * groups is unset: the last group that leaves takes the IOMMU driver with it. Container, groups and devices may be closed in any order;
 * groups keep the container alive.
 *
 * Two IOMMU drivers are there: type 1, and the one of no-iommu groups, of which nothing is claimed because nothing is translated.
 * Where a call needs CAP_SYS_RAWIO the caller says whether it has it.
 *
 * After drivers/vfio/container.c.
 */
import { Errno } from '../base/errno.ts';
import { remove } from '../base/list.ts';
import { claimGroup, releaseGroup } from '../iommu/ownership.ts';
import type { VfioCall } from '../uapi/vfio-ioctls.ts';
import { NoIommu, noIommuExtension, requireRawIo } from './noiommu.ts';
import type { Container, ContainerIommu, VfioGroup } from './state.ts';
import { supportsExtension, Type1 } from './type1/type1.ts';

/**
 * SET_CONTAINER of a group: claim, then attach if SET_IOMMU was called.
 * @throws Errno EPERM if the group is in use, or where groups with and without IOMMU would mix; what blocking it throws, what
 *   attaching it throws; nothing is claimed then
 */
export function joinContainer(container: Container, group: VfioGroup, rawIo = true): void {
  const { iommuGroup, noIommu } = group;
  if (iommuGroup === undefined) throw new Error('a dead group joins no container');
  if (noIommu) requireRawIo(rawIo, 'a container for a group');
  const [present] = container.groups;
  if (present !== undefined && present.noIommu !== noIommu) {
    throw new Errno('EPERM', 'groups with and without IOMMU do not mix in a container');
  }
  if (!noIommu) claimGroup(iommuGroup, group);
  try {
    container.iommu?.attachGroup(iommuGroup);
  } catch (error) {
    if (!noIommu) releaseGroup(iommuGroup);
    throw error;
  }
  group.container = container;
  group.containerUsers = 1;
  container.groups.unshift(group);
}

/** The group leaves its container, if it is in one. Cannot fail. */
export function leaveContainer(group: VfioGroup): void {
  const { iommuGroup, container, noIommu } = group;
  if (container === undefined) return;
  if (iommuGroup === undefined) throw new Error('a dead group is in no container');
  container.iommu?.detachGroup(iommuGroup);
  if (!noIommu) releaseGroup(iommuGroup);
  group.container = undefined;
  group.containerUsers = 0;
  remove(container.groups, group);
  if (container.groups.length > 0) return;
  container.iommu?.release();
  container.iommu = undefined;
}

/** CHECK_EXTENSION: of the driver that is set; else of those that the groups allow, all of them without groups. */
export function checkExtension(container: Container, extension: number): number {
  const { iommu, groups, parameters } = container;
  if (iommu !== undefined) return iommu.checkExtension(extension);
  const [first] = groups;
  const type1 = first?.noIommu === true ? 0 : supportsExtension(extension);
  if (type1 > 0 || first?.noIommu === false) return type1;
  return noIommuExtension(extension, parameters.noIommu);
}

/**
 * SET_IOMMU.
 * @throws Errno EINVAL without group or for a second time, ENODEV for a type that no driver has, EPERM for no-iommu without
 *   CAP_SYS_RAWIO, what attaching throws
 */
export function setIommu(container: Container, type: number, rawIo = true): void {
  const [first] = container.groups;
  if (first === undefined) throw new Errno('EINVAL', 'the container has no group');
  if (container.iommu !== undefined) {
    throw new Errno('EINVAL', 'the container has its IOMMU already');
  }
  const iommu = driverFor(first, { type, rawIo });
  const attached: VfioGroup[] = [];
  for (const group of container.groups) {
    if (group.iommuGroup === undefined) continue;
    try {
      iommu.attachGroup(group.iommuGroup);
    } catch (error) {
      for (const each of attached.reverse()) {
        if (each.iommuGroup !== undefined) iommu.detachGroup(each.iommuGroup);
      }
      iommu.release();
      throw error;
    }
    attached.push(group);
  }
  container.iommu = iommu;
}

function driverFor(
  { noIommu, table }: VfioGroup,
  { type, rawIo }: { readonly type: number; readonly rawIo: boolean },
): ContainerIommu {
  const { parameters } = table;
  if (noIommu && noIommuExtension(type, parameters.noIommu) > 0) {
    requireRawIo(rawIo, `IOMMU type ${type}`);
    return new NoIommu(parameters);
  }
  if (noIommu || supportsExtension(type) <= 0) {
    const which = noIommu ? 'a container of no-iommu groups' : 'a container';
    throw new Errno('ENODEV', `${which} has no VFIO IOMMU driver for type ${type}`);
  }
  return new Type1(type, table);
}

/** Calls that the container leaves to its IOMMU driver. EINVAL before SET_IOMMU. */
export function driverIoctl({ iommu }: Container, call: VfioCall): number {
  if (iommu === undefined) throw new Errno('EINVAL', 'SET_IOMMU has not been called');
  return iommu.ioctl(call);
}
