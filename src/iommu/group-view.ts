/**
 * The groups of a machine as they are to be shown: those that a real kernel formed where one did (a host, a capture), and
 * those that follow from the topology everywhere else, with the reasons in both cases.
 *
 * Reasons need the capabilities of every device. Where they could not be read the kernel's groups stand, without reasons.
 */
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { GroupBuilder } from './group-builder.ts';
import type { GroupProfile, GroupRules, Merge } from './pci-groups.ts';

export type ViewedGroup = { readonly id: number; readonly members: readonly PciDevice[] };

/** A device that the kernel grouped otherwise than the rules do. */
export type Disagreement = {
  readonly device: PciDevice;
  readonly kernel: readonly PciDevice[];
  readonly computed: readonly PciDevice[];
};

/** Forms the groups of every device that an IOMMU translates for, in the order in which Linux found them. */
export function formGroups(machine: Machine, rules: GroupRules = {}): GroupBuilder {
  const builder = new GroupBuilder(rules);
  for (const device of machine.devices) {
    if (machine.iommuOf(device) !== undefined) builder.add(device);
  }
  return builder;
}

export class GroupView {
  readonly machine: Machine;
  readonly profile: GroupProfile;
  /** `kernel`: as a real kernel formed them; `computed`: as the rules say */
  readonly source: 'kernel' | 'computed';
  /** the capabilities of every device could be read: reasons are known */
  readonly explained: boolean;
  readonly builder: GroupBuilder;
  readonly #groups = new Map<number, PciDevice[]>();
  readonly #byDevice = new Map<PciDevice, number>();

  constructor(machine: Machine, profile: GroupProfile = 'linux') {
    this.machine = machine;
    this.profile = profile;
    this.explained = [...machine.devices].every(({ config }) => config.complete);
    const observed = machine.source === 'host' || machine.source === 'capture';
    this.source = observed && profile === 'linux' ? 'kernel' : 'computed';
    this.builder = formGroups(machine, { profile });
    for (const device of machine.devices) this.#place(device);
  }

  #place(device: PciDevice): void {
    const id =
      this.source === 'kernel' ? device.facts.recordedGroup : this.builder.groupOf(device)?.id;
    if (id === undefined) return;
    this.#byDevice.set(device, id);
    const members = this.#groups.get(id);
    if (members === undefined) this.#groups.set(id, [device]);
    else members.push(device);
  }

  /** By number, ascending. */
  get groups(): ViewedGroup[] {
    return [...this.#groups].map(([id, members]) => ({ id, members })).sort((a, b) => a.id - b.id);
  }

  /** undefined: the device has no group, nobody can own its DMA */
  idOf(device: PciDevice): number | undefined {
    return this.#byDevice.get(device);
  }

  membersOf(id: number): readonly PciDevice[] {
    return this.#groups.get(id) ?? [];
  }

  mergeOf(device: PciDevice): Merge | undefined {
    return this.explained ? this.builder.mergeOf(device) : undefined;
  }

  /** Devices whose kernel group is not the one that the rules give: a patched kernel, a quirk that is not known here. */
  disagreements(): Disagreement[] {
    if (this.source === 'computed' || !this.explained) return [];
    const found: Disagreement[] = [];
    for (const [device, id] of this.#byDevice) {
      const kernel = this.membersOf(id);
      const computed = this.builder.groupOf(device)?.members ?? [];
      const same =
        kernel.length === computed.length && kernel.every((member) => computed.includes(member));
      if (!same) found.push({ device, kernel, computed });
    }
    return found;
  }
}
