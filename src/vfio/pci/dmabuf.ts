/**
 * Memory of a BAR as a dma-buf: a file that an IOMMUFD can map for other devices (peer-to-peer). It is revoked whenever the memory
 * cannot be reached: decoding off, D3, resets, low power, and for good when the device is closed.
 *
 * Invariant: a dma-buf that is not revoked shows memory that answers.
 *
 * After drivers/vfio/pci/vfio_pci_dmabuf.c.
 */
import { Errno } from '../../base/errno.ts';
import { BAR_COUNT } from '../../machine/pci/bar.ts';
import type { Backing, Task } from '../../base/task.ts';
import { DmaBuf } from '../../pinning/dma-buf.ts';
import type { Pages } from '../../pinning/pages.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { getRegistration, putRegistration } from '../registration.ts';
import type { VfioPciDevice } from './device.ts';

/** Part of a region, in bytes. */
export type DmaRange = { readonly offset: bigint; readonly length: bigint };

const LONGEST = 2n ** 63n;
const U64 = 2n ** 64n;

class BarDmaBuf extends DmaBuf {
  readonly #ranges: number;
  #isRevoked = false;

  constructor(
    ranges: readonly DmaRange[],
    shape: { readonly backing: Backing; readonly size: number; readonly flags: number },
    onRelease: () => void,
  ) {
    super(shape.backing, shape, onRelease);
    this.#ranges = ranges.length;
  }

  override attach(pages: Pages): void {
    if (!this.#isRevoked && this.#ranges !== 1) {
      throw new Errno('EOPNOTSUPP', `a dma-buf of ${this.#ranges} ranges cannot be mapped`);
    }
    super.attach(pages);
  }

  /** Does nothing where it is so already. */
  move(revoked: boolean): void {
    if (revoked === this.#isRevoked) return;
    this.#isRevoked = revoked;
    this.setRevoked(revoked);
  }
}

/** The dma-bufs of one device. */
export class DmaBufs {
  readonly #device: VfioPciDevice;
  readonly #all = new Set<BarDmaBuf>();

  constructor(device: VfioPciDevice) {
    this.#device = device;
  }

  /**
   * Exports ranges of a BAR.
   * @param openFlags of open(2), that the file counts as opened with
   * @returns its fd
   * @throws Errno ENODEV for what is not a BAR, EINVAL for ranges that are empty, not of whole pages or beyond it; EMFILE
   */
  export(task: Task, bar: number, ranges: readonly DmaRange[], openFlags: number): number {
    const { regions } = this.#device.open;
    const size = checkRanges(ranges);
    if (!regions.isMemory(bar)) {
      throw new Errno('EINVAL', `region ${bar} of ${this.#device.name} is not memory`);
    }
    this.#checkPlace(bar, ranges);
    const { vfio } = this.#device;
    if (vfio === undefined) throw new Error(`${this.#device.name} is not registered`);
    getRegistration(vfio);
    const backing = new BarBacking(this.#device, bar, ranges);
    const file = new BarDmaBuf(ranges, { backing, size: Number(size), flags: openFlags }, () => {
      if (this.#all.delete(file)) putRegistration(vfio);
    });
    this.#all.add(file);
    file.move(!this.#device.memoryEnabled);
    return task.install(file, { cloexec: (openFlags & O_CLOEXEC) !== 0 });
  }

  #checkPlace(bar: number, ranges: readonly DmaRange[]): void {
    const { start, size } = this.#device.managed.region(bar);
    for (const { offset, length } of ranges) {
      if (start + offset >= U64 || start + offset + length >= U64) {
        throw new Errno('EOVERFLOW', `range 0x${offset.toString(16)} wraps`);
      }
      if (offset + length > size) {
        throw new Errno('EINVAL', `BAR ${bar} ends at 0x${size.toString(16)}`);
      }
    }
  }

  /** ENODEV for what dma-bufs cannot be made of. */
  requireBar(bar: number): void {
    if (bar < BAR_COUNT && this.#device.open.regions.size(bar) !== 0) return;
    throw new Errno('ENODEV', `region ${bar} of ${this.#device.name} is not a BAR`);
  }

  revoke(): void {
    for (const file of this.#all) file.move(true);
  }

  restore(): void {
    for (const file of this.#all) file.move(false);
  }

  /** The device is closed: files that are left show nothing any more, and do not hold it. */
  cleanUp(): void {
    this.revoke();
    const { vfio } = this.#device;
    for (const file of [...this.#all]) {
      this.#all.delete(file);
      if (vfio !== undefined) putRegistration(vfio);
    }
  }
}

const O_CLOEXEC = 0x8_0000;

/** @returns bytes of all ranges. EINVAL */
function checkRanges(ranges: readonly DmaRange[]): bigint {
  const page = BigInt(PAGE_BYTES);
  let size = 0n;
  for (const { offset, length } of ranges) {
    if (length === 0n || offset % page !== 0n || length % page !== 0n) {
      throw new Errno(
        'EINVAL',
        `range 0x${offset.toString(16)} of 0x${length.toString(16)} bytes is not of whole pages`,
      );
    }
    size += length;
    if (size >= LONGEST) throw new Errno('EINVAL', `0x${size.toString(16)} bytes are too many`);
  }
  return size;
}

/** Ranges of a BAR, one after the other. */
class BarBacking implements Backing {
  readonly unit = 1;
  readonly #device: VfioPciDevice;
  readonly #bar: number;
  readonly #ranges: readonly DmaRange[];

  constructor(device: VfioPciDevice, bar: number, ranges: readonly DmaRange[]) {
    this.#device = device;
    this.#bar = bar;
    this.#ranges = ranges;
  }

  get name(): string {
    return `BAR ${this.#bar} of ${this.#device.name}`;
  }

  read(offset: number, into: Uint8Array): void {
    this.#each(offset, into, (at, part) => {
      this.#device.open.regions.readBar(this.#bar, at, part);
    });
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#each(offset, bytes, (at, part) => {
      this.#device.open.regions.writeBar(this.#bar, at, part);
    });
  }

  #each(offset: number, bytes: Uint8Array, visit: (at: number, part: Uint8Array) => void): void {
    if (!this.#device.isOpen) throw new Errno('EFAULT', `${this.name} is closed`);
    let begin = 0;
    for (const range of this.#ranges) {
      const end = begin + Number(range.length);
      const first = Math.max(offset, begin);
      const last = Math.min(offset + bytes.length, end);
      if (first < last) {
        visit(Number(range.offset) + first - begin, bytes.subarray(first - offset, last - offset));
      }
      begin = end;
    }
  }
}
