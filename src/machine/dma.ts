/**
 * DMA as a device model sees it: reads and writes of memory by address, of whatever length. What the addresses mean is decided by
 * what the device is attached to (iommu/dma.ts); a model is never given more than this.
 *
 * Invariant: a transfer that fails in part has happened for the other pages, as on a bus that carries page after page.
 */
export type DmaPort = {
  /**
   * Fills `into` from `address` on. What cannot be read arrives as zeros.
   * @param pasid of the request; without unless given
   * @returns whether everything was read
   */
  read(address: bigint, into: Uint8Array, pasid?: number): boolean;
  /**
   * Writes `bytes` from `address` on. What cannot be written is dropped.
   * @returns whether everything was written
   */
  write(address: bigint, bytes: Uint8Array, pasid?: number): boolean;
};
