/** The machine of the kernel's own tests: /dev/iommu with the mock driver, and the switches of its fault injection. */
import { faultSwitches, TaskFaults } from './fail-nth.ts';
import { Kernel } from './kernel.ts';
import { mockSystem } from './system.ts';
import { iommuNode } from './vfs/devfs.ts';
import { fixed, over } from './vfs/tree.ts';

export type BootOptions = {
  /** look at all invariants after every call */
  readonly check?: boolean;
};

export function bootSelftest(options: BootOptions = {}): Kernel {
  const { physical, faults, iommufd } = mockSystem(options);
  return new Kernel({
    names: fixed({
      dev: over({ iommu: iommuNode(iommufd) }),
      sys: over({ kernel: over({ debug: faultSwitches() }) }),
    }),
    faults: new TaskFaults(faults),
    memory: physical,
    leaks: () => iommufd.leaks(),
  });
}
