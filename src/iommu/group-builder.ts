/**
 * Groups of a whole machine: devices come and go, each keeps the number of its group and the reason for it.
 *
 * Invariants: a group exists as long as it has a member or somebody holds it; its number is the lowest that was free when
 * it was made. A device that no IOMMU translates has no group.
 *
 * After drivers/iommu/iommu.c: iommu_group_alloc (ida), iommu_group_add_device, iommu_group_put.
 */
import { selectGroup, type GroupRules, type Merge } from './pci-groups.ts';
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';

export class PciGroup {
  readonly id: number;
  /** in the order in which they joined; the first one made the group */
  readonly members: PciDevice[] = [];
  /** references besides those of the members */
  holders = 0;

  constructor(id: number) {
    this.id = id;
  }
}

export class GroupBuilder {
  readonly #rules: GroupRules;
  readonly #groups = new Map<number, PciGroup>();
  readonly #byDevice = new Map<PciDevice, PciGroup>();
  readonly #merges = new Map<PciDevice, Merge>();
  // Every number below is taken; above it, only `#free` knows. Keeps numbering linear for machines that only grow.
  #next = 0;
  readonly #free: number[] = [];

  constructor(rules: GroupRules = {}) {
    this.#rules = rules;
  }

  /** Groups by number, ascending. */
  get groups(): PciGroup[] {
    return [...this.#groups.values()].sort((a, b) => a.id - b.id);
  }

  groupOf(device: PciDevice): PciGroup | undefined {
    return this.#byDevice.get(device);
  }

  /** Why `device` joined a group that was there; undefined for the one that made its group. */
  mergeOf(device: PciDevice): Merge | undefined {
    return this.#merges.get(device);
  }

  /** Gives `device` its group. Bridges come before what is behind them. */
  add(device: PciDevice): PciGroup {
    const present = this.#byDevice.get(device);
    if (present !== undefined) return present;
    const { group, merge } = selectGroup(device, (other) => this.#byDevice.get(other), this.#rules);
    const joined = group ?? this.#allocate();
    joined.members.push(device);
    this.#byDevice.set(device, joined);
    if (merge !== undefined) this.#merges.set(device, merge);
    return joined;
  }

  /** Groups every device of `machine` that an IOMMU translates for, and each that comes later, until it goes. */
  follow(machine: Machine): void {
    for (const device of machine.devices) this.#found(machine, device);
    machine.subscribe({
      added: (device) => {
        this.#found(machine, device);
      },
      removed: (device) => {
        this.remove(device);
      },
    });
  }

  #found(machine: Machine, device: PciDevice): void {
    if (machine.iommuOf(device) !== undefined) this.add(device);
  }

  /** Takes `device` out; the number of a group without members and holders is free again. */
  remove(device: PciDevice): void {
    const group = this.#byDevice.get(device);
    if (group === undefined) return;
    group.members.splice(group.members.indexOf(device), 1);
    this.#byDevice.delete(device);
    this.#merges.delete(device);
    this.#retire(group);
  }

  /** Keeps the number of `group` although its members may go. */
  hold(group: PciGroup): void {
    group.holders += 1;
  }

  release(group: PciGroup): void {
    group.holders -= 1;
    this.#retire(group);
  }

  #allocate(): PciGroup {
    let id = this.#next;
    if (this.#free.length > 0) {
      id = Math.min(...this.#free);
      this.#free.splice(this.#free.indexOf(id), 1);
    } else {
      this.#next += 1;
    }
    const group = new PciGroup(id);
    this.#groups.set(id, group);
    return group;
  }

  #retire(group: PciGroup): void {
    if (group.members.length > 0 || group.holders > 0) return;
    this.#groups.delete(group.id);
    this.#free.push(group.id);
  }
}
