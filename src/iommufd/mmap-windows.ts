/**
 * Windows of memory that objects export through mmap of /dev/iommu. A window is known by its offset; only exactly a whole
 * window can be mapped, and each mapping holds the owner.
 *
 * After drivers/iommu/iommufd/driver.c (_iommufd_alloc_mmap) and iommufd_fops_mmap of main.c.
 */
import { Errno } from '../base/errno.ts';
import { FIRST_WINDOW_OFFSET } from '../base/file-offsets.ts';
import { hex } from '../base/position.ts';
import type { Backing, MmapGrant, MmapRequest } from '../base/task.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import type { IommufdObject } from './object.ts';

type Window = {
  readonly owner: IommufdObject;
  readonly backing: Backing;
  readonly length: number;
};

/** A window with the mappings that show it now. */
type Exported = Window & { mappings: number };

export class MmapWindows {
  readonly #windows = new Map<bigint, Exported>();

  /** @returns the offset under which the window can be mapped */
  add(window: Window): bigint {
    let offset = FIRST_WINDOW_OFFSET + BigInt(PAGE_SIZE);
    for (;;) {
      const taken = this.#windows.get(offset);
      if (taken === undefined) break;
      offset += BigInt(taken.length);
    }
    this.#windows.set(offset, { ...window, mappings: 0 });
    return offset;
  }

  remove(offset: bigint): void {
    this.#windows.delete(offset);
  }

  /** How many mappings hold an owner. */
  mappedBy(owner: IommufdObject): number {
    return [...this.#windows.values()]
      .filter((window) => window.owner === owner)
      .reduce((sum, { mappings }) => sum + mappings, 0);
  }

  /** EINVAL (not whole pages, private), EPERM (executable), ENXIO (no such window, or not all of it). */
  map(request: MmapRequest): MmapGrant {
    const { offset, length } = request;
    if (length % BigInt(PAGE_SIZE) !== 0n) {
      throw new Errno('EINVAL', `length ${hex(length)} is not a whole number of pages`);
    }
    if (!request.shared) throw new Errno('EINVAL', 'a window can only be mapped MAP_SHARED');
    if (request.execute) throw new Errno('EPERM', 'a window cannot be mapped executable');
    const window = this.#windows.get(offset);
    if (window === undefined) throw new Errno('ENXIO', `no window starts at offset ${hex(offset)}`);
    if (BigInt(window.length) !== length) {
      throw new Errno(
        'ENXIO',
        `the window at ${hex(offset)} is ${hex(window.length)} bytes long, not ${hex(length)}`,
      );
    }
    window.owner.users++;
    window.mappings++;
    return {
      kind: 'copied',
      backing: window.backing,
      page: 0,
      release: () => {
        window.owner.users--;
        window.mappings--;
      },
    };
  }
}
