/**
 * DmaBuf: memory of a device that is shared by file descriptor, and that its exporter may withdraw at any time.
 *
 * Importers are page sets. Withdrawing (revoke) takes the memory out of all of them at once and for good: allowing it
 * again serves importers that come later only.
 *
 * After include/linux/dma-buf.h and iopt_map_dmabuf of drivers/iommu/iommufd/pages.c.
 */
import { Errno } from '../base/errno.ts';
import type { Backing, MmapGrant, OpenFile } from '../base/task.ts';
import type { Pages } from './pages.ts';

export class DmaBuf implements OpenFile {
  readonly name = 'dma-buf';
  readonly link = '/dmabuf:';
  readonly backing: Backing;
  /** in bytes, whole pages */
  readonly size: number;
  readonly flags: number;
  readonly #importers = new Set<Pages>();
  readonly #onRelease: () => void;
  #revoked = false;
  #open = true;

  /** @param shape size in bytes, whole pages; flags that it counts as opened with */
  constructor(
    backing: Backing,
    shape: { readonly size: number; readonly flags: number },
    onRelease: () => void,
  ) {
    this.backing = backing;
    this.size = shape.size;
    this.flags = shape.flags;
    this.#onRelease = onRelease;
  }

  /** A page set starts to use the memory; ENODEV while it is withdrawn. */
  attach(pages: Pages): void {
    if (this.#revoked) throw new Errno('ENODEV', 'the exporter has revoked this dma-buf');
    this.#importers.add(pages);
  }

  detach(pages: Pages): void {
    this.#importers.delete(pages);
    this.#free();
  }

  /** Withdraws the memory from everybody who has it, or allows it to those who come. */
  setRevoked(revoked: boolean): void {
    this.#revoked = revoked;
    // The kernel invalidates either way (dma_buf_invalidate_mappings): allowing again revives nobody.
    for (const pages of this.#importers) pages.revoke();
  }

  mmap(): MmapGrant {
    throw new Errno('EINVAL', 'this exporter does not let its memory be mapped');
  }

  release(): void {
    this.#open = false;
    this.#free();
  }

  #free(): void {
    if (!this.#open && this.#importers.size === 0) this.#onRelease();
  }
}
