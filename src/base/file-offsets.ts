/**
 * File offsets that carry a meaning, in one place: offsets by which a supervisor recognises reads, writes and mappings of
 * emulated files among those of every other file, without asking what the fd stands for.
 *
 * Invariant: everything that an emulated file can be read, written or mapped at beyond small offsets lies behind one
 * prefix, 0x5649 in the top 16 bits; no host file is that long (file systems end at 2^63 bytes, but 0x5649 << 48 is never
 * reached by data that exists). Linux starts the same offsets elsewhere; clients must ask for them, never guess.
 */

/** High half of the 64-bit offset, its lower 16 bits free: data of device regions. Owner: vfio/pci. */
export const REGION_OFFSET_PREFIX = 0x5649_0000;

/** Memory that iommufd objects export by mmap starts here. Owner: iommufd/mmap-windows.ts. */
export const FIRST_WINDOW_OFFSET = BigInt(REGION_OFFSET_PREFIX) << 32n;
