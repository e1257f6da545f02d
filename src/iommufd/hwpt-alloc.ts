/**
 * IOMMU_HWPT_ALLOC: which kind of page table comes of an IOAS, a paging HWPT or a vIOMMU, with Linux's order of checks.
 *
 * After iommufd_hwpt_alloc, iommufd_hwpt_nested_alloc and iommufd_viommu_alloc_hwpt_nested of
 * drivers/iommu/iommufd/hw_pagetable.c.
 */
import { Errno } from '../base/errno.ts';
import type { IommuOps, UserData } from '../iommu/domain.ts';
import {
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  iommu_hwpt_alloc,
} from '../uapi/iommufd.ts';
import { clientData } from './client-data.ts';
import type { Context } from './context.ts';
import { IommufdDevice } from './device.ts';
import { Fault } from './fault.ts';
import { HwptNested, HwptPaging, allocPaging, type HwPagetable } from './hw-pagetable.ts';
import { Ioas } from './ioas.ts';
import type { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { Viommu } from './viommu.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

export function hwptAlloc({ context, task, cmd, respond }: Ucmd<iommu_hwpt_alloc>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  if ((cmd.data_type === IOMMU_HWPT_DATA_NONE) !== (cmd.data_len === 0)) {
    throw new Errno(
      'EINVAL',
      `data type ${cmd.data_type} does not go with ${cmd.data_len} bytes of data`,
    );
  }
  const device = context.objects.get(IommufdDevice, cmd.dev_id);
  const source = ptOf(context, cmd.pt_id);
  const data = clientData(task, {
    type: cmd.data_type,
    address: cmd.data_uptr,
    length: cmd.data_len,
  });
  const finish = (hwpt: HwPagetable): void => {
    if ((cmd.flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0) {
      hwpt.fault = context.objects.get(Fault, cmd.fault_id);
      hwpt.fault.users++;
    }
    cmd.out_hwpt_id = hwpt.id;
    respond();
  };
  if (source instanceof Ioas) {
    const userData = cmd.data_len === 0 ? undefined : data;
    allocPaging(context, { ioas: source, device }, { flags: cmd.flags, userData }, finish);
  } else if (source instanceof HwptPaging) {
    allocNested(context, { parent: source, device }, { flags: cmd.flags, data }, finish);
  } else if (source instanceof Viommu) {
    allocViommuNested(context, { viommu: source, device }, { flags: cmd.flags, data }, finish);
  } else {
    throw new Errno('EINVAL', `no page table can be made from ${String(source)}`);
  }
}

/** The kernel answers EINVAL here where every other lookup answers ENOENT. */
function ptOf(context: Context, id: number): IommufdObject {
  try {
    return context.objects.any(id);
  } catch (error) {
    if (error instanceof Errno) throw new Errno('EINVAL', error.message);
    throw error;
  }
}

type NestedOptions = { readonly flags: number; readonly data: UserData };

function refuseNested(
  ops: IommuOps | undefined,
  { flags, data }: NestedOptions,
  can: boolean,
): void {
  if ((flags & ~NESTED_FLAGS) !== 0) throw unknownFlags(iommu_hwpt_alloc, flags, NESTED_FLAGS);
  if (data.length === 0)
    throw new Errno('EOPNOTSUPP', 'a nested page table needs data for its driver');
  if (!can) throw new Errno('EOPNOTSUPP', `${ops?.name ?? 'the vIOMMU'} has no nested page tables`);
}

/** After iommufd_hwpt_nested_alloc. */
function allocNested(
  context: Context,
  where: { readonly parent: HwptPaging; readonly device: IommufdDevice },
  options: NestedOptions,
  finish: (hwpt: HwptNested) => void,
): void {
  const { parent, device } = where;
  const { ops } = device.iommu;
  refuseNested(ops, options, ops.allocNested !== undefined);
  if (parent.automatic)
    throw new Errno('EINVAL', `${String(parent)} was made automatically, it cannot be a parent`);
  if (!parent.nestParent)
    throw new Errno('EINVAL', `${String(parent)} was not made with NEST_PARENT`);
  if (parent.domain.owner !== ops)
    throw new Errno('EINVAL', `${String(parent)} belongs to another IOMMU driver`);
  context.objects.create(new HwptNested(parent, undefined, options.flags), (hwpt) => {
    const flags = options.flags & ~IOMMU_HWPT_FAULT_ID_VALID;
    context.environment.faults.alloc('nested domain');
    const domain = ops.allocNested?.(device.iommu, parent.domain, flags, options.data);
    if (domain === undefined) throw new Error(`${ops.name} lost its nested page tables`);
    hwpt.domain = domain;
    finish(hwpt);
  });
}

/** After iommufd_viommu_alloc_hwpt_nested. */
function allocViommuNested(
  context: Context,
  where: { readonly viommu: Viommu; readonly device: IommufdDevice },
  options: NestedOptions,
  finish: (hwpt: HwptNested) => void,
): void {
  const { viommu, device } = where;
  viommu.refuseForeign(device);
  refuseNested(undefined, options, viommu.driver.allocNested !== undefined);
  context.objects.create(new HwptNested(viommu.hwpt, viommu, options.flags), (hwpt) => {
    const flags = options.flags & ~IOMMU_HWPT_FAULT_ID_VALID;
    context.environment.faults.alloc('nested domain');
    const domain = viommu.driver.allocNested?.(flags, options.data);
    if (domain === undefined) throw new Error(`${String(viommu)} lost its nested page tables`);
    hwpt.domain = domain;
    finish(hwpt);
  });
}
