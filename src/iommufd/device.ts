/**
 * DEVICE: a physical device that is bound to a context, and how it is attached to page tables.
 *
 * Binding takes ownership of the group's DMA for the context; from then until unbinding the group reaches only what the
 * context maps. Attaching connects the group to a HWPT, one per PASID.
 * Users: the table, the driver that bound the device, each attachment. So a client can never destroy one.
 *
 * After drivers/iommu/iommufd/device.c.
 */
import { Errno } from '../base/errno.ts';
import { NO_PASID } from '../iommu/attach.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import type { AttachHandle } from '../iommu/group.ts';
import { claimDevice, releaseDeviceClaim } from '../iommu/ownership.ts';
import { attachTo, detachFrom, replaceBy, type AttachmentSide } from './attachment.ts';
import type { Context } from './context.ts';
import { HwPagetable, HwptPaging, allocPaging, type PendingAttach } from './hw-pagetable.ts';
import { Ioas } from './ioas.ts';
import { IommufdGroup, type Attach } from './iommufd-group.ts';
import { IommufdObject } from './object.ts';
import type { Vdevice } from './vdevice.ts';

export { NO_PASID };

/** What an attachment leaves with the core: who attached, and where its faults go. */
export class IommufdAttachHandle implements AttachHandle {
  domain: Domain | undefined;
  readonly device: IommufdDevice;
  readonly hwpt: HwPagetable;

  constructor(device: IommufdDevice, hwpt: HwPagetable) {
    this.device = device;
    this.hwpt = hwpt;
  }
}

export class IommufdDevice extends IommufdObject {
  override readonly type = 'DEVICE';
  readonly context: Context;
  readonly iommu: IommuDevice;
  /** mock devices do not keep their context alive */
  readonly isMock: boolean;
  /** the device's one vDEVICE */
  vdevice: Vdevice | undefined;
  enforcesCacheCoherency = false;
  #group: IommufdGroup | undefined;

  constructor(context: Context, iommu: IommuDevice, isMock: boolean) {
    super();
    this.context = context;
    this.iommu = iommu;
    this.isMock = isMock;
  }

  /** Binds a device: EINVAL (no cache coherency), ENODEV, EPERM (MSI, other owner, kernel driver), EBUSY. */
  static bindDevice(
    context: Context,
    iommu: IommuDevice,
    options: { readonly mock?: boolean } = {},
  ): IommufdDevice {
    const made = new IommufdDevice(context, iommu, options.mock ?? false);
    context.objects.create(made, (device) => {
      device.#claim();
    });
    if (!made.isMock) context.get();
    // The driver that binds is a user until it unbinds.
    made.users++;
    return made;
  }

  /** Undoes {@link bindDevice}; nothing may be attached any more. The device's vDEVICE goes too, its id stays taken. */
  unbind(): void {
    if (this.vdevice !== undefined) {
      this.vdevice.users++;
      this.context.objects.destroyHeld(this.vdevice, { tombstone: true });
    }
    this.context.objects.destroyHeld(this);
  }

