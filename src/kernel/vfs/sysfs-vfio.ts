/**
 * VFIO in sysfs: `vfio-dev/vfioN` below a device, /sys/class/vfio-dev, /sys/class/vfio and the class devices of groups.
 *
 * After drivers/vfio/vfio_main.c (__vfio_register_dev), drivers/vfio/group.c and drivers/base/core.c (device_add).
 */
import type { PciDevice } from '../../machine/pci/device.ts';
import { isRegistered } from '../../vfio/registration.ts';
import { deviceName, type VfioDevice, type VfioGroup } from '../../vfio/state.ts';
import { VFIO_DEVICE_MAJOR, VFIO_GROUP_MAJOR } from './device-numbers.ts';
import type { SysfsContext } from './context.ts';
import { CLASSES, devicePath, devpathOf, vfioDevicePath, vfioGroupPath } from './paths.ts';
import { Directory, fixed, linkTo, readable, type Entry, type Named } from './tree.ts';
import type { UeventAction } from './uevent.ts';
import { ueventAttribute } from './uevent-attribute.ts';

/** A class device with a node: keys of its events, and the files that all of them have. */
type ClassDevice = {
  readonly path: string;
  readonly subsystem: string;
  readonly major: number;
  readonly minor: number;
  /** below /dev */
  readonly node: string;
};

function deviceClass(device: VfioDevice, pci: PciDevice): ClassDevice {
  return {
    path: vfioDevicePath(device, pci),
    subsystem: 'vfio-dev',
    major: VFIO_DEVICE_MAJOR,
    minor: device.index,
    node: `vfio/devices/${deviceName(device)}`,
  };
}

function groupClass({ nodeName, minor }: VfioGroup): ClassDevice {
  return {
    path: vfioGroupPath(nodeName),
    subsystem: 'vfio',
    major: VFIO_GROUP_MAJOR,
    minor,
    node: `vfio/${nodeName}`,
  };
}

function keysOf({ major, minor, node }: ClassDevice): string[] {
  return [`MAJOR=${major}`, `MINOR=${minor}`, `DEVNAME=${node}`];
}

function emit(
  { uevents }: SysfsContext,
  action: UeventAction,
  device: ClassDevice,
  more: readonly string[] = [],
): void {
  const { path, subsystem } = device;
  uevents.emit({ action, devpath: devpathOf(path), subsystem, keys: [...more, ...keysOf(device)] });
}

export function emitVfioDevice(
  context: SysfsContext,
  action: UeventAction,
  { device, pci }: { readonly device: VfioDevice; readonly pci: PciDevice },
): void {
  emit(context, action, deviceClass(device, pci));
}

export function emitVfioGroup(context: SysfsContext, action: UeventAction, group: VfioGroup): void {
  emit(context, action, groupClass(group));
}

function classDirectory(
  context: SysfsContext,
  device: ClassDevice,
  more: Readonly<Record<string, Entry>> = {},
): Directory {
  const { path, subsystem, major, minor } = device;
  return fixed({
    dev: readable(() => `${major}:${minor}\n`),
    subsystem: linkTo(path, `${CLASSES}/${subsystem}`),
    uevent: ueventAttribute(
      (action, synthetic) => {
        emit(context, action, device, synthetic);
      },
      () => keysOf(device),
    ),
    ...more,
  });
}

/** `vfio-dev` of a device that has been registered; nothing once its driver is going. */
export function vfioDeviceDirectory(
  context: SysfsContext,
  device: VfioDevice,
  pci: PciDevice,
): Named[] {
  if (!isRegistered(device)) return [];
  const own = deviceClass(device, pci);
  const more = { device: linkTo(own.path, devicePath(pci)) };
  return [['vfio-dev', fixed({ [deviceName(device)]: classDirectory(context, own, more) })]];
}

/** /sys/devices/virtual/vfio: a class device for each group. */
export function vfioGroupsDirectory(context: SysfsContext): Directory {
  return new Directory({
    list: () =>
      context.system.vfio.table.groups.map((group) => [
        group.nodeName,
        classDirectory(context, groupClass(group)),
      ]),
  });
}

/** /sys/class/vfio. */
export function vfioGroupClass({ system }: SysfsContext): Directory {
  return new Directory({
    list: () =>
      system.vfio.table.groups.map(({ nodeName }) => [
        nodeName,
        linkTo(`${CLASSES}/vfio`, vfioGroupPath(nodeName)),
      ]),
  });
}

/** /sys/class/vfio-dev. */
export function vfioDeviceClass(context: SysfsContext): Directory {
  return new Directory({
    list: () =>
      registeredDevices(context).map(({ device, pci }) => [
        deviceName(device),
        linkTo(`${CLASSES}/vfio-dev`, vfioDevicePath(device, pci)),
      ]),
  });
}

export type RegisteredDevice = { readonly device: VfioDevice; readonly pci: PciDevice };

export function registeredDevices({ system }: SysfsContext): RegisteredDevice[] {
  return system.vfio.table.devices.flatMap((device) => {
    const pci = device === undefined ? undefined : system.function(device.iommu.name)?.pci;
    return device === undefined || pci === undefined || !isRegistered(device)
      ? []
      : [{ device, pci }];
  });
}
