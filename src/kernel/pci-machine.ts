/** A PCI machine as programs see it: its names below /dev and /sys, alive. */
import type { ProfileName } from '../iommu/profile.ts';
import type { Machine } from '../machine/machine.ts';
import { Kernel } from './kernel.ts';
import type { BootOptions } from './selftest-machine.ts';
import { pciSystem } from './system.ts';
import { pciNames } from './vfs/sysfs.ts';
import { NameChanges } from './vfs/tree.ts';
import { Uevents } from './vfs/uevent.ts';

export type PciBootOptions = BootOptions & {
  readonly profile?: ProfileName;
  /** how many processors the lists of those near a device name; default: one */
  readonly cpus?: number;
};

/** Boots Linux on a PCI machine. */
export function bootPci(machine: Machine, options: PciBootOptions = {}): Kernel {
  const { physical, iommufd, pci, parameters } = pciSystem(machine, options);
  pci.vfioEnablesSriov = () => parameters.get('vfio_pci.enable_sriov') === true;
  const changes = new NameChanges();
  const uevents = new Uevents();
  const context = { system: pci, changes, uevents, cpus: options.cpus ?? 1 };
  return new Kernel({
    names: pciNames(context, { iommufd, parameters }),
    changes,
    uevents,
    memory: physical,
    leaks: () => iommufd.leaks(),
  });
}
