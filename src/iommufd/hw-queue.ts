/**
 * HW_QUEUE: a queue in guest memory that an IOMMU reads by physical address, past all translation.
 *
 * Its memory must be physically contiguous, and stays pinned and mapped for as long as the queue exists.
 * Users: the table, queues that depend on it. It holds its vIOMMU.
 * After the HW queue part of drivers/iommu/iommufd/viommu.c.
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, hex } from '../base/position.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import { IOMMU_HW_QUEUE_TYPE_DEFAULT, iommu_hw_queue_alloc } from '../uapi/iommufd.ts';
import { Access } from './access.ts';
import { lastByte } from './ioas.ts';
import { IommufdObject } from './object.ts';
import { pfnsOf } from '../pinning/pages.ts';
import type { Piece } from '../pinning/pins.ts';
import type { Ucmd } from './ucmd.ts';
import { Viommu } from './viommu.ts';
import { unknownFlags } from '../uapi/refusals.ts';

const PAGE = BigInt(PAGE_SIZE);
// kvmalloc makes nothing above INT_MAX bytes, and the list has a pointer per page.
const MAX_PAGES = BigInt(Math.floor((2 ** 31 - 1) / 8));

export class HwQueue extends IommufdObject {
  override readonly type = 'HW_QUEUE';
  readonly viommu: Viommu;
  readonly iova: bigint;
  readonly length: bigint;
  /** set by the driver: the queue that must outlive this one; this one is a user of it */
  dependsOn: HwQueue | undefined;
  /** set by the driver: takes the queue out of use */
  onDestroy: (() => void) | undefined;
  #access: Access | undefined;

  constructor(viommu: Viommu, iova: bigint, length: bigint) {
    super();
    this.viommu = viommu;
    this.iova = iova;
    this.length = length;
    viommu.users++;
  }

  /** Pins the memory. @returns its physical address; ERANGE, ENOENT, EPERM, EFAULT (not contiguous) */
  pin(): number {
    const [first, length] = this.#range();
    if (length / PAGE > MAX_PAGES) {
      throw new Errno('ENOMEM', `a list of ${length / PAGE} pages is more than can be allocated`);
    }
    const access = Access.create(this.viommu.context, { pins: true, internal: true });
    try {
      access.attachIoas(this.viommu.hwpt.ioas);
      const pieces = access.pin(first, length, false);
      const [start] = pfnsOf(pieces);
      if (start === undefined || !isContiguous(pieces)) {
        access.unpin(first, length);
        throw new Errno(
          'EFAULT',
          `the ${length / PAGE} pages behind IOVA ${hex(this.iova)} are not physically contiguous`,
        );
      }
      this.#access = access;
      return start * PAGE_SIZE + Number(this.iova - first);
    } catch (error) {
      access.close();
      throw error;
    }
  }

  override destroy(): void {
    this.onDestroy?.();
    if (this.#access !== undefined) {
      this.#access.unpin(...this.#range());
      this.#access.close();
    }
    this.viommu.users--;
  }

  /** The pages that the queue touches. */
  #range(): [first: bigint, length: bigint] {
    const first = this.iova & -PAGE;
    const bytes = this.iova - first + this.length + PAGE - 1n;
    if (bytes > MAX_ADDRESS) {
      throw new Errno(
        'ERANGE',
        `${hex(this.length)} bytes from ${hex(this.iova)} are more than whole pages can be`,
      );
    }
    return [first, bytes & -PAGE];
  }
}

/** Looks no further than the first gap, as a queue may be as long as a client's memory. */
function isContiguous(pieces: readonly Piece[]): boolean {
  let next: number | undefined;
  for (const pfn of pfnsOf(pieces)) {
    if (next !== undefined && pfn !== next) return false;
    next = pfn + 1;
  }
  return true;
}

export function hwQueueAlloc({ context, cmd, respond }: Ucmd<iommu_hw_queue_alloc>): undefined {
  if (cmd.flags !== 0) throw unknownFlags(iommu_hw_queue_alloc, cmd.flags);
  if (cmd.type === IOMMU_HW_QUEUE_TYPE_DEFAULT)
    throw new Errno('EOPNOTSUPP', 'type 0 is not a type of HW queue');
  lastByte(cmd.nesting_parent_iova, cmd.length);
  const viommu = context.objects.get(Viommu, cmd.viommu_id);
  const { driver } = viommu;
  if (driver.initHwQueue === undefined || driver.hasHwQueue?.(cmd.type) !== true) {
    throw new Errno('EOPNOTSUPP', `${String(viommu)} has no HW queues of type ${hex(cmd.type)}`);
  }
  context.objects.create(new HwQueue(viommu, cmd.nesting_parent_iova, cmd.length), (queue) => {
    context.environment.faults.alloc('page array');
    driver.initHwQueue?.(queue, cmd.index, queue.pin());
    cmd.out_hw_queue_id = queue.id;
    respond();
  });
}
