/**
 * File offsets that carry a meaning, in one place: offsets by which a supervisor recognises reads, writes and mappings of
 * emulated files among those of every other file, without asking what the fd stands for.
 *
 * Regions of a device are where Linux has them, 1 TiB for each, since programs rely on it; few host files are that long, and of those the
 * supervisor asks. Memory of iommufd objects lies behind a prefix, 0x5649 in the top 16 bits, that no host file reaches (file
 * systems end at 2^63 bytes, but 0x5649 << 48 is never reached by data that exists); clients ask for those offsets.
 */

/** Each region of a device has 2 to this many bytes of file offsets (VFIO_PCI_OFFSET_SHIFT). Owner: vfio. */
export const REGION_OFFSET_SHIFT = 40;

/** High half of the offset where the second region of a device begins. The first begins at 0. */
export const SECOND_REGION_HIGH = 2 ** (REGION_OFFSET_SHIFT - 32);

/** Memory that iommufd objects export by mmap starts here. Owner: iommufd/mmap-windows.ts. */
export const FIRST_WINDOW_OFFSET = 0x5649n << 48n;
