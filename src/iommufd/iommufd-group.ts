/**
 * IommufdGroup: what a context keeps for an IOMMU group of which it has devices: what is attached, by PASID and device.
 *
 * Devices of a group share a translation. The first that attaches decides it, the others must name the same HWPT and only
 * add their reserved regions; the group leaves it with the last.
 *
 * After struct iommufd_group and struct iommufd_attach of drivers/iommu/iommufd (device.c, iommufd_private.h).
 */
import type { Context } from './context.ts';
import type { IommuGroup } from '../iommu/group.ts';
import type { IommufdDevice } from './device.ts';
import type { HwPagetable } from './hw-pagetable.ts';

/** What one PASID of a group is attached to, and for which devices. */
export type Attach = { hwpt: HwPagetable; readonly devices: Map<number, IommufdDevice> };

export class IommufdGroup {
  readonly context: Context;
  readonly group: IommuGroup;
  /** by PASID; key 0 is the RID. Never empty of devices. */
  readonly attached = new Map<number, Attach>();
  #references = 1;

  private constructor(context: Context, group: IommuGroup) {
    this.context = context;
    this.group = group.ref();
    context.groups.set(group, this);
  }

  /** The context's own view of a group, with a reference; made with the first device. */
  static get(context: Context, group: IommuGroup): IommufdGroup {
    const known = context.groups.get(group);
    if (known === undefined) {
      context.environment.faults.alloc('iommufd group');
      return new IommufdGroup(context, group);
    }
    known.#references++;
    return known;
  }

  put(): void {
    this.#references--;
    if (this.#references > 0) return;
    if (this.attached.size > 0) throw new Error('a group is let go of with something attached');
    this.context.groups.delete(this.group);
    this.group.put();
  }
}
