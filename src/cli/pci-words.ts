/** Names of PCI classes (PCI Code and ID Assignment 1.11), short enough for a column. */
import { pciNames } from '../host/pci-ids.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { roleOf } from '../iommu/group-reasons.ts';

const CLASSES: Readonly<Record<number, string>> = {
  0x0100: 'SCSI controller',
  0x0101: 'IDE controller',
  0x0104: 'RAID controller',
  0x0106: 'SATA controller',
  0x0107: 'SAS controller',
  0x0108: 'NVMe controller',
  0x0180: 'storage controller',
  0x0200: 'Ethernet controller',
  0x0207: 'InfiniBand controller',
  0x0280: 'network controller',
  0x0300: 'VGA display',
  0x0302: '3D controller',
  0x0380: 'display controller',
  0x0400: 'video device',
  0x0401: 'audio device',
  0x0403: 'HD audio',
  0x0500: 'RAM',
  0x0580: 'memory controller',
  0x0600: 'host bridge',
  0x0601: 'ISA bridge',
  0x0604: 'PCI bridge',
  0x0607: 'CardBus bridge',
  0x0680: 'bridge device',
  0x0700: 'serial controller',
  0x0703: 'modem',
  0x0780: 'communication controller',
  0x0800: 'interrupt controller',
  0x0805: 'SD host controller',
  0x0806: 'IOMMU',
  0x0880: 'system device',
  0x0900: 'keyboard controller',
  0x0c00: 'FireWire controller',
  0x0c03: 'USB controller',
  0x0c05: 'SMBus',
  0x0d80: 'wireless controller',
  0x1000: 'crypto device',
  0x1080: 'crypto device',
  0x1180: 'signal processing',
  0x1200: 'processing accelerator',
  0x00ff: 'virtual device',
  0xff00: 'unclassified device',
  0xffff: 'unclassified device',
};

/** "8086:1533" */
export function idsOf(device: PciDevice): string {
  const hex = (value: number): string => value.toString(16).padStart(4, '0');
  return `${hex(device.vendor)}:${hex(device.device)}`;
}

const NAMES = pciNames();

/** "Intel Corporation I210 Gigabit Network Connection", where this system has a list of names that has it. */
export function nameOf({ vendor, device }: PciDevice): string | undefined {
  return NAMES.nameOf(vendor, device);
}

/** What it is, for a column: class of an ordinary device, role of a bridge. */
export function whatIs(device: PciDevice): string {
  if (device.isBridge) return roleOf(device);
  const name =
    CLASSES[device.classCode >> 8] ??
    `class ${(device.classCode >> 8).toString(16).padStart(4, '0')}`;
  return device.isVirtualFunction ? `${name} (virtual function)` : name;
}
