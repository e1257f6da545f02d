/** The machine of the kernel's own tests: /dev/iommu with the mock driver, and the switches of its fault injection. */
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

export function bootSelftest({ check = false }: BootOptions = {}): Kernel {
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
