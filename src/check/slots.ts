/**
 * One object for each thing that can come and go in a checked world: a device's registration with VFIO, a group's VFIO group,
 * descriptors, subgroups. Loading a state puts these in place; what an action makes anew is worth as much and is not kept.
 */
import { Subgroup } from '../iommu/group.ts';
import {
  newDevice,
  newGroup,
  type DeviceOpen,
  type GroupOpen,
  type VfioDevice,
  type VfioGroup,
} from '../vfio/state.ts';
import type { Type1, SharedDomain } from '../vfio/type1/type1.ts';
import { item } from './cells.ts';
import { VFIO_OPS, type Inventory } from './inventory.ts';

export class Slots {
  readonly vfioGroups: readonly VfioGroup[];
  readonly groupOpens: readonly GroupOpen[];
  readonly vfioDevices: readonly VfioDevice[];
  /** by user and device, as {@link slot} counts: opens of nodes, and opens through group files */
  readonly nodeOpens: readonly DeviceOpen[];
  readonly groupDeviceOpens: readonly DeviceOpen[];
  /** by group: the one of several members, then one for each device alone */
  readonly subgroups: readonly (readonly Subgroup[])[];
  /** by user */
  readonly type1s: readonly { readonly type1: Type1; readonly shared: SharedDomain }[];
  constructor(inventory: Inventory) {
    const { groups, devices, users, table } = inventory;
    this.vfioGroups = groups.map((group) => newGroup(table, group));
    this.groupOpens = this.vfioGroups.map((group) => ({ group, references: 0 }));
    this.vfioDevices = devices.map((iommu, d) => {
      const group = item(this.vfioGroups, inventory.groupIndex(d));
      return newDevice(d, { iommu, group }, VFIO_OPS);
    });
    const open = (device: VfioDevice, group: VfioGroup | undefined): DeviceOpen => ({
      device,
      group,
      accessGranted: false,
      iommufd: undefined,
    });
    const each = (make: (device: VfioDevice) => DeviceOpen): DeviceOpen[] =>
      users.flatMap(() => this.vfioDevices.map(make));
    this.nodeOpens = each((device) => open(device, undefined));
    this.groupDeviceOpens = each((device) => open(device, device.group));
    this.subgroups = groups.map((group) =>
      Array.from({ length: devices.length + 1 }, () => new Subgroup(group)),
    );
    this.type1s = users.map((_, u) => inventory.type1(u));
  }
}
