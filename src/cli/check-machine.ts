/** The devices of a machine that an exploration is about: the endpoints of one group, with what the rules ask about them. */
import { BUILT_IN_MACHINES, type CheckDevice, type CheckMachine } from '../check/model.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import type { IommuGroup } from '../iommu/group.ts';
import type { ProfileName } from '../iommu/profile.ts';
import type { PciSystem } from '../kernel/pci-system.ts';
import { pciSystem } from '../kernel/system.ts';
import { managedDriver } from '../machine/drivers.ts';
import type { Machine } from '../machine/machine.ts';
import { UsageError } from './command.ts';
import { machineFrom } from './machine-argument.ts';

/** More devices than this are left out; each multiplies the states by about ten. */
const MOST_DEVICES = 3;

type Choice = { readonly group?: number | undefined; readonly profile: ProfileName };

/**
 * @param written a built-in machine of the checker, or whatever names a machine elsewhere
 * @param options.group the number of the group; undefined for the first with most devices
 * @param options.profile decides what the groups of a machine are
 */
export function checkMachine(written: string, { group, profile }: Choice): CheckMachine {
  const builtIn = BUILT_IN_MACHINES.find(({ name }) => name === written);
  if (builtIn !== undefined && group === undefined) return builtIn;
  return fromMachine(readMachine(written), { group, profile });
}

function readMachine(written: string): Machine {
  try {
    return machineFrom(written);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const names = BUILT_IN_MACHINES.map(({ name }) => name).join(', ');
    throw new UsageError(`${error.message}; the checker also has ${names}`);
  }
}

function fromMachine(machine: Machine, { group: wanted, profile }: Choice): CheckMachine {
  const { pci, groups } = pciSystem(machine, { profile, ops: bareIommu(), drivers: [] });
  const sized = groups.list().map((group) => ({ group, devices: endpoints(pci, group) }));
  const chosen =
    wanted === undefined
      ? sized.reduce((best, each) => (each.devices.length > best.devices.length ? each : best))
      : sized.find(({ group }) => group.id === wanted);
  if (chosen === undefined || chosen.devices.length === 0) {
    const usable = sized.filter(({ devices }) => devices.length > 0).map(({ group }) => group.id);
    throw new UsageError(
      `${machine.name} has no group ${wanted ?? ''} with a device to assign; there are ${usable.join(', ')}`,
    );
  }
  return {
    name: `${machine.name}, group ${chosen.group.id}`,
    devices: chosen.devices.slice(0, MOST_DEVICES),
  };
}

// Bridges have no DMA of their own, and their driver leaves the group's to user space: they change nothing.
function endpoints(system: PciSystem, group: IommuGroup): CheckDevice[] {
  return group.members.flatMap((device) => {
    const pci = system.function(device.name)?.pci;
    if (pci === undefined || pci.isBridge) return [];
    const { driver } = pci.facts;
    const kernel = driver !== undefined && managedDriver(driver) === undefined;
    return [
      {
        name: device.name,
        group: 0,
        kernelDriver: kernel ? driver : 'a kernel driver',
        present: true,
        direct: device.reservedRegions.some(({ type }) => type === 'direct'),
        ats: device.atsSupported,
        pasid: device.maxPasids > 1,
        requesterIds: device.requesterIds,
        sourceValidated: device.sourceValidated,
      },
    ];
  });
}
