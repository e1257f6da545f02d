/**
 * VFIO's group: the older interface. One file per group, /dev/vfio/GROUP, gives out the group's devices once a container, or an
 * IOMMUFD in its place, stands behind it.
 *
 * Exclusion: a group file and the device nodes of its members do not go together, whoever is first (EBUSY). A container
 * claims the group when it is set, with the VFIO group as owner; an IOMMUFD claims per device when the device is opened, so
 * VIABLE may be reported although GET_DEVICE_FD then fails.
 *
 * References: in container mode every first open of a device holds the group file, which therefore outlives its last
 * descriptor; in IOMMUFD mode nothing does, and the file can be opened anew while devices stay open.
 *
 * After drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import type { IommuGroup } from '../iommu/group.ts';
import { isClaimed } from '../iommu/ownership.ts';
import { joinContainer, leaveContainer } from './container.ts';
import type { IommufdContext } from './iommufd.ts';
import { requireRawIo } from './noiommu.ts';
import { deviceName, type Container, type GroupOpen, type VfioGroup } from './state.ts';

function hasIommu({ container, iommufd }: VfioGroup): boolean {
  return container !== undefined || iommufd !== undefined;
}

function alive({ iommuGroup, nodeName }: VfioGroup): IommuGroup {
  if (iommuGroup === undefined) {
    throw new Errno('ENODEV', `the last VFIO device of group ${nodeName} is gone`);
  }
  return iommuGroup;
}

// The rule is asked here for both directions.
function pathsExclude({ iommuGroup }: VfioGroup): boolean {
  return iommuGroup?.enforces('paths-exclude') !== false;
}

/**
 * open of the node. ENODEV without devices; EPERM for no-iommu without CAP_SYS_RAWIO; EBUSY with a device node bound or the file
 * open.
 */
export function openGroup(group: VfioGroup, rawIo = true): GroupOpen {
  const { nodeName, devices, drivers, cdevOpenCount } = group;
  if (drivers === 0) throw new Errno('ENODEV', `group ${nodeName} has no VFIO device any more`);
  if (group.noIommu) requireRawIo(rawIo, `opening group ${nodeName}`);
  if (cdevOpenCount > 0 && pathsExclude(group)) {
    const bound = devices.filter(({ cdevOpened }) => cdevOpened);
    const names = bound.map((device) => `${device.iommu.name} (${deviceName(device)})`).join(', ');
    throw new Errno('EBUSY', `${names} of group ${nodeName} is bound by its device node`);
  }
  if (group.opened !== undefined) throw new Errno('EBUSY', `group ${nodeName} is open already`);
  group.opened = { group, references: 1 };
  return group.opened;
}

/** A descriptor or a device of a group file is gone. With the last one, what stands behind the group is given back. */
export function putGroupFile(open: GroupOpen): void {
  open.references--;
  if (open.references > 0) return;
  const { group } = open;
  leaveContainer(group);
  dropIommufd(group);
  group.opened = undefined;
}

/** For a device node that is being bound: EBUSY while the group file is open. */
export function blockGroup(group: VfioGroup): void {
  if (group.opened !== undefined && pathsExclude(group)) {
    throw new Errno('EBUSY', `the group file /dev/vfio/${group.nodeName} is open`);
  }
  group.cdevOpenCount++;
}

export function unblockGroup(group: VfioGroup): void {
  group.cdevOpenCount--;
}

/** SET_CONTAINER with a container. EINVAL if something is set, ENODEV for a dead group, EPERM and more from the claim. */
export function setContainer(group: VfioGroup, container: Container, rawIo = true): void {
  refuseSecondIommu(group);
  joinContainer(container, group, rawIo);
}

/** SET_CONTAINER with an IOMMUFD. Nothing is claimed yet. */
export function setIommufd(group: VfioGroup, context: IommufdContext): void {
  refuseSecondIommu(group);
  if (group.noIommu) context.setNoIommuMode();
  else context.createCompatIoas();
  context.get();
  group.iommufd = context;
}

export function refuseSecondIommu(group: VfioGroup): void {
  if (hasIommu(group)) {
    throw new Errno('EINVAL', `group ${group.nodeName} has a container already`);
  }
  alive(group);
}

/** UNSET_CONTAINER. EINVAL if nothing is set, EBUSY while devices are open through the container. */
export function unsetContainer(group: VfioGroup): void {
  const { nodeName, container, containerUsers } = group;
  if (!hasIommu(group)) throw new Errno('EINVAL', `group ${nodeName} has no container`);
  if (container !== undefined && containerUsers !== 1) {
    throw new Errno('EBUSY', `${containerUsers - 1} device(s) are open through group ${nodeName}`);
  }
  leaveContainer(group);
  dropIommufd(group);
}

function dropIommufd(group: VfioGroup): void {
  group.iommufd?.put();
  group.iommufd = undefined;
}

/** GET_STATUS. */
export function groupStatus(group: VfioGroup): {
  readonly viable: boolean;
  readonly containerSet: boolean;
} {
  const iommuGroup = alive(group);
  const containerSet = hasIommu(group);
  return { viable: containerSet || !isClaimed(iommuGroup), containerSet };
}

/** EINVAL as long as neither container nor IOMMUFD is set. */
export function requireIommu(group: VfioGroup): void {
  if (hasIommu(group)) return;
  throw new Errno('EINVAL', `group ${group.nodeName} has neither container nor IOMMUFD`);
}

/** A first open in container mode. EINVAL before SET_IOMMU, EPERM for no-iommu without CAP_SYS_RAWIO. */
export function useContainer(group: VfioGroup, rawIo = true): void {
  const { container, opened, nodeName } = group;
  if (container === undefined || opened === undefined) {
    throw new Error(`group ${nodeName} has no container to use`);
  }
  if (container.iommu === undefined) {
    throw new Errno(
      'EINVAL',
      `SET_IOMMU has not been called on the container of group ${nodeName}`,
    );
  }
  if (group.noIommu) requireRawIo(rawIo, `opening a device of group ${nodeName}`);
  opened.references++;
  group.containerUsers++;
}

export function unuseContainer(group: VfioGroup): void {
  group.containerUsers--;
  if (group.opened !== undefined) putGroupFile(group.opened);
}

/** The last device has left. */
export function abandonGroup(group: VfioGroup): void {
  leaveContainer(group);
  group.iommuGroup?.put();
  group.iommuGroup = undefined;
}
