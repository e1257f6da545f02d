/**
 * Who is attached to what: for each subgroup and PASID one page table and the devices that use it. The first device attaches, the
 * others must name the same page table, the last one detaches; replacing moves all.
 *
 * What a page table is, and what else an attachment takes (reserved regions, memory, where faults go), comes from
 * {@link AttachmentSide}: DEVICE has IOMMUFD's HWPTs behind it, `uiommu check` names.
 *
 * Invariant: no attachment is empty of devices, and the core's handle under its PASID is set exactly as long as it is there.
 *
 * After struct iommufd_attach, iommufd_hw_pagetable_attach, iommufd_hw_pagetable_detach and iommufd_device_do_replace of
 * drivers/iommu/iommufd/device.c.
 */
import { Errno } from '../base/errno.ts';
import {
  attachDevicePasid,
  attachGroupHandle,
  detachDevicePasid,
  detachGroupHandle,
  NO_PASID,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../iommu/attach.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import type { AttachHandle, Subgroup } from '../iommu/group.ts';

/** A page table, as far as attaching goes. */
export type PageTableObject = {
  readonly domain: Domain;
  /** "HWPT_PAGING 3", for reasons */
  toString(): string;
};

/** What one PASID of a subgroup is attached to, and for which devices by their ID. */
export type Attachment<M, T> = { hwpt: T; readonly devices: Map<number, M> };

/** A bound device, as far as attaching goes. */
export type Attachable<M, T> = {
  /** unique in its context */
  readonly id: number;
  readonly iommu: IommuDevice;
  /** what the device and those that share its page table are attached to, by PASID; key 0 is the RID */
  readonly attachments: Map<number, Attachment<M, T>>;
};

/** What an attachment is made of beyond the core's. */
export type AttachmentSide<M, T> = {
  /** Before a device joins an attachment. Throws Errno. */
  admit(device: M, pasid: number, hwpt: T): void;
  /** Undoes {@link admit}. */
  dismiss(device: M, pasid: number, hwpt: T): void;
  /** Before all devices of an attachment move. Throws Errno. */
  admitAll(attachment: Attachment<M, T>, pasid: number, hwpt: T): void;
  /** They are not on `unused`, but on `used`: moved away, or never there. */
  dismissAll(attachment: Attachment<M, T>, pasid: number, unused: T, used: T): void;
  /** What the core keeps, made where the page table suits the PASID. Throws Errno. */
  handle(device: M, pasid: number, hwpt: T): AttachHandle;
  /** The core has forgotten the handle. */
  forgotten(hwpt: T, handle: AttachHandle | undefined): void;
};

function subgroupOf(iommu: IommuDevice): Subgroup {
  return iommu.requireGroup().subgroupOf(iommu);
}

/** EBUSY for a device that is attached, EINVAL where its peers are on another page table; the side's and the core's errors. */
export function attachTo<M extends Attachable<M, T>, T extends PageTableObject>(
  side: AttachmentSide<M, T>,
  device: M,
  pasid: number,
  hwpt: T,
): void {
  const { iommu, attachments } = device;
  const current = attachments.get(pasid);
  if (current?.devices.has(device.id)) {
    throw new Errno('EBUSY', `${iommu.name} is attached to ${String(current.hwpt)} already`);
  }
  if (current !== undefined && current.hwpt !== hwpt) {
    throw new Errno(
      'EINVAL',
      `group ${iommu.requireGroup().id} of ${iommu.name} is attached to ${String(current.hwpt)}, all its devices must be`,
    );
  }
  side.admit(device, pasid, hwpt);
  try {
    if (current === undefined) attachFirst(side, device, pasid, hwpt);
  } catch (error) {
    side.dismiss(device, pasid, hwpt);
    throw error;
  }
  const attachment = current ?? { hwpt, devices: new Map<number, M>() };
  attachment.devices.set(device.id, device);
  attachments.set(pasid, attachment);
}

function attachFirst<M extends Attachable<M, T>, T extends PageTableObject>(
  side: AttachmentSide<M, T>,
  device: M,
  pasid: number,
  hwpt: T,
): void {
  const handle = side.handle(device, pasid, hwpt);
  const { iommu } = device;
  if (pasid === NO_PASID) attachGroupHandle(subgroupOf(iommu), hwpt.domain, handle);
  else attachDevicePasid(iommu, pasid, hwpt.domain, handle);
}

/** Cannot fail. @returns the page table that was left; undefined if the device was not attached */
export function detachFrom<M extends Attachable<M, T>, T extends PageTableObject>(
  side: AttachmentSide<M, T>,
  device: M,
  pasid: number,
): T | undefined {
  const { attachments, iommu } = device;
  const attachment = attachments.get(pasid);
  // A second detach of one member must not take the hold of another.
  if (!attachment?.devices.delete(device.id)) return undefined;
  const { hwpt } = attachment;
  if (attachment.devices.size === 0) {
    const subgroup = subgroupOf(iommu);
    const handle = subgroup.pasidArray.get(pasid)?.handle;
    if (pasid === NO_PASID) detachGroupHandle(subgroup);
    else detachDevicePasid(iommu, pasid);
    side.forgotten(hwpt, handle);
    attachments.delete(pasid);
  }
  side.dismiss(device, pasid, hwpt);
  return hwpt;
}

/**
 * Moves a device, with all that share its page table, to another one.
 * @returns the attachment that moved and the page table that it left; undefined where nothing moved
 * @throws Errno EINVAL for a device that is not attached; the side's and the core's errors
 */
export function replaceBy<M extends Attachable<M, T>, T extends PageTableObject>(
  side: AttachmentSide<M, T>,
  device: M,
  pasid: number,
  hwpt: T,
): { readonly attachment: Attachment<M, T>; readonly left: T } | undefined {
  const attachment = device.attachments.get(pasid);
  if (!attachment?.devices.has(device.id)) {
    const which = pasid === NO_PASID ? '' : ` with PASID ${pasid}`;
    throw new Errno('EINVAL', `${device.iommu.name} is not attached${which}`);
  }
  const left = attachment.hwpt;
  if (left === hwpt) return undefined;
  side.admitAll(attachment, pasid, hwpt);
  try {
    switchHandle(side, device, pasid, { left, hwpt });
  } catch (error) {
    side.dismissAll(attachment, pasid, hwpt, left);
    throw error;
  }
  side.dismissAll(attachment, pasid, left, hwpt);
  attachment.hwpt = hwpt;
  return { attachment, left };
}

function switchHandle<M extends Attachable<M, T>, T extends PageTableObject>(
  side: AttachmentSide<M, T>,
  device: M,
  pasid: number,
  { left, hwpt }: { readonly left: T; readonly hwpt: T },
): void {
  const handle = side.handle(device, pasid, hwpt);
  const subgroup = subgroupOf(device.iommu);
  const before = subgroup.pasidArray.get(pasid)?.handle;
  if (pasid === NO_PASID) replaceGroupHandle(subgroup, hwpt.domain, handle);
  else replaceDevicePasid(device.iommu, pasid, hwpt.domain, handle);
  side.forgotten(left, before);
}