  override destroy(): void {
    if (this.#group === undefined) return;
    releaseDeviceClaim(this.iommu);
    this.#group.put();
    this.#group = undefined;
    if (!this.isMock) this.context.put();
  }

  get group(): IommufdGroup {
    if (this.#group === undefined) throw new Error(`${String(this)} is not bound`);
    return this.#group;
  }

  /**
   * Connects the device to an IOAS (automatically) or a HWPT.
   * @returns the id of the HWPT; ENOENT, EINVAL, EBUSY, and what filling answers. After iommufd_device_attach.
   */
  attach(pasid: number, ptId: number): number {
    const id = this.#changePt(pasid, ptId, attachHwpt);
    this.users++;
    return id;
  }

  /** Moves the device, with all of its group that is attached, to another IOAS or HWPT. After iommufd_device_replace. */
  replace(pasid: number, ptId: number): number {
    return this.#changePt(pasid, ptId, replaceHwpt);
  }

  /** Undoes {@link attach}; nothing attached is fine. After iommufd_device_detach. */
  detach(pasid: number): void {
    const hwpt = detachHwpt(this, pasid);
    if (hwpt === undefined) return;
    putHwpt(this.context, hwpt);
    this.users--;
  }

  /** Ends every attachment, PASIDs first, as a driver must before it unbinds. */
  detachAll(): void {
    const pasids = [...this.attachments.keys()].filter((pasid) => this.isAttached(pasid));
    for (const pasid of pasids.sort((a, b) => b - a)) this.detach(pasid);
  }

  /** What the device and those that share its page table are attached to, by PASID. */
  get attachments(): Map<number, Attach> {
    return this.group.attachments(this.iommu.requireGroup().subgroupOf(this.iommu));
  }

  isAttached(pasid: number): boolean {
    return this.attachments.get(pasid)?.devices.has(this.id) ?? false;
  }

  #claim(): void {
    const { context, iommu } = this;
    if (!iommu.ops.capable(iommu, 'cache-coherency')) {
      throw new Errno('EINVAL', `DMA of ${iommu.name} is not coherent with the caches`);
    }
    const group = IommufdGroup.get(context, iommu.requireGroup());
    try {
      if (!this.isMock) this.#checkMsi(group);
      context.environment.faults.alloc('blocking domain');
      claimDevice(iommu, context);
    } catch (error) {
      group.put();
      throw error;
    }
    this.#group = group;
    this.enforcesCacheCoherency = iommu.ops.capable(iommu, 'enforce-cache-coherency');
  }

  #checkMsi({ group }: IommufdGroup): void {
    const open = group.members.find((member) => !member.isolatedMsi);
    if (open === undefined || this.context.environment.allowUnsafeInterrupts === true) return;
    throw new Errno(
      'EPERM',
      `interrupts of ${open.name} in group ${group.id} are not remapped, DMA could forge them (allow_unsafe_interrupts overrides)`,
    );
  }

  #changePt(pasid: number, ptId: number, act: AttachAction): number {
    const source = this.context.objects.any(ptId);
    if (source instanceof HwPagetable) {
      const old = act(this, pasid, source);
      if (old !== undefined) putHwpt(this.context, old);
      return source.id;
    }
    if (source instanceof Ioas) return this.#attachIoas(source, pasid, act);
    throw new Errno('EINVAL', `${String(source)} is not a page table to attach to`);
  }

  /** Tries each automatic HWPT of the IOAS, then makes one. After iommufd_device_auto_get_domain. */
  #attachIoas(ioas: Ioas, pasid: number, act: AttachAction): number {
    for (const hwpt of ioas.hwpts) {
      if (!hwpt.automatic) continue;
      const outcome = tryCompatible(() => act(this, pasid, hwpt));
      if (outcome === 'incompatible') continue;
      if (outcome !== undefined) putHwpt(this.context, outcome);
      return hwpt.id;
    }
    let old: HwPagetable | undefined;
    const attach: PendingAttach = {
      attach: (hwpt) => {
        attachHwpt(this, pasid, hwpt);
      },
      undo: () => {
        undoAttach(this, pasid);
      },
    };
    const made = allocPaging(
      this.context,
      { ioas, device: this },
      { flags: 0, ...(act === attachHwpt && { attach }) },
      (hwpt) => {
        if (act !== attachHwpt) old = act(this, pasid, hwpt);
        hwpt.automatic = true;
      },
    );
    if (old !== undefined) putHwpt(this.context, old);
    return made.id;
  }
}

/** @returns the HWPT that was left, with the hold of this call, which the caller gives up when all else is done */
type AttachAction = (
  device: IommufdDevice,
  pasid: number,
  hwpt: HwPagetable,
) => HwPagetable | undefined;

/** EINVAL means that this page table does not fit the device, and another may; all else is final. */
function tryCompatible(
  act: () => HwPagetable | undefined,
): HwPagetable | undefined | 'incompatible' {
  try {
    return act();
  } catch (error) {
    if (error instanceof Errno && error.code === 'EINVAL') return 'incompatible';
    throw error;
  }
}

/** Gives up a hold; an automatic HWPT goes with the last. After iommufd_hw_pagetable_put. */
function putHwpt(context: Context, hwpt: HwPagetable): void {
  if (hwpt instanceof HwptPaging && hwpt.automatic) context.objects.putAndTryDestroy(hwpt);
  else hwpt.users--;
}

