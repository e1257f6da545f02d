/**
 * Where devices are in sysfs, as absolute paths with /sys.
 *
 * After drivers/base/core.c (get_device_parent) and drivers/pci/probe.c: a root bus is a directory of its own, below it each
 * bridge holds what is behind it; virtual functions are beside their physical one.
 */
import type { PciBus, PciDevice } from '../../machine/pci/device.ts';
import { deviceName, type VfioDevice } from '../../vfio/state.ts';

export const DEVICES = '/sys/devices';
export const VIRTUAL = '/sys/devices/virtual';
export const PCI_DEVICES = '/sys/bus/pci/devices';
export const PCI_DRIVERS = '/sys/bus/pci/drivers';
export const CLASSES = '/sys/class';
export const GROUPS = '/sys/kernel/iommu_groups';

/** The directory of a root bus: /sys/devices/pci0000:00. */
export function rootPath({ root }: PciBus): string {
  const above = root.dmaDevice === undefined ? DEVICES : devicePath(root.dmaDevice);
  return `${above}/pci${root.name}`;
}

/** The directory that holds the devices of a bus. */
export function busPath(bus: PciBus): string {
  if (bus.self !== undefined) return devicePath(bus.self);
  return bus.parent === undefined ? rootPath(bus) : busPath(bus.parent);
}

export function devicePath(pci: PciDevice): string {
  return `${busPath(pci.bus)}/${pci.name}`;
}

export function driverPath(name: string): string {
  return `${PCI_DRIVERS}/${name}`;
}

/** The class device of a bus. Only real buses have one. */
export function classBusPath(bus: PciBus): string {
  return `${busPath(bus)}/pci_bus/${bus.name}`;
}

export function vfioDevicePath(device: VfioDevice, pci: PciDevice): string {
  return `${devicePath(pci)}/vfio-dev/${deviceName(device)}`;
}

export function vfioGroupPath(name: string): string {
  return `${VIRTUAL}/vfio/${name}`;
}

/** As uevents name it. */
export function devpathOf(path: string): string {
  return path.replace(/^\/sys/, '');
}
