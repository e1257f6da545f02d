/**
 * Opening a device, from its own node or from its group, and what ownership has to do with it.
 *
 * Ownership brackets access: claim, then the driver's open_device, then access; and back in the opposite order. A device node
 * may be opened by many and bound by one; through a group all files of a device share one open.
 *
 * After drivers/vfio/device_cdev.c, vfio_df_open and vfio_df_close of drivers/vfio/vfio_main.c, and vfio_df_group_open of
 * drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import { blockGroup, requireIommu, unblockGroup, unuseContainer, useContainer } from './group.ts';
import { attachPt, bindIommufd, unbindIommufd, type IommufdContext } from './iommufd.ts';
import { requireRawIo } from './noiommu.ts';
import { getRegistration, putRegistration } from './registration.ts';
import type { DeviceOpen, VfioDevice, VfioGroup } from './state.ts';

/** open of a device node: no access yet, and any number of them. ENODEV while unregistering, and without a node. */
export function openNode(device: VfioDevice): DeviceOpen {
  if (device.group.noIommu) {
    throw new Errno(
      'ENODEV',
      `${device.iommu.name} has no IOMMU: it opens through its group alone`,
    );
  }
  getRegistration(device);
  return { device, group: undefined, accessGranted: false, iommufd: undefined };
}

/**
 * BIND_IOMMUFD: claims the device's group for the context and grants access.
 * @param context how the context is found, asked after the checks that come before it
 * @returns the device's ID in the context
 * @throws Errno EINVAL for a group's file, a bound file or a device that another file has open; EBUSY while the group
 *   file is open; the token's, the claim's and the driver's errors; the file can be bound again then
 */
export function bindNode(
  open: DeviceOpen,
  context: () => IommufdContext,
  token?: () => Uint8Array | undefined,
): number {
  const { device } = open;
  if (open.group !== undefined) {
    throw new Errno('EINVAL', `${device.iommu.name} was opened through its group`);
  }
  blockGroup(device.group);
  try {
    bindBlocked(open, context, token);
  } catch (error) {
    unblockGroup(device.group);
    throw error;
  }
  device.cdevOpened = true;
  open.accessGranted = true;
  return device.binding?.id ?? 0;
}

function bindBlocked(
  open: DeviceOpen,
  context: () => IommufdContext,
  token: (() => Uint8Array | undefined) | undefined,
): void {
  const { device } = open;
  if (open.accessGranted) {
    throw new Errno('EINVAL', `this file of ${device.iommu.name} is bound already`);
  }
  device.ops.matchToken?.(device, token?.());
  open.iommufd = context();
  try {
    openShared(open);
  } catch (error) {
    open.iommufd = undefined;
    throw error;
  }
}

/** Undoes {@link bindNode}. */
export function unbindNode(open: DeviceOpen): void {
  if (!open.accessGranted) return;
  const { device } = open;
  open.accessGranted = false;
  closeShared(open);
  open.iommufd = undefined;
  device.cdevOpened = false;
  unblockGroup(device.group);
}

/** EINVAL before access: what every call but BIND_IOMMUFD begins with. */
export function requireAccess({ accessGranted, device }: DeviceOpen): void {
  if (accessGranted) return;
  throw new Errno('EINVAL', `${device.iommu.name} is not bound to an IOMMUFD yet`);
}

/** GET_DEVICE_FD, once the device is found. ENODEV while unregistering, EINVAL without IOMMU; the errors of the first open. */
export function openThroughGroup(group: VfioGroup, device: VfioDevice, rawIo = true): DeviceOpen {
  getRegistration(device);
  const open: DeviceOpen = { device, group, accessGranted: false, iommufd: undefined };
  try {
    openWithAccess(open, group, rawIo);
  } catch (error) {
    putRegistration(device);
    throw error;
  }
  return open;
}

function openWithAccess(open: DeviceOpen, group: VfioGroup, rawIo: boolean): void {
  const { device } = open;
  requireIommu(group);
  open.iommufd = group.iommufd;
  if (group.noIommu && open.iommufd !== undefined && device.openCount === 0) {
    requireRawIo(rawIo, `opening ${device.iommu.name}`);
    refuseCompatIoas(open.iommufd);
  }
  openShared(open, rawIo);
  if (open.iommufd !== undefined && device.openCount === 1 && !group.noIommu) {
    try {
      attachPt(device, open.iommufd.compatIoasId());
    } catch (error) {
      closeShared(open);
      throw error;
    }
  }
  open.accessGranted = true;
}

// What a program maps into an IOAS would be translated, it might think.
function refuseCompatIoas(context: IommufdContext): void {
  if (!context.hasCompatIoas()) return;
  throw new Errno(
    'EPERM',
    'the IOMMUFD has an IOAS for containers, which does nothing without IOMMU',
  );
}

/** One more open of the device; the first one claims and enables it. */
function openShared(open: DeviceOpen, rawIo = true): void {
  const { device } = open;
  if (device.openCount !== 0 && open.group === undefined) {
    throw new Errno('EINVAL', `${device.iommu.name} is open through another file`);
  }
  if (device.openCount === 0) firstOpen(open, rawIo);
  device.openCount++;
}

function firstOpen(open: DeviceOpen, rawIo: boolean): void {
  const { device } = open;
  if (open.iommufd === undefined) {
    if (open.group !== undefined) useContainer(open.group, rawIo);
  } else if (!isBare(open)) {
    bindIommufd(device, open.iommufd);
  }
  try {
    device.ops.openDevice?.(device);
  } catch (error) {
    dropIommu(open);
    throw error;
  }
}

function dropIommu(open: DeviceOpen): void {
  const { device, group, iommufd } = open;
  if (iommufd === undefined) {
    if (group !== undefined) unuseContainer(group);
  } else if (!isBare(open)) {
    unbindIommufd(device);
  }
}

/** A no-iommu device that is open through its group is bound to nothing. */
function isBare({ group }: DeviceOpen): boolean {
  return group?.noIommu === true;
}

/** The last close quiesces the device, then gives the claim back. */
function closeShared(open: DeviceOpen): void {
  const { device } = open;
  if (device.openCount === 1) {
    device.ops.closeDevice?.(device);
    dropIommu(open);
  }
  device.openCount--;
}

/** The file is closed. */
export function closeDevice(open: DeviceOpen): void {
  if (open.group === undefined) unbindNode(open);
  else {
    closeShared(open);
    open.iommufd = undefined;
  }
  putRegistration(open.device);
}
