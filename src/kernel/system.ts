/**
 * A machine at work: physical memory, IOMMU groups and /dev/iommu, and on a machine with PCI devices driver core and VFIO
 * too. This is the one place that puts them together; whoever wants a machine (a run, tests, replays, `why`, the checker) asks
 * here and differs by options alone.
 *
 * Not here: names. What a process finds below /dev and /sys is built on top (pci-machine.ts, selftest-machine.ts).
 *
 * Invariant: everything of one system works on the same memory, the same groups and the same fault injection.
 */
import { Faults } from '../base/faults.ts';
import { DmaFaultLog } from '../iommu/dma-faults.ts';
import type { IommuDevice, IommuOps } from '../iommu/domain.ts';
import { builderFor } from '../iommu/group-builder.ts';
import { GroupTable } from '../iommu/group.ts';
import { pcIommu } from '../iommu/hardware/pc.ts';
import { PROFILES, type ProfileName } from '../iommu/profile.ts';
import { Iommufd, type IommufdOptions } from '../iommufd/iommufd.ts';
import type { DriverSpec } from '../machine/drivers.ts';
import type { Iommu, IommuKind, Machine, VtdRegisters } from '../machine/machine.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { IOMMU_HWPT_ALLOC_PASID } from '../uapi/iommufd.ts';
import { Vfio, type VfioOptions } from '../vfio/vfio.ts';
import { PciSystem } from './pci-system.ts';
import { initialParameters, vfioParameters, type Parameters } from './vfs/sysfs-module.ts';

/** What every machine has. */
export type System = {
  readonly physical: PhysicalMemory;
  readonly faults: Faults;
  readonly groups: GroupTable;
  readonly iommufd: Iommufd;
};

/** A machine with PCI devices. */
export type PciSystemParts = System & {
  readonly vfio: Vfio;
  readonly pci: PciSystem;
  /** of the modules, as they are now; a program can change them through /sys */
  readonly parameters: Parameters;
  /** requests of devices that did not reach memory */
  readonly dmaFaults: DmaFaultLog;
};

type CommonOptions = {
  /** check all invariants after every call of /dev/iommu */
  readonly check?: boolean;
};

export type PciOptions = CommonOptions & {
  /** default: linux */
  readonly profile?: ProfileName;
  /** one driver for all IOMMUs of the machine; default: one for each kind */
  readonly ops?: IommuOps;
  readonly vfio?: VfioOptions;
  /** in the order of their registration; default: as {@link PciSystem} says */
  readonly drivers?: readonly DriverSpec[];
  readonly boot?: 'as-described' | 'autoprobe';
};

/** The machine of the kernel's own tests: /dev/iommu with the mock driver, whose test commands make the devices. */
export function mockSystem(options: CommonOptions = {}): System {
  return wired(new GroupTable(), { ...options, mock: true });
}

/** Boots Linux on a machine with PCI devices. */
export function pciSystem(machine: Machine, options: PciOptions = {}): PciSystemParts {
  const { profile = 'linux', ops, drivers, boot } = options;
  const groups = new GroupTable({
    profile: PROFILES[profile],
    defaultDomain: isPassthrough(machine) ? 'identity' : 'dma-fq',
  });
  const { unsafeInterrupts } = machine;
  const system = wired(groups, {
    ...options,
    mock: false,
    // As distributions build both; the mock driver makes no device that would need it.
    noIommu: true,
    unsafeInterrupts: unsafeInterrupts.iommufd,
  });
  const parameters = initialParameters();
  parameters.set('vfio_iommu_type1.allow_unsafe_interrupts', unsafeInterrupts.type1);
  parameters.set('iommufd.allow_unsafe_interrupts', unsafeInterrupts.iommufd);
  parameters.set('vfio.enable_unsafe_noiommu_mode', machine.noIommu);
  const vfio = new Vfio({
    parameters: vfioParameters(parameters),
    // Containers and IOMMUFD pin the same memory.
    pinning: system.iommufd.environment,
    iommuGroups: groups,
    ...options.vfio,
  });
  const dmaFaults = new DmaFaultLog();
  const pci = new PciSystem(machine, {
    dma: {
      physical: system.physical,
      report: (fault) => {
        dmaFaults.report(fault);
      },
    },
    ops: ops === undefined ? driversByKind(machine) : () => ops,
    groups,
    builder: builderFor(machine, profile, groups),
    vfio,
    ...(drivers === undefined ? {} : { drivers }),
    ...(boot === undefined ? {} : { boot }),
  });
  return { ...system, vfio, pci, parameters, dmaFaults };
}

/** One driver for each kind of IOMMU, made when the first of its kind is met. */
function driversByKind({ iommus }: Machine): (iommu: Iommu | undefined) => IommuOps {
  const known = new Map<IommuKind, IommuOps>();
  const registersOf = ({ instance }: IommuDevice): VtdRegisters | undefined =>
    iommus.find((iommu) => iommu === instance)?.registers;
  return (iommu) => {
    // A device that nothing translates for is never attached to anything.
    const kind = iommu?.kind ?? 'other';
    const ops = known.get(kind) ?? pcIommu(IOMMU_HWPT_ALLOC_PASID, kind, registersOf);
    known.set(kind, ops);
    return ops;
  };
}

// iommu.passthrough is one switch for the whole machine; a file that has it for some IOMMUs only is refused.
function isPassthrough({ iommus }: Machine): boolean {
  return iommus.length > 0 && iommus.every(({ mode }) => mode === 'passthrough');
}

type Wanted = CommonOptions & Pick<IommufdOptions, 'mock' | 'noIommu' | 'unsafeInterrupts'>;

function wired(groups: GroupTable, wanted: Wanted): System {
  const physical = new PhysicalMemory();
  const faults = new Faults();
  return {
    physical,
    faults,
    groups,
    iommufd: new Iommufd({ ...wanted, physical, groups, faults }),
  };
}
