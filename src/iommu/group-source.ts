/**
 * Where the groups of a machine come from. A real kernel formed those of a host and of a capture, perhaps patched, perhaps with
 * ACS overridden at boot: they stand, by number, for everything that runs on the machine. What comes to the machine later,
 * and every other machine, follows the rules (pci-groups.ts).
 */
import { isNoiommuGroup, type Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';

export type GroupSource = {
  /** The number of the group that a real kernel gave `device`; undefined: by the rules. */
  idOf(device: PciDevice): number | undefined;
  /** Numbers that a real kernel gave away, also those of groups without a PCI device. */
  readonly ids: Iterable<number>;
};

const BY_THE_RULES: GroupSource = { idOf: () => undefined, ids: [] };

/** The machine was read from a running kernel. */
export function isObserved({ source }: Machine): boolean {
  return source === 'host' || source === 'capture';
}

/** The groups that the kernel of `machine` formed, where it shows them; VFIO's own groups without IOMMU are none. */
export function recordedGroupsOf(machine: Machine): GroupSource {
  if (!isObserved(machine)) return BY_THE_RULES;
  const real = (id: number): boolean => !isNoiommuGroup(machine.recordedGroups.get(id));
  const shown = [...machine.devices].map(({ facts }) => facts.recordedGroup);
  return {
    idOf: ({ facts }) =>
      facts.recordedGroup !== undefined && real(facts.recordedGroup)
        ? facts.recordedGroup
        : undefined,
    ids: [...machine.recordedGroups.keys(), ...shown.filter((id) => id !== undefined)].filter(real),
  };
}
