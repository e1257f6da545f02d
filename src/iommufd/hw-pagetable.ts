/**
 * HWPT: a hardware page table object, the wrapper of a domain. A paging one shows its IOAS; a nested one translates through
 * a table of the client's on top of a paging one.
 *
 * Users: the table, each device attached (one per device and PASID); for a paging one also nested HWPTs and vIOMMUs on it.
 * An automatic one, made for a device that attached to the IOAS itself, goes with the last device.
 *
 * After drivers/iommu/iommufd/hw_pagetable.c.
 */
import { Errno } from '../base/errno.ts';
import type { Domain, IommuOps, UserData } from '../iommu/domain.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_FAULT_ID_VALID,
  type iommu_hwpt_alloc,
} from '../uapi/iommufd.ts';
import type { Context } from './context.ts';
import { IommufdDevice, attachHwpt, undoAttach } from './device.ts';
import { Fault } from './fault.ts';
import { Ioas, reservedSet, unknownFlags } from './ioas.ts';
import { IommufdObject } from './object.ts';
import { clientData } from './client-data.ts';
import type { Ucmd } from './ucmd.ts';
import { Viommu } from './viommu.ts';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;
const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;

export abstract class HwPagetable extends IommufdObject {
  /** where page faults of attached devices go */
  fault: Fault | undefined;
  /** may be attached while PASIDs are, and to PASIDs */
  pasidCompatible = false;

  /** What devices are attached to; once made. */
  abstract get domain(): Domain;
  /** The paging HWPT whose IOAS devices reach through this one. */
  abstract get paging(): HwptPaging;

  protected dropFault(): void {
    if (this.fault !== undefined) this.fault.users--;
    this.fault = undefined;
  }
}

export class HwptPaging extends HwPagetable {
  override readonly type = 'HWPT_PAGING';
  readonly ioas: Ioas;
  readonly nestParent: boolean;
  /** made by an attach to the IOAS, not by the client */
  automatic = false;
  enforcesCacheCoherency = false;
  #domain: PagingDomain | undefined;

  constructor(ioas: Ioas, flags: number) {
    super();
    this.ioas = ioas;
    ioas.users++;
    this.nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0;
    this.pasidCompatible = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
  }

  override get domain(): PagingDomain {
    if (this.#domain === undefined) throw new Error(`${String(this)} has no domain yet`);
    return this.#domain;
  }

  set domain(domain: PagingDomain) {
    this.#domain = domain;
  }

  override get paging(): this {
    return this;
  }

  /** The domain begins to show what the IOAS holds. */
  join(): void {
    this.ioas.iopt.addDomain(this.domain);
    this.ioas.hwpts.push(this);
  }

  override destroy(): void {
    const at = this.ioas.hwpts.indexOf(this);
    if (at !== -1) {
      this.ioas.hwpts.splice(at, 1);
      this.ioas.iopt.removeDomain(this.domain);
    }
    this.#domain?.free();
    this.dropFault();
    this.ioas.users--;
  }
}

export class HwptNested extends HwPagetable {
  override readonly type = 'HWPT_NESTED';
  readonly parent: HwptPaging;
  readonly viommu: Viommu | undefined;
  #domain: Domain | undefined;

  constructor(parent: HwptPaging, viommu: Viommu | undefined, flags: number) {
    super();
    this.parent = parent;
    this.viommu = viommu;
    this.#holder.users++;
    this.pasidCompatible = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0;
  }

  get #holder(): IommufdObject {
    return this.viommu ?? this.parent;
  }

  override get domain(): Domain {
    if (this.#domain === undefined) throw new Error(`${String(this)} has no domain yet`);
    return this.#domain;
  }

  set domain(domain: Domain) {
    this.#domain = domain;
  }

  override get paging(): HwptPaging {
    return this.parent;
  }

  override destroy(): void {
    this.#domain?.free();
    this.dropFault();
    this.#holder.users--;
  }
}

export type PagingOptions = {
  readonly flags: number;
  readonly userData?: UserData | undefined;
  /** attach the device to it at once, under this PASID */
  readonly attach?: number;
};

/**
 * Makes a paging HWPT that shows the IOAS, and hands it to `finish` before it is published.
 * EOPNOTSUPP (flags, driver), and what filling answers. After iommufd_hwpt_paging_alloc.
 */
export function allocPaging(
  context: Context,
  where: { readonly ioas: Ioas; readonly device: IommufdDevice },
  options: PagingOptions,
  finish: (hwpt: HwptPaging) => void,
): HwptPaging {
  const { ioas, device } = where;
  const { flags, userData, attach } = options;
  checkPagingFlags(device, options);
  return context.objects.create(new HwptPaging(ioas, flags), (hwpt) => {
    hwpt.domain = pagingDomain(
      device,
      { flags: flags & ~IOMMU_HWPT_FAULT_ID_VALID, userData },
      hwpt,
    );
    if (attach === undefined) {
      hwpt.join();
    } else {
      attachHwpt(device, attach, hwpt);
      try {
        hwpt.join();
      } catch (error) {
        undoAttach(device, attach);
        throw error;
      }
    }
    finish(hwpt);
  });
}

function checkPagingFlags(device: IommufdDevice, { flags, userData }: PagingOptions): void {
  const { ops } = device.iommu;
  if ((flags !== 0 || userData !== undefined) && ops.flaggedAllocation !== true) {
    throw new Errno('EOPNOTSUPP', `${ops.name} has no page tables with flags or data of a driver`);
  }
  if ((flags & ~PAGING_FLAGS) !== 0) throw unknownFlags(flags & ~PAGING_FLAGS);
  if (
    (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0 &&
    !ops.capable(device.iommu, 'dirty-tracking')
  ) {
    throw new Errno('EOPNOTSUPP', `${device.iommu.name} cannot track dirty pages`);
  }
  if ((flags & IOMMU_HWPT_FAULT_ID_VALID) !== 0 && (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0) {
    throw new Errno('EOPNOTSUPP', 'a nesting parent cannot deliver faults');
  }
}

function pagingDomain(
  device: IommufdDevice,
  request: { readonly flags: number; readonly userData: UserData | undefined },
  hwpt: HwptPaging,
): PagingDomain {
  const { ops } = device.iommu;
  const { flags, userData } = request;
  device.context.environment.faults.alloc('paging domain');
  const domain = ops.allocPaging(device.iommu, {
    kind: 'unmanaged',
    flags,
    ...(userData && { userData }),
  });
  if (!(domain instanceof PagingDomain)) {
    throw new Error(`${ops.name} made ${domain.name}, which has no page table`);
  }
  if (device.enforcesCacheCoherency) hwpt.enforcesCacheCoherency = true;
  return domain;
}

export function hwptAlloc({ context, task, cmd, respond }: Ucmd<iommu_hwpt_alloc>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet();
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
  if ((flags & ~NESTED_FLAGS) !== 0) throw unknownFlags(flags & ~NESTED_FLAGS);
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
