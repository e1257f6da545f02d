/** Booting a machine, whatever its kind. */
import { InputError } from '../base/input-error.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { BUILTIN_MACHINES } from '../machine/builtin.ts';
import type { Machine } from '../machine/machine.ts';
import type { Kernel } from './kernel.ts';
import { bootPci, type PciBootOptions } from './pci-machine.ts';
import { bootSelftest } from './selftest-machine.ts';

/** @param options a profile is for machines with PCI devices; the selftest machine has none */
export function bootMachine(machine: Machine, options: PciBootOptions = {}): Kernel {
  return machine.kind === 'selftest' ? bootSelftest(options) : bootPci(machine, options);
}

/** Boots a built-in machine, for programs that use the engine as a library; InputError if there is none of that name. */
export function boot(name: string, options: PciBootOptions = {}): Kernel {
  const text = Object.hasOwn(BUILTIN_MACHINES, name) ? BUILTIN_MACHINES[name] : undefined;
  if (text !== undefined) return bootMachine(loadMachine(text, name), options);
  const names = Object.keys(BUILTIN_MACHINES).join(', ');
  throw new InputError(`there is no machine "${name}"; built in are: ${names}`);
}
