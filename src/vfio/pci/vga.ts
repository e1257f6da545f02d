/**
 * The legacy addresses of VGA as a region: memory at 0xa0000, I/O ports at 0x3b0 and 0x3c0, and gaps between them.
 *
 * After vfio_pci_vga_rw of drivers/vfio/pci/vfio_pci_rdwr.c.
 */
import { Errno } from '../../base/errno.ts';
import type { PciDevice } from '../../machine/pci/device.ts';

/** The region begins at address 0. */
export const VGA_BYTES = 0xc0000;

const CLASS_VGA = 0x0300;
/** first byte and the one behind the last */
const WINDOWS: readonly (readonly [number, number])[] = [
  [0x3b0, 0x3bc],
  [0x3c0, 0x3e0],
  [0xa0000, VGA_BYTES],
];

export function isVga({ classCode }: PciDevice): boolean {
  return classCode >> 8 === CLASS_VGA;
}

/** Bytes of an access: it ends where its window does. EINVAL outside of them, and without VGA */
export function vgaCount(pci: PciDevice, offset: number, count: number): number {
  if (!isVga(pci)) throw new Errno('EINVAL', `${pci.name} is not a VGA device`);
  const window = WINDOWS.find(([first, end]) => first <= offset && offset < end);
  if (window === undefined) {
    throw new Errno('EINVAL', `0x${offset.toString(16)} is not an address of VGA`);
  }
  return Math.min(count, window[1] - offset);
}
