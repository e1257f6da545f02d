/** The machines that are built in, by name. */
import { Faults } from '../base/faults.ts';
import { GroupTable } from '../iommu/group.ts';
import { Iommufd } from '../iommufd/iommufd.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { FAULT_SWITCHES, TaskFaults } from './fail-nth.ts';
import { iommuNode } from './iommu-node.ts';
import { Kernel } from './kernel.ts';

export type BootOptions = {
  /** look at all invariants after every call */
  readonly check?: boolean;
};

function bootSelftest({ check = false }: BootOptions): Kernel {
  const physical = new PhysicalMemory();
  const faults = new Faults();
  const iommufd = new Iommufd({
    physical,
    groups: new GroupTable(),
    faults,
    mock: true,
    check,
  });
  return new Kernel({
    nodes: new Map([['/dev/iommu', iommuNode(iommufd)]]),
    folders: new Map([['/sys/kernel/debug', FAULT_SWITCHES]]),
    faults: new TaskFaults(faults),
    memory: physical,
    leaks: () => iommufd.leaks(),
  });
}

const BUILT_IN: ReadonlyMap<string, (options: BootOptions) => Kernel> = new Map([
  ['selftest', bootSelftest],
]);

export const BUILT_IN_MACHINES: readonly string[] = [...BUILT_IN.keys()];

/** Boots a built-in machine; undefined if there is none of that name. */
export function bootMachine(name: string, options: BootOptions = {}): Kernel | undefined {
  return BUILT_IN.get(name)?.(options);
}

/** Boots a built-in machine, for programs that use the engine as a library; RangeError if there is none of that name. */
export function boot(name: string, options: BootOptions = {}): Kernel {
  const kernel = bootMachine(name, options);
  if (kernel !== undefined) return kernel;
  throw new RangeError(
    `there is no machine "${name}"; built in are: ${BUILT_IN_MACHINES.join(', ')}`,
  );
}
