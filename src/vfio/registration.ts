/**
 * Registration: a driver offers its device to user space, and takes it back.
 *
 * References: a registration is held by the driver and by each open file of the device. Unregistering takes the nodes away
 * at once, asks the users to go, and completes when the last file is closed: that is why unbinding a driver that user
 * space works through waits. A VFIO group lives while it has devices and pins its IOMMU group as long.
 *
 * After vfio_register_group_dev, vfio_unregister_group_dev and vfio_device_put_registration of drivers/vfio/vfio_main.c, and
 * vfio_device_set_group, vfio_device_remove_group of drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import { remove } from '../base/list.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import { addUntranslated, removeUntranslated, type IommuGroup } from '../iommu/group.ts';
import { mustBeAlone } from '../iommu/ownership.ts';
import { abandonGroup } from './group.ts';
import {
  newDevice,
  newGroup,
  type VfioDevice,
  type VfioDeviceOps,
  type VfioEvent,
  type VfioGroup,
  type VfioTable,
} from './state.ts';

/**
 * A driver offers its device to user space.
 * @throws Errno EINVAL without IOMMU group (unless no-iommu mode makes one up), or behind an IOMMU that does not keep caches
 *   coherent
 */
export function register(table: VfioTable, iommu: IommuDevice, ops: VfioDeviceOps): VfioDevice {
  const iommuGroup = iommu.group ?? makeUp(table, iommu);
  if (!iommuGroup.untranslated && !iommu.ops.capable(iommu, 'cache-coherency')) {
    throw new Errno('EINVAL', `DMA of ${iommu.name} is not coherent with caches`);
  }
  const free = table.devices.indexOf(undefined);
  const index = free < 0 ? table.devices.length : free;
  const group = groupOf(table, iommuGroup);
  const device = newDevice(index, { iommu, group }, ops);
  table.devices[index] = device;
  group.devices.unshift(device);
  group.drivers++;
  notify(table, { action: 'add', device });
  return device;
}

/** A group for a device without one. EINVAL unless no-iommu mode is on. */
function makeUp({ iommuGroups, parameters }: VfioTable, iommu: IommuDevice): IommuGroup {
  if (iommuGroups === undefined || !parameters.noIommu) {
    throw new Errno('EINVAL', `${iommu.name} has no IOMMU group, so it cannot be assigned`);
  }
  return addUntranslated(iommuGroups, iommu);
}

function groupOf(table: VfioTable, iommuGroup: IommuGroup): VfioGroup {
  const found = table.groups.find((group) => group.iommuGroup === iommuGroup);
  if (found !== undefined) return found;
  const group = newGroup(table, iommuGroup.ref());
  table.groups.push(group);
  notify(table, { action: 'add', group });
  return group;
}

function notify({ listeners }: VfioTable, event: VfioEvent): void {
  for (const listener of listeners) listener(event);
}

/**
 * The driver takes the device back. Its nodes are gone on return.
 * @param whenIdle called once the last open file is closed, at once if there is none
 */
export function unregister(device: VfioDevice, whenIdle: () => void): void {
  const { group } = device;
  remove(group.devices, device);
  device.whenIdle = whenIdle;
  notify(group.table, { action: 'remove', device });
  device.users--;
  if (device.users > 0 && group.iommuGroup?.enforces('unbind-waits-for-users') !== false) {
    device.ops.request?.(device);
  } else {
    complete(device);
  }
}

function complete(device: VfioDevice): void {
  const { group, whenIdle } = device;
  const { table } = group;
  device.whenIdle = undefined;
  table.devices[device.index] = undefined;
  if (group.noIommu) removeUntranslated(device.iommu);
  group.drivers--;
  if (group.drivers === 0) {
    remove(table.groups, group);
    abandonGroup(group);
    notify(table, { action: 'remove', group });
  }
  whenIdle?.();
}

/** The driver has not begun to take the device back. */
export function isRegistered({ whenIdle }: VfioDevice): boolean {
  return whenIdle === undefined;
}

/** One more file; ENODEV once the driver is going. */
export function getRegistration(device: VfioDevice): void {
  if (!isRegistered(device)) {
    throw new Errno('ENODEV', `the driver of ${device.iommu.name} is being unbound`);
  }
  device.users++;
}

/** One file less; the last one completes the unregistration. */
export function putRegistration(device: VfioDevice): void {
  device.users--;
  if (device.users === 0 && device.whenIdle !== undefined) complete(device);
}

/**
 * The device has a node. No-iommu devices have none, as in a kernel without CONFIG_IOMMUFD_NOIOMMU; profile singleton gives one
 * to devices that are alone in their group, at every moment.
 */
export function hasNode(device: VfioDevice): boolean {
  const { group } = device.iommu;
  if (group === undefined || group.untranslated || !isRegistered(device)) return false;
  return group.members.length === 1 || !mustBeAlone(group);
}

/** The device is the one that GET_DEVICE_FD names. */
export function matchesName(device: VfioDevice, name: string): boolean {
  return device.ops.match?.(device, name) ?? device.iommu.name === name;
}
