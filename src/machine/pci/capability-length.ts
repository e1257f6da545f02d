/**
 * How many bytes of configuration space a capability takes, where its own registers say so. Shared by whoever lays capabilities
 * out, resets them or shows them to user space.
 *
 * PCI Local Bus 3.0, section 6.8.1 (MSI).
 */
import { MSI } from './pci-regs.ts';

/** @param flags message control of the MSI capability */
export function msiBytes(flags: number): number {
  return 10 + ((flags & MSI.SIXTY_FOUR) !== 0 ? 4 : 0) + ((flags & MSI.MASKABLE) !== 0 ? 10 : 0);
}
