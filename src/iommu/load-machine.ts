/**
 * A machine from its file, with its groups checked: what every command and every program of ours loads machines with.
 */
import { readMachineFile } from '../machine/file/read.ts';
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { formGroups, type GroupBuilder } from './group-builder.ts';
import { explainMerge } from './group-reasons.ts';

/**
 * Loads a machine file.
 * @param text YAML or JSON; docs/machine-file.md
 * @param name for messages, usually the file's name
 * @returns the machine; in a capture, the groups stay those of its kernel
 * @throws InputError with one line for each problem: where, what was expected, the nearest right word
 */
export function loadMachine(text: string, name: string): Machine {
  return load(text, name, false);
}

/** Without places first: they cost time, and only a file with something wrong needs them. */
function load(text: string, name: string, places: boolean): Machine {
  const { machine, problems, groupPlaces } = readMachineFile(text, name, places);
  if (machine.source === 'capture') return machine;
  const builder = formGroups(machine);
  for (const [device, place] of groupPlaces) {
    const group = builder.groupOf(device);
    const claimed = device.facts.recordedGroup;
    if (claimed === undefined || group?.id === claimed) continue;
    problems.add(place, contradiction(device, claimed, builder));
  }
  if (problems.any && !places) return load(text, name, true);
  problems.throwIfAny();
  return machine;
}

function contradiction(device: PciDevice, claimed: number, builder: GroupBuilder): string {
  const group = builder.groupOf(device);
  if (group === undefined) {
    return `${device.name} has no group, because no IOMMU translates for it; expected no "group"`;
  }
  const merge = builder.mergeOf(device);
  const reason =
    merge === undefined
      ? `nothing ties it to a device of group ${claimed}`
      : explainMerge(device, merge);
  return `${device.name} cannot be in group ${claimed}: ${reason}; expected group ${group.id}`;
}