/** What attaching to a HWPT takes: memory, reserved regions of its IOAS, a suitable PASID. */
const HWPT_SIDE: AttachmentSide<IommufdDevice, HwPagetable> = {
  admit: (device, pasid, hwpt) => {
    device.context.environment.faults.alloc('attachment');
    if (pasid === NO_PASID) reserveRegions(device, hwpt);
  },
  dismiss: ({ iommu }, pasid, hwpt) => {
    if (pasid === NO_PASID) hwpt.paging.ioas.iopt.reserved.removeOwner(iommu);
  },
  admitAll: (attach, pasid, hwpt) => {
    if (pasid === NO_PASID && attach.hwpt.paging.ioas !== hwpt.paging.ioas) {
      reserveForAll(attach, hwpt);
    }
  },
  dismissAll: (attach, pasid, unused, used) => {
    if (pasid === NO_PASID && unused.paging.ioas !== used.paging.ioas) {
      unreserveAll(attach, unused);
    }
  },
  handle: (device, pasid, hwpt) => {
    checkPasid(device, pasid, hwpt);
    device.context.environment.faults.alloc('attach handle');
    return new IommufdAttachHandle(device, hwpt);
  },
  forgotten: (hwpt, handle) => {
    if (handle !== undefined) hwpt.fault?.answerAll(handle);
  },
};

function attachHwpt(device: IommufdDevice, pasid: number, hwpt: HwPagetable): undefined {
  attachTo(HWPT_SIDE, device, pasid, hwpt);
  hwpt.users++;
}

function reserveRegions(device: IommufdDevice, hwpt: HwPagetable): void {
  const { iommu } = device;
  const { iopt } = hwpt.paging.ioas;
  const swMsi = iommu.reservedRegions.filter(({ type }) => type === 'sw-msi').length;
  const hwMsi = iommu.reservedRegions.filter(({ type }) => type === 'msi').length;
  iopt.enforceRegions(iommu, iommu.name, iommu.reservedRegions);
  if ((swMsi > 0 && hwMsi > 0) || swMsi > 1) {
    iopt.reserved.removeOwner(iommu);
    throw new Errno('EINVAL', `${iommu.name} offers more than one way to place its MSI window`);
  }
}

/** After iommufd_hwpt_pasid_compat. */
function checkPasid({ attachments }: IommufdDevice, pasid: number, hwpt: HwPagetable): void {
  if (pasid === NO_PASID) {
    const other = [...attachments.keys()].find((key) => key !== NO_PASID);
    if (hwpt.pasidCompatible || other === undefined) return;
    throw new Errno(
      'EINVAL',
      `PASID ${other} is attached, so ${String(hwpt)} would have to be made with ALLOC_PASID`,
    );
  }
  if (!hwpt.pasidCompatible) {
    throw new Errno('EINVAL', `${String(hwpt)} was not made with ALLOC_PASID`);
  }
  const rid = attachments.get(NO_PASID);
  if (rid !== undefined && !rid.hwpt.pasidCompatible) {
    throw new Errno(
      'EINVAL',
      `${String(rid.hwpt)}, to which the device itself is attached, was not made with ALLOC_PASID`,
    );
  }
}

/** Undoes {@link attachHwpt} while its page table is still being made. */
function undoAttach(device: IommufdDevice, pasid: number): void {
  const hwpt = detachHwpt(device, pasid);
  if (hwpt !== undefined) hwpt.users--;
}

/** @returns the HWPT, still with the hold of the attachment */
function detachHwpt(device: IommufdDevice, pasid: number): HwPagetable | undefined {
  return detachFrom(HWPT_SIDE, device, pasid);
}

function replaceHwpt(
  device: IommufdDevice,
  pasid: number,
  hwpt: HwPagetable,
): HwPagetable | undefined {
  const moved = replaceBy(HWPT_SIDE, device, pasid, hwpt);
  if (moved === undefined) return undefined;
  const { attachment, left } = moved;
  // The holds of all devices move; that of this device stays on the old one until the caller gives it up.
  hwpt.users += attachment.devices.size;
  left.users -= attachment.devices.size - 1;
  return left;
}

function reserveForAll(attach: Attach, hwpt: HwPagetable): void {
  const { iopt } = hwpt.paging.ioas;
  try {
    for (const { iommu } of attach.devices.values()) {
      iopt.enforceRegions(iommu, iommu.name, iommu.reservedRegions);
    }
  } catch (error) {
    unreserveAll(attach, hwpt);
    throw error;
  }
}

function unreserveAll(attach: Attach, hwpt: HwPagetable): void {
  for (const { iommu } of attach.devices.values())
    hwpt.paging.ioas.iopt.reserved.removeOwner(iommu);
}
