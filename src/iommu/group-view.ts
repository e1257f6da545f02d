/**
 * The groups of a machine as they are to be shown: those that a real kernel formed where one did (a host, a capture), and
 * those that follow from the topology everywhere else, with the reasons in both cases.
 *
 * Reasons need the capabilities of every device. Where they could not be read the kernel's groups stand, without reasons.
 */
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { formGroups, groupsOf, type GroupBuilder } from './group-builder.ts';
import { isObserved } from './group-source.ts';
import type { Merge } from './pci-groups.ts';
import { PROFILES, type ProfileName } from './profile.ts';

export type ViewedGroup = { readonly id: number; readonly members: readonly PciDevice[] };

/** A device that the kernel grouped otherwise than the rules do. */
export type Disagreement = {
  readonly device: PciDevice;
  readonly kernel: readonly PciDevice[];
  readonly computed: readonly PciDevice[];
};

export class GroupView {
  readonly machine: Machine;
  readonly profile: ProfileName;
  /** `kernel`: as a real kernel formed them; `computed`: as the rules say */
  readonly source: 'kernel' | 'computed';
  /** the capabilities of every device could be read: reasons are known */
  readonly explained: boolean;
  readonly #groups: GroupBuilder;
  /** by the rules: reasons come from here */
  readonly #computed: GroupBuilder;

  /** @param booted the groups of a machine that runs, where there is one */
  constructor(machine: Machine, profile: ProfileName = 'linux', booted?: GroupBuilder) {
    const { strictAcs } = PROFILES[profile];
    this.machine = machine;
    this.profile = profile;
    this.explained = [...machine.devices].every(({ config }) => config.complete);
    this.source = isObserved(machine) && !strictAcs ? 'kernel' : 'computed';
    this.#groups = booted ?? groupsOf(machine, profile);
    this.#computed = this.source === 'kernel' ? formGroups(machine, { strictAcs }) : this.#groups;
  }

  /** By number, ascending. */
  get groups(): ViewedGroup[] {
    return this.#groups.groups;
  }

  /** undefined: the device has no group, nobody can own its DMA */
  idOf(device: PciDevice): number | undefined {
    return this.#groups.groupOf(device)?.id;
  }

  /** All members of the device's group, itself included; none without group. */
  membersWith(device: PciDevice): readonly PciDevice[] {
    return this.#groups.groupOf(device)?.members ?? [];
  }

  mergeOf(device: PciDevice): Merge | undefined {
    return this.explained ? this.#computed.mergeOf(device) : undefined;
  }

  /** Devices whose kernel group is not the one that the rules give: a patched kernel, a quirk that is not known here. */
  disagreements(): Disagreement[] {
    if (this.source === 'computed' || !this.explained) return [];
    const found: Disagreement[] = [];
    for (const { members: kernel } of this.groups) {
      for (const device of kernel) {
        const computed = this.#computed.groupOf(device)?.members ?? [];
        const same =
          kernel.length === computed.length && kernel.every((member) => computed.includes(member));
        if (!same) found.push({ device, kernel, computed });
      }
    }
    return found;
  }
}
