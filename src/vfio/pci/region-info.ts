/**
 * The regions of a device under vfio-pci: where each is in the file, how large, and what can be done with it.
 *
 * After vfio_pci_ioctl_get_region_info of drivers/vfio/pci/vfio_pci_core.c.
 */
import { Errno } from '../../base/errno.ts';
import { REGION_OFFSET_SHIFT } from '../../base/file-offsets.ts';
import { RESOURCE } from '../../machine/pci/bar.ts';
import {
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_info_cap_header,
} from '../../uapi/vfio.ts';
import { CapabilityChain } from '../capability-chain.ts';
import type { VfioPciDevice } from './device.ts';
import { isVga, VGA_BYTES } from './vga.ts';

const OFFSET_SHIFT = BigInt(REGION_OFFSET_SHIFT);
const POSITION_MASK = (1n << OFFSET_SHIFT) - 1n;

export type RegionInfo = {
  readonly flags: number;
  readonly size: number;
  readonly offset: bigint;
  readonly chain: CapabilityChain;
};

/** Index of the region at a file offset, and the position in it. */
export function regionOf(offset: bigint): { readonly index: number; readonly position: number } {
  return { index: Number(offset >> OFFSET_SHIFT), position: Number(offset & POSITION_MASK) };
}

/** EINVAL for a region that there is not. */
export function describeRegion(device: VfioPciDevice, index: number): RegionInfo {
  const offset = BigInt(index) << OFFSET_SHIFT;
  const both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  const { config, regions } = device.open;
  if (index < VFIO_PCI_ROM_REGION_INDEX) return describeBar(device, index);
  if (index === VFIO_PCI_ROM_REGION_INDEX) {
    const valid = device.managed.validRom() !== undefined;
    const size = valid ? regions.size(RESOURCE.ROM) : 0;
    return {
      flags: valid ? VFIO_REGION_INFO_FLAG_READ : 0,
      size,
      offset,
      chain: new CapabilityChain(),
    };
  }
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) {
    return { flags: both, size: config.size, offset, chain: new CapabilityChain() };
  }
  if (index === VFIO_PCI_VGA_REGION_INDEX && isVga(device.pci)) {
    return { flags: both, size: VGA_BYTES, offset, chain: new CapabilityChain() };
  }
  throw new Errno('EINVAL', `${device.name} has no region ${index}`);
}

function describeBar({ open: { regions } }: VfioPciDevice, bar: number): RegionInfo {
  const offset = BigInt(bar) << OFFSET_SHIFT;
  const size = regions.size(bar);
  if (size === 0) return { flags: 0, size, offset, chain: new CapabilityChain() };
  const both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  if (!regions.isMappable(bar)) return { flags: both, size, offset, chain: new CapabilityChain() };
  const flags = both | VFIO_REGION_INFO_FLAG_MMAP;
  const chain = new CapabilityChain();
  if (bar === regions.msixBar) {
    chain.add({ id: VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, version: 1 }, vfio_info_cap_header, {});
  }
  return { flags, size, offset, chain };
}
