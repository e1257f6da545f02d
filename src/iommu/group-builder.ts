/**
 * The groups of PCI devices as they come and go: which group a device belongs to, and the reason. A booted machine
 * (kernel/pci-system.ts) and whoever only wants to know the groups (group-view.ts) use this one.
 *
 * Invariants: every member holds a reference of its group, whose number is free again when the last reference went
 * (group.ts, GroupTable). A device that no IOMMU translates for has no group.
 *
 * After drivers/iommu/iommu.c: iommu_group_add_device, iommu_group_put; the order of a boot after bus_iommu_probe and
 * iommu_device_register.
 */
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { recordedGroupsOf, type GroupSource } from './group-source.ts';
import { GroupTable, type IommuGroup } from './group.ts';
import { selectGroup, type GroupRules, type Merge } from './pci-groups.ts';
import { PROFILES, type ProfileName } from './profile.ts';

/** A group with its members that are PCI devices. */
export type PciGroup = {
  readonly id: number;
  readonly iommu: IommuGroup;
  /** in the order in which they joined; the first one made the group */
  readonly members: PciDevice[];
};

export type BuilderOptions = {
  readonly table?: GroupTable;
  readonly rules?: GroupRules;
  /** default: by the rules alone */
  readonly source?: GroupSource;
};

export class GroupBuilder {
  readonly #table: GroupTable;
  readonly #rules: GroupRules;
  readonly #source: GroupSource | undefined;
  readonly #groups = new Map<IommuGroup, PciGroup>();
  readonly #byDevice = new Map<PciDevice, PciGroup>();
  readonly #merges = new Map<PciDevice, Merge>();

  constructor({ table = new GroupTable(), rules = {}, source }: BuilderOptions = {}) {
    this.#table = table;
    this.#rules = rules;
    this.#source = source;
    for (const id of source?.ids ?? []) table.reserve(id);
  }

  /** Groups with PCI devices by number, ascending. */
  get groups(): PciGroup[] {
    return [...this.#groups.values()].sort((a, b) => a.id - b.id);
  }

  groupOf(device: PciDevice): PciGroup | undefined {
    return this.#byDevice.get(device);
  }

  /** Why `device` joined a group that was there; undefined for the one that made its group, and for recorded groups. */
  mergeOf(device: PciDevice): Merge | undefined {
    return this.#merges.get(device);
  }

  /** Gives `device` its group. Bridges come before what is behind them. */
  add(device: PciDevice): PciGroup {
    const present = this.#byDevice.get(device);
    if (present !== undefined) return present;
    const id = this.#source?.idOf(device);
    const numbered = id === undefined ? undefined : this.#table.get(id);
    const known =
      id === undefined ? this.#selected(device) : numbered && this.#groups.get(numbered);
    const group = known ?? this.#alloc(numbered === undefined ? id : undefined);
    if (known !== undefined) known.iommu.ref();
    group.members.push(device);
    this.#byDevice.set(device, group);
    return group;
  }

  #selected(device: PciDevice): PciGroup | undefined {
    const { group, merge } = selectGroup(device, (other) => this.#byDevice.get(other), this.#rules);
    if (merge !== undefined) this.#merges.set(device, merge);
    return group;
  }

  // Its one reference is that of its first member.
  #alloc(id: number | undefined): PciGroup {
    const iommu = this.#table.alloc(id);
    const group: PciGroup = { id: iommu.id, iommu, members: [] };
    this.#groups.set(iommu, group);
    return group;
  }

  /** Takes `device` out of its group. */
  remove(device: PciDevice): void {
    const group = this.#byDevice.get(device);
    if (group === undefined) return;
    group.members.splice(group.members.indexOf(device), 1);
    this.#byDevice.delete(device);
    this.#merges.delete(device);
    if (group.members.length === 0) this.#groups.delete(group.iommu);
    group.iommu.put();
  }
}

/**
 * The devices that an IOMMU translates for in the order in which a booting Linux brings them under it: IOMMU by IOMMU as they are
 * registered, and within each in the order of the bus. Virtual functions do not exist yet then; they come last.
 */
export function bootOrder(machine: Machine): PciDevice[] {
  const translated = [...machine.devices].filter((device) => machine.iommuOf(device) !== undefined);
  const present = translated.filter(({ isVirtualFunction }) => !isVirtualFunction);
  return [
    ...machine.iommus.flatMap((iommu) =>
      present.filter((device) => machine.iommuOf(device) === iommu),
    ),
    ...translated.filter(({ isVirtualFunction }) => isVirtualFunction),
  ];
}

/** Forms the groups of `machine` by the rules, as a booting Linux does. */
export function formGroups(machine: Machine, rules: GroupRules = {}): GroupBuilder {
  return filled(machine, new GroupBuilder({ rules }));
}

/** The groups that `machine` has under a profile: those of its own kernel, where it shows them. */
export function groupsOf(machine: Machine, profile: ProfileName): GroupBuilder {
  return filled(machine, builderFor(machine, profile));
}

/** Profile strict-acs asks what would be; all others keep what a real kernel formed. */
export function builderFor(
  machine: Machine,
  profile: ProfileName,
  table?: GroupTable,
): GroupBuilder {
  const { strictAcs } = PROFILES[profile];
  const source = strictAcs ? undefined : recordedGroupsOf(machine);
  return new GroupBuilder({
    rules: { strictAcs },
    ...(table && { table }),
    ...(source && { source }),
  });
}

function filled(machine: Machine, builder: GroupBuilder): GroupBuilder {
  for (const device of bootOrder(machine)) builder.add(device);
  return builder;
}
