/**
 * What VFIO wants from IOMMUFD: bind a device to a context, then attach, replace and detach page tables by ID. The context
 * is the owner of the group's DMA from bind to unbind, and a bound device keeps it alive.
 *
 * After drivers/vfio/iommufd.c and include/linux/iommufd.h.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { DmaOwner } from '../iommu/group.ts';
import { NO_PASID } from '../iommu/attach.ts';
import type { Context } from '../iommufd/context.ts';
import { IommufdDevice } from '../iommufd/device.ts';
import { IommufdFile } from '../iommufd/file.ts';
import { compatIoas, createCompatIoas } from '../iommufd/vfio-compat.ts';

/** One open of /dev/iommu. */
export type IommufdContext = DmaOwner & {
  /** Claims the device's group for this context. Throws EINVAL, ENODEV, EPERM, EBUSY (S13.1). */
  bind(device: IommuDevice): IommufdBinding;
  /** Makes sure that there is an IOAS for a VFIO container. */
  createCompatIoas(): void;
  /** ENODEV without. */
  compatIoasId(): number;
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
    compatIoasId: () => compatIoas(context).id,
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

/** What VFIO knows about the IOMMUFD side of one device. */
export class IommufdState {
  #binding: IommufdBinding | undefined;
  #attached = false;
  readonly #pasids = new Set<number>();

  get binding(): IommufdBinding | undefined {
    return this.#binding;
  }

  bind(context: IommufdContext, device: IommuDevice): number {
    this.#binding = context.bind(device);
    return this.#binding.id;
  }

  #bound(): IommufdBinding {
    if (this.#binding === undefined) throw new Errno('EINVAL', 'the device is not bound');
    return this.#binding;
  }

  /** Attaches, or replaces what is attached. */
  attach(ptId: number): number {
    const binding = this.#bound();
    const id = this.#attached ? binding.replace(NO_PASID, ptId) : binding.attach(NO_PASID, ptId);
    this.#attached = true;
    return id;
  }

  detach(): void {
    if (!this.#attached) return;
    this.#bound().detach(NO_PASID);
    this.#attached = false;
  }

  attachPasid(pasid: number, ptId: number): number {
    const binding = this.#bound();
    if (this.#pasids.has(pasid)) return binding.replace(pasid, ptId);
    if (pasid > 0x7fff_ffff) throw new Errno('EINVAL', `PASID ${pasid} is out of range`);
    const id = binding.attach(pasid, ptId);
    this.#pasids.add(pasid);
    return id;
  }

  detachPasid(pasid: number): void {
    if (this.#pasids.delete(pasid)) this.#bound().detach(pasid);
  }

  /** PASIDs first, then the RID, then the claim. */
  unbind(): void {
    const binding = this.#bound();
    for (const pasid of [...this.#pasids].sort((a, b) => a - b)) binding.detach(pasid);
    this.#pasids.clear();
    this.detach();
    binding.unbind();
    this.#binding = undefined;
  }
}
