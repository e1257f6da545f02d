/**
 * IOMMU_HWPT_INVALIDATE: tells the driver behind a nested HWPT or a vIOMMU what the guest changed in its tables.
 *
 * How many entries were handled is written back on every way out, also with an error.
 * After iommufd_hwpt_invalidate of drivers/iommu/iommufd/hw_pagetable.c.
 */
import { Errno } from '../base/errno.ts';
import type { Domain } from '../iommu/domain.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import type { iommu_hwpt_invalidate } from '../uapi/iommufd.ts';
import { HwptNested } from './hw-pagetable.ts';

import type { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { Viommu, type InvalidateArray } from './viommu.ts';
import { reservedSet } from '../uapi/refusals.ts';

// IOMMU_HWPT_INVALIDATE_ENTRY_NUM_MAX
const MAX_ENTRIES = 2 ** 19;

/** A nested domain whose driver keeps copies of the guest's tables. */
export type Invalidatable = Domain & { invalidate(array: InvalidateArray): void };

export function hwptInvalidate({
  context,
  task,
  cmd,
  respond,
}: Ucmd<iommu_hwpt_invalidate>): undefined {
  const array: InvalidateArray = {
    task,
    type: cmd.data_type,
    address: cmd.data_uptr,
    entryLength: cmd.entry_len,
    entryNumber: cmd.entry_num,
    done: 0,
  };
  try {
    if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
    refuseBadArray(cmd);
    invalidatorOf(context.objects.any(cmd.hwpt_id))(array);
  } finally {
    cmd.entry_num = array.done;
    respond();
  }
}

function refuseBadArray(cmd: iommu_hwpt_invalidate): void {
  if (cmd.entry_num === 0) return;
  if (cmd.data_uptr === 0n) throw new Errno('EINVAL', `${cmd.entry_num} entries at address 0`);
  if (cmd.entry_len === 0 || cmd.entry_len > PAGE_SIZE) {
    throw new Errno('EINVAL', `entries of ${cmd.entry_len} bytes; 1 to ${PAGE_SIZE} are possible`);
  }
  if (cmd.entry_num > MAX_ENTRIES) {
    throw new Errno(
      'EINVAL',
      `${cmd.entry_num} entries are more than the ${MAX_ENTRIES} of one call`,
    );
  }
}

function invalidatorOf(object: IommufdObject): (array: InvalidateArray) => void {
  if (object instanceof HwptNested) {
    const { domain } = object;
    if (!isInvalidatable(domain)) throw unsupported(object);
    return (array) => {
      domain.invalidate(array);
    };
  }
  if (object instanceof Viommu) {
    const { driver } = object;
    if (driver.invalidate === undefined) throw unsupported(object);
    return (array) => {
      driver.invalidate?.(array);
    };
  }
  throw new Errno('EINVAL', `${String(object)} caches nothing of a guest`);
}

function isInvalidatable(domain: Domain): domain is Invalidatable {
  return 'invalidate' in domain;
}

function unsupported(object: HwptNested | Viommu): Errno {
  return new Errno('EOPNOTSUPP', `the driver behind ${String(object)} needs no invalidation`);
}
