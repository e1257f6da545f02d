/**
 * The mock driver's vIOMMU: echoes a word of the client, exports two pages, has up to two HW queues, the second of which
 * depends on the first, and invalidates the caches of its devices.
 *
 * After the vIOMMU part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import { pageOf, offsetOf } from '../../base/position.ts';
import type { Backing } from '../../base/task.ts';
import { PAGE_SIZE } from '../../machine/memory.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import { checkZero, copyStructIn } from '../client-data.ts';
import type { HwQueue } from '../hw-queue.ts';
import type { InvalidateArray, Viommu, ViommuData, ViommuDriver } from '../viommu.ts';
import { MockDevice } from './mock-device.ts';
import type { AllocMemory, MockIommu } from './mock-iommu.ts';

const WINDOW_SIZE = 2 * PAGE_SIZE;
/** what one allocation of the kernel can have, in bytes (x86-64: the buddy allocator's largest block) */
const KMALLOC_MAX_SIZE = 2 ** 22;

export class MockViommu implements ViommuDriver {
  readonly #viommu: Viommu;
  readonly #iommu: MockIommu;
  readonly #queues: (HwQueue | undefined)[] = [];
  #window: bigint | undefined;
  #memory: (Backing & { free?(): void }) | undefined;

  constructor(
    iommu: MockIommu,
    viommu: Viommu,
    how: { data: ViommuData | undefined; alloc: AllocMemory },
  ) {
    this.#iommu = iommu;
    this.#viommu = viommu;
    if (how.data !== undefined) this.#echo(how.data, how.alloc);
  }

  destroy(): void {
    if (this.#window !== undefined) this.#viommu.context.windows.remove(this.#window);
    this.#memory?.free?.();
  }

  allocNested(flags: number, data: ViommuData): ReturnType<MockIommu['allocNestedDomain']> {
    return this.#iommu.allocNestedDomain(flags, data, this.#viommu);
  }

  hasHwQueue(type: number): boolean {
    return type === uapi.IOMMU_HW_QUEUE_TYPE_SELFTEST;
  }

  /** EINVAL (index), EEXIST, EIO (the one before is missing), EFAULT (not what the parent maps). */
  initHwQueue(queue: HwQueue, index: number, phys: number): void {
    if (index >= uapi.IOMMU_TEST_HW_QUEUE_MAX) {
      throw new Errno('EINVAL', `queue index ${index}; there are ${uapi.IOMMU_TEST_HW_QUEUE_MAX}`);
    }
    const taken = this.#queues[index];
    if (taken !== undefined) {
      throw new Errno(
        'EEXIST',
        `queue index ${index} belongs to ${String(taken)}, or did: the mock driver never gives the second place back`,
      );
    }
    const previous = index === 0 ? undefined : this.#queues[index - 1];
    if (index > 0 && previous === undefined) {
      throw new Errno('EIO', `queue ${index} needs queue ${index - 1}, which is not there`);
    }
    const { table } = this.#viommu.hwpt.domain;
    if (table.translate(pageOf(queue.iova), offsetOf(queue.iova)) !== phys) {
      throw new Errno('EFAULT', 'the parent page table leads elsewhere than the pinned pages');
    }
    if (previous !== undefined) previous.users++;
    queue.dependsOn = previous;
    this.#queues[index] = queue;
    queue.onDestroy = () => {
      // Whichever queue goes: mock_hw_queue_destroy asks for an index that nothing has set. The second place stays taken.
      this.#queues[0] = undefined;
      if (previous !== undefined) previous.users--;
    };
  }

  /** Invalidates cache words of devices by virtual id. After mock_viommu_cache_invalidate. */
  invalidate(array: InvalidateArray): void {
    const type = uapi.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST;
    // No entries ask whether the type is known.
    if (array.entryNumber === 0 && array.type === type) return;
    const { size } = uapi.iommu_viommu_invalidate_selftest;
    if (array.entryNumber * size > KMALLOC_MAX_SIZE) {
      // Before the type is looked at; the count goes back as it came.
      array.done = array.entryNumber;
      throw new Errno(
        'ENOMEM',
        `${array.entryNumber} entries of ${size} bytes are more than the mock driver can allocate at once (${KMALLOC_MAX_SIZE})`,
      );
    }
    for (const entry of readEntries(array, type)) {
      this.#invalidateEntry(entry);
      array.done++;
    }
  }

  #echo(data: ViommuData, alloc: AllocMemory): void {
    const struct = uapi.iommu_viommu_selftest;
    const answer = copyStructIn(struct, data, {
      type: uapi.IOMMU_VIOMMU_TYPE_SELFTEST,
      last: 'out_data',
    });
    const { context } = this.#viommu;
    context.environment.faults.alloc('two pages of a window');
    context.environment.faults.alloc('window');
    this.#memory = alloc('mock vIOMMU window', WINDOW_SIZE);
    this.#window = context.windows.add({
      owner: this.#viommu,
      backing: this.#memory,
      length: WINDOW_SIZE,
    });
    const word = new Uint8Array(4);
    new DataView(word.buffer).setUint32(0, answer.in_data, true);
    this.#memory.write(0, word);
    answer.out_data = answer.in_data;
    answer.out_mmap_length = BigInt(WINDOW_SIZE);
    answer.out_mmap_offset = this.#window;
    const bytes = new Uint8Array(struct.size);
    struct.encode(answer, bytes);
    try {
      data.copyOut(bytes.subarray(0, data.length));
    } catch (error) {
      this.destroy();
      throw error;
    }
  }

  #invalidateEntry(entry: uapi.iommu_viommu_invalidate_selftest): void {
    const { flags, vdev_id: id, cache_id: word } = entry;
    if ((flags & ~uapi.IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) {
      throw new Errno('EOPNOTSUPP', `unknown invalidation flags ${hex(flags >>> 0)}`);
    }
    if (word > uapi.MOCK_DEV_CACHE_ID_MAX)
      throw new Errno('EINVAL', `there is no cache word ${word}`);
    const device = this.#viommu.vdevices.get(BigInt(id))?.device.iommu;
    if (!(device instanceof MockDevice)) {
      throw new Errno('EINVAL', `${String(this.#viommu)} has no vDEVICE with virtual id ${id}`);
    }
    if (flags !== 0) device.cache.fill(0);
    else device.cache[word] = 0;
  }
}

/** All entries at once, before any is acted on. After iommu_copy_struct_from_full_user_array. */
function readEntries(
  array: InvalidateArray,
  type: number,
): uapi.iommu_viommu_invalidate_selftest[] {
  const struct = uapi.iommu_viommu_invalidate_selftest;
  if (array.type !== type) {
    throw new Errno('EINVAL', `invalidation data of type ${array.type} is not for the mock driver`);
  }
  const entries: uapi.iommu_viommu_invalidate_selftest[] = [];
  for (let i = 0; i < array.entryNumber; i++) {
    const bytes = new Uint8Array(struct.size);
    const address = BigInt.asUintN(64, array.address + BigInt(array.entryLength * i));
    const beyond = array.entryLength - struct.size;
    if (beyond > 0) {
      checkZero(array.task, { from: address + BigInt(struct.size), length: beyond }, struct.name);
    }
    array.task.memory.copyIn(address, bytes.subarray(0, array.entryLength));
    entries.push(struct.decode(bytes));
  }
  return entries;
}
