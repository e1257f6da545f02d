/**
 * What VFIO wants from IOMMUFD: bind a device to a context, then attach, replace and detach page tables by ID. The context
 * is the owner of the group's DMA from bind to unbind, and a bound device keeps it alive.
 *
 * After drivers/vfio/iommufd.c and include/linux/iommufd.h.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { DmaOwner, IommuGroup } from '../iommu/group.ts';
import { NO_PASID } from '../iommu/attach.ts';
import type { Context } from '../iommufd/context.ts';
import { IommufdDevice } from '../iommufd/device.ts';
import { IommufdFile } from '../iommufd/file.ts';
import { compatIoas, createCompatIoas, setNoIommuMode } from '../iommufd/vfio-compat.ts';
import type { VfioDevice } from './state.ts';

/** One open of /dev/iommu. */
export type IommufdContext = DmaOwner & {
  /** Claims the device's group for this context. Throws EINVAL, ENODEV, EPERM, EBUSY (S13.1). */
  bind(device: IommuDevice): IommufdBinding;
  /** Makes sure that there is an IOAS for a VFIO container. */
  createCompatIoas(): void;
  hasCompatIoas(): boolean;
  /** ENODEV without. */
  compatIoasId(): number;
  /** A device of the group is bound to the context. */
  hasGroup(group: IommuGroup): boolean;
  /** The container of no-iommu groups: there must be no IOAS for it (EINVAL), and there will be none. */
  setNoIommuMode(): void;
  /** A group file that uses the context as container keeps it alive. */
  get(): unknown;
  put(): void;
};

/** A device bound to a context. */
export type IommufdBinding = {
  /** of the device object in the context */
  readonly id: number;
  readonly context: IommufdContext;
  /** @returns the ID of the HWPT that the device ended up on */
  attach(pasid: number, ptId: number): number;
  replace(pasid: number, ptId: number): number;
  detach(pasid: number): void;
  /** Ends the claim. Everything is detached before. */
  unbind(): void;
};

const VIEWS = new WeakMap<Context, IommufdContext>();

/** IOMMUFD's engine as VFIO sees it: one view per context. */
export function vfioView(context: Context): IommufdContext {
  const known = VIEWS.get(context);
  if (known !== undefined) return known;
  const view: IommufdContext = {
    name: context.name,
    bind: (device) => bindingOf(IommufdDevice.bindDevice(context, device), view),
    createCompatIoas: () => {
      createCompatIoas(context);
    },
    hasCompatIoas: () => context.vfioIoas !== undefined,
    compatIoasId: () => compatIoas(context).id,
    hasGroup: (group) => context.groups.has(group),
    setNoIommuMode: () => {
      setNoIommuMode(context);
    },
    get: () => context.get(),
    put: () => {
      context.put();
    },
  };
  VIEWS.set(context, view);
  return view;
}

function bindingOf(device: IommufdDevice, context: IommufdContext): IommufdBinding {
  return {
    id: device.id,
    context,
    attach: (pasid, ptId) => device.attach(pasid, ptId),
    replace: (pasid, ptId) => device.replace(pasid, ptId),
    detach: (pasid) => {
      device.detach(pasid);
    },
    unbind: () => {
      device.unbind();
    },
  };
}

/** The context behind an open /dev/iommu. */
export const contextOfIommufdFile: ContextOfFile = (file) =>
  file instanceof IommufdFile ? vfioView(file.context) : undefined;

/** Finds the context behind an open file of ours; undefined for files of another kind. */
export type ContextOfFile = (file: OpenFile) => IommufdContext | undefined;

// What a device knows about its IOMMUFD: the fields of VfioDevice that only the functions below write.

/** The first open of a device through an IOMMUFD. Throws what {@link IommufdContext.bind} throws. */
export function bindIommufd(device: VfioDevice, context: IommufdContext): void {
  device.binding = context.bind(device.iommu);
}

function bound({ binding }: VfioDevice): IommufdBinding {
  if (binding === undefined) throw new Errno('EINVAL', 'the device is not bound');
  return binding;
}

/** Attaches the RID, or replaces what it is attached to. @returns the ID of the HWPT */
export function attachPt(device: VfioDevice, ptId: number): number {
  const binding = bound(device);
  const id = device.attached ? binding.replace(NO_PASID, ptId) : binding.attach(NO_PASID, ptId);
  device.attached = true;
  return id;
}

export function detachPt(device: VfioDevice): void {
  if (!device.attached) return;
  bound(device).detach(NO_PASID);
  device.attached = false;
}

/** The same for a PASID. */
export function attachPasid(device: VfioDevice, pasid: number, ptId: number): number {
  const binding = bound(device);
  if (device.pasids.has(pasid)) return binding.replace(pasid, ptId);
  if (pasid > 0x7fff_ffff) throw new Errno('EINVAL', `PASID ${pasid} is out of range`);
  const id = binding.attach(pasid, ptId);
  device.pasids.add(pasid);
  return id;
}

export function detachPasid(device: VfioDevice, pasid: number): void {
  if (device.pasids.delete(pasid)) bound(device).detach(pasid);
}

/** The last close of a device that is open through an IOMMUFD: PASIDs first, then the RID, then the claim. */
export function unbindIommufd(device: VfioDevice): void {
  const binding = bound(device);
  for (const pasid of [...device.pasids].sort((a, b) => a - b)) binding.detach(pasid);
  device.pasids.clear();
  detachPt(device);
  binding.unbind();
  device.binding = undefined;
}
