/**
 * Eventfds that write a register when they are signalled, so that KVM can do a guest's write without its VMM.
 *
 * Invariant: no two of a device write the same value to the same place with the same width.
 *
 * After vfio_pci_ioeventfd of drivers/vfio/pci/vfio_pci_rdwr.c.
 */
import { Errno } from '../../base/errno.ts';
import { BAR_COUNT } from '../../machine/pci/bar.ts';
import type { Task } from '../../base/task.ts';
import { EventfdListener } from './eventfd-listener.ts';
import type { Regions } from './regions.ts';

/** A write: `count` bytes of `value` at `offset` of a BAR. */
export type RegisterWrite = {
  readonly bar: number;
  readonly offset: number;
  readonly count: number;
  readonly value: bigint;
};

type Entry = { readonly write: RegisterWrite; readonly listener: EventfdListener };

const MOST = 1000;

export class IoEventfds {
  readonly #regions: Regions;
  readonly #entries: Entry[] = [];

  constructor(regions: Regions) {
    this.#regions = regions;
  }

  /**
   * @param fd the eventfd; -1 takes the entry for this write away
   * @throws Errno EINVAL for a place that cannot be written this way, EEXIST, ENODEV without such an entry, ENOSPC, errors of the fd
   */
  set(task: Task, write: RegisterWrite, fd: number): void {
    this.#checkPlace(write);
    const index = this.#entries.findIndex((entry) => isSame(entry.write, write));
    if (index >= 0) {
      if (fd !== -1) throw new Errno('EEXIST', `${nameOf(write)} has an eventfd already`);
      this.#entries[index]?.listener.disable();
      this.#entries.splice(index, 1);
      return;
    }
    if (fd < 0) throw new Errno('ENODEV', `${nameOf(write)} has no eventfd`);
    if (this.#entries.length >= MOST) {
      throw new Errno('ENOSPC', `the device has ${MOST} ioeventfds, which is the limit`);
    }
    const listener = new EventfdListener();
    listener.enable(task.eventfd(fd), () => {
      this.#fire(write);
    });
    this.#entries.push({ write, listener });
  }

  #checkPlace({ bar, offset, count }: RegisterWrite): void {
    if (bar >= BAR_COUNT) throw new Errno('EINVAL', `region ${bar} is not a BAR`);
    const size = this.#regions.size(bar);
    if (offset + count > size) {
      throw new Errno('EINVAL', `BAR ${bar} ends at 0x${size.toString(16)}`);
    }
    if (this.#regions.overlapsMsixTable(bar, offset, count)) {
      throw new Errno('EINVAL', `0x${offset.toString(16)} of BAR ${bar} is in the MSI-X table`);
    }
  }

  // With memory decoding off the write is lost, and nobody is told.
  #fire({ bar, offset, count, value }: RegisterWrite): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    try {
      this.#regions.writeWord(bar, offset, bytes.subarray(0, count));
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
    }
  }

  disable(): void {
    for (const { listener } of this.#entries) listener.disable();
    this.#entries.length = 0;
  }
}

function isSame(a: RegisterWrite, b: RegisterWrite): boolean {
  return a.bar === b.bar && a.offset === b.offset && a.count === b.count && a.value === b.value;
}

function nameOf({ bar, offset, count, value }: RegisterWrite): string {
  return `a write of 0x${value.toString(16)} (${count} bytes) to 0x${offset.toString(16)} of BAR ${bar}`;
}
