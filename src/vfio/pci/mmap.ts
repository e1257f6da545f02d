/**
 * Mappings of BARs: which may be made, and what they show. One that was made stays; while the memory cannot be reached, touching it
 * raises SIGBUS.
 *
 * After vfio_pci_core_mmap and vfio_pci_mmap_page_fault of drivers/vfio/pci/vfio_pci_core.c.
 */
import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import type { MmapGrant, MmapRequest } from '../../base/task.ts';
import { BAR_COUNT } from '../../machine/pci/bar.ts';
import type { VfioPciDevice } from './device.ts';
import { regionOf } from './region-info.ts';

/** EINVAL for a private mapping, what cannot be mapped, and what reaches beyond the BAR's last page. */
export function mapRegion(device: VfioPciDevice, request: MmapRequest): MmapGrant {
  const { regions } = device.open;
  const { index, position } = regionOf(request.offset);
  if (!request.shared) throw new Errno('EINVAL', 'regions can only be mapped with MAP_SHARED');
  if (index >= BAR_COUNT || !regions.isMappable(index)) {
    throw new Errno('EINVAL', `region ${index} of ${device.name} cannot be mapped`);
  }
  const end = Math.ceil(regions.size(index) / PAGE_BYTES) * PAGE_BYTES;
  const length = Math.ceil(Number(request.length) / PAGE_BYTES) * PAGE_BYTES;
  if (position + length > end) {
    throw new Errno('EINVAL', `BAR ${index} of ${device.name} ends at 0x${end.toString(16)}`);
  }
  return {
    kind: regions.isPlainMemory(index) ? 'memory' : 'trapped',
    backing: regions.backing(index),
    page: position / PAGE_BYTES,
    usable: () => device.usable,
    release: () => undefined,
  };
}
