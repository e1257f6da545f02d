/**
 * IommufdGroup: what a context keeps for an IOMMU group of which it has devices: what is attached, by PASID and device.
 *
 * Devices of a group share a translation. The first that attaches decides it, the others must name the same HWPT and only
 * add their reserved regions; the group leaves it with the last. Profile `subgroup` divides groups into units of devices
 * that share one (iommu/units.ts); everywhere else the group is the one unit.
 *
 * After struct iommufd_group and struct iommufd_attach of drivers/iommu/iommufd (device.c, iommufd_private.h).
 */
import type { Attachment } from './attachment.ts';
import type { Context } from './context.ts';
import type { Subgroup, IommuGroup } from '../iommu/group.ts';
import type { IommufdDevice } from './device.ts';
import type { HwPagetable } from './hw-pagetable.ts';

/** What one PASID of a group is attached to, and for which devices. */
export type Attach = Attachment<IommufdDevice, HwPagetable>;

export class IommufdGroup {
  readonly context: Context;
  readonly group: IommuGroup;
  // One table in Linux, where a group is one unit.
  readonly #tables = new Map<Subgroup, Map<number, Attach>>();
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

  /** What a unit is attached to, by PASID; key 0 is the RID. No attachment is empty of devices. */
  attachments(subgroup: Subgroup): Map<number, Attach> {
    const known = this.#tables.get(subgroup);
    if (known !== undefined) return known;
    const table = new Map<number, Attach>();
    this.#tables.set(subgroup, table);
    return table;
  }

  /** All of it, by PASID. */
  get attached(): readonly (readonly [number, Attach])[] {
    return [...this.#tables.values()].flatMap((table) => [...table]);
  }

  put(): void {
    this.#references--;
    if (this.#references > 0) return;
    if (this.attached.length > 0) throw new Error('a group is let go of with something attached');
    this.context.groups.delete(this.group);
    this.group.put();
  }
}
