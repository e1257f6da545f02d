/**
 * HWPT: a hardware page table object, the wrapper of a domain. A paging one shows its IOAS; a nested one translates through
 * a table of the client's on top of a paging one.
 *
 * Users: the table, each device attached (one per device and PASID); for a paging one also nested HWPTs and vIOMMUs on it.
 * An automatic one, made for a device that attached to the IOAS itself, goes with the last device.
 *
 * After drivers/iommu/iommufd/hw_pagetable.c; the ioctl that makes them is in hwpt-alloc.ts.
 */
import { Errno } from '../base/errno.ts';
import type { Domain, UserData } from '../iommu/domain.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  iommu_hwpt_alloc,
} from '../uapi/iommufd.ts';
import type { Context } from './context.ts';
import type { IommufdDevice } from './device.ts';
import type { Fault } from './fault.ts';
import { type Ioas } from './ioas.ts';
import { IommufdObject } from './object.ts';
import type { Viommu } from './viommu.ts';
import { unknownFlags } from '../uapi/refusals.ts';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID;

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

/** An attachment to a HWPT that is still being made; undone when filling the HWPT fails. */
export type PendingAttach = { attach(hwpt: HwptPaging): void; undo(): void };

export type PagingOptions = {
  readonly flags: number;
  readonly userData?: UserData | undefined;
  /** attaches the device before the table shows the IOAS, so that reserved regions are in place */
  readonly attach?: PendingAttach;
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
      attach.attach(hwpt);
      try {
        hwpt.join();
      } catch (error) {
        attach.undo();
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
  if ((flags & ~PAGING_FLAGS) !== 0) throw unknownFlags(iommu_hwpt_alloc, flags, PAGING_FLAGS);
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
