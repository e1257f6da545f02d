/** Who may do DMA in the group of a device, as a booted machine has it. */
import type { PciSystemParts } from '../kernel/system.ts';

export type DmaUse =
  /** a driver does kernel DMA in the group: user space cannot own it as long as it is bound */
  | 'kernel'
  /** a VFIO driver has a member, and none does kernel DMA: a program can claim the group */
  | 'user'
  /** neither: user space can take it */
  | 'free'
  /** no group: no IOMMU translates for the device */
  | 'none';

/** @param name "0000:01:00.0", a device of the machine */
export function dmaUse({ pci, vfio }: PciSystemParts, name: string): DmaUse {
  const group = pci.core.device(name)?.iommu.group;
  if (group === undefined || group.untranslated) return 'none';
  if (group.owner === undefined && group.ownerCount > 0) return 'kernel';
  return group.members.some((member) => vfio.deviceOf(member) !== undefined) ? 'user' : 'free';
}

/** The driver of the device that does kernel DMA; undefined if it has none, or one that does not. */
export function kernelDriver({ pci }: PciSystemParts, name: string): string | undefined {
  return pci.core.device(name)?.iommu.kernelDriver;
}
