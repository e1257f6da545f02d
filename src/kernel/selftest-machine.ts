/** The machine of the kernel's own tests: /dev/iommu with the mock driver, and the switches of its fault injection. */
import { FAULT_SWITCHES, TaskFaults } from './fail-nth.ts';
import { iommuNode } from './iommu-node.ts';
import { Kernel } from './kernel.ts';
import { mockSystem } from './system.ts';

export type BootOptions = {
  /** look at all invariants after every call */
  readonly check?: boolean;
};

export function bootSelftest(options: BootOptions = {}): Kernel {
  const { physical, faults, iommufd } = mockSystem(options);
  return new Kernel({
    nodes: new Map([['/dev/iommu', iommuNode(iommufd)]]),
    folders: new Map([['/sys/kernel/debug', FAULT_SWITCHES]]),
    faults: new TaskFaults(faults),
    memory: physical,
    leaks: () => iommufd.leaks(),
  });
}
