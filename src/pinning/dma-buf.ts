/**
 * DmaBuf: memory of a device that is shared by file descriptor, and that its exporter may withdraw at any time.
 *
 * Importers are page sets. Withdrawing (revoke) takes the memory out of all of them at once and for good: allowing it
 * again serves importers that come later only.
 *
 * After include/linux/dma-buf.h and iopt_map_dmabuf of drivers/iommu/iommufd/pages.c.
 */
import { Errno } from '../base/errno.ts';
import type { Backing, MmapGrant, OpenFile, Task } from '../base/task.ts';
import type { Pages } from './pages.ts';

// include/uapi/linux/dma-buf.h
const DMA_BUF_IOCTL_SYNC = 0x4008_6200;
const DMA_BUF_SET_NAME_A = 0x4004_6201;
const DMA_BUF_SET_NAME_B = 0x4008_6201;
const DMA_BUF_SYNC_RW = 3n;
const DMA_BUF_SYNC_ALL = 7n;
const DMA_BUF_NAME_LEN = 32;

export class DmaBuf implements OpenFile {
  readonly name = 'dma-buf';
  readonly backing: Backing;
  /** in bytes, whole pages */
  readonly size: number;
  readonly flags: number;
  readonly #importers = new Set<Pages>();
  readonly #onRelease: () => void;
  #revoked = false;
  #label = '';
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

  get link(): string {
    return `/dmabuf:${this.#label}`;
  }

  /** Of drivers/dma-buf/dma-buf.c: synchronizing with the processor, of which nothing is to be done here, and naming. */
  ioctl(task: Task, command: number, argument: bigint): number {
    switch (command) {
      case DMA_BUF_IOCTL_SYNC:
        checkSync(task, argument);
        return 0;
      case DMA_BUF_SET_NAME_A:
      case DMA_BUF_SET_NAME_B:
        this.#label = readName(task, argument);
        return 0;
      default:
        throw new Errno('ENOTTY', `a dma-buf has no ioctl 0x${command.toString(16)}`);
    }
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

/** EFAULT, EINVAL. */
function checkSync(task: Task, argument: bigint): void {
  const bytes = new Uint8Array(8);
  task.memory.copyIn(argument, bytes);
  const flags = new DataView(bytes.buffer).getBigUint64(0, true);
  if ((flags & ~DMA_BUF_SYNC_ALL) === 0n && (flags & DMA_BUF_SYNC_RW) !== 0n) return;
  throw new Errno('EINVAL', `flags ${flags} say neither read nor write, or something unknown`);
}

/** EFAULT, EINVAL (too long). After strndup_user. */
function readName(task: Task, argument: bigint): string {
  const letters: number[] = [];
  const letter = new Uint8Array(1);
  while (letters.length < DMA_BUF_NAME_LEN) {
    task.memory.copyIn(argument + BigInt(letters.length), letter);
    const [code = 0] = letter;
    if (code === 0) return new TextDecoder().decode(Uint8Array.from(letters));
    letters.push(code);
  }
  throw new Errno('EINVAL', `the name of a dma-buf has at most ${DMA_BUF_NAME_LEN - 1} bytes`);
}
