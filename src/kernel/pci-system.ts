/**
 * Linux on a PCI machine, as far as drivers, groups and VFIO go: every device that the machine has becomes a device of the
 * bus, comes under its IOMMU and into its group, and is offered to drivers; and back, when it is removed.
 *
 * Order on adding: group first (whatever goes wrong there, the device exists, only without group), drivers when all
 * devices that came together are there. Order on removing: driver, group, hardware.
 *
 * After drivers/pci/{probe,remove,bus}.c and the bus notifier of drivers/iommu/iommu.c.
 */
import { Errno } from '../base/errno.ts';
import { IommuDevice, type IommuOps } from '../iommu/domain.ts';
import {
  defaultDomainKindOf,
  probeDevice,
  releaseDevice,
  setupDefaultDomain,
  type GroupTable,
  type IommuGroup,
} from '../iommu/group.ts';
import { bootOrder, type GroupBuilder } from '../iommu/group-builder.ts';
import { isObserved } from '../iommu/group-source.ts';
import { managedDriver, type DriverSpec } from '../machine/drivers.ts';
import type { DeviceDescription, Iommu, Machine } from '../machine/machine.ts';
import { aliasWalk } from '../machine/pci/alias.ts';
import { acsVerdict } from '../machine/pci/acs.ts';
import { ACS_BITS, EXT_ATS, EXT_PASID } from '../machine/pci/capabilities.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { DmaPath } from '../iommu/dma.ts';
import { Vectors } from './vectors.ts';
import type { Vfio } from '../vfio/vfio.ts';
import { DriverCore, type Done } from './driver-core.ts';
import { newBusDevice, type BusDevice } from './driver-state.ts';
import { makeDriver } from './drivers.ts';
import { LINUX_DRIVERS } from './linux-drivers.ts';
import type { ManagedFunction } from '../machine/pci/managed-function.ts';
import type { Functions } from '../machine/pci/reset.ts';
import { newPciFunction, type PciFunction } from './pci-function.ts';

export type PciSystemOptions = {
  /** the driver of an IOMMU of the machine */
  readonly ops: (iommu: Iommu | undefined) => IommuOps;
  readonly groups: GroupTable;
  readonly vfio: Vfio;
  /** what DMA of a function meets on its way */
  readonly dma: DmaPath;
  /** which group a device belongs to, over the numbers of `groups` */
  readonly builder: GroupBuilder;
  /**
   * In the order of their registration. Default: some of Linux's, the machine's, and a plain one for each driver that the
   * machine names without describing it.
   */
  readonly drivers?: readonly DriverSpec[];
  /**
   * Which drivers devices have in the beginning: those that the machine says they have, or those that Linux would find.
   * Default: as described. Afterwards Linux looks for drivers as it always does.
   */
  readonly boot?: 'as-described' | 'autoprobe';
};

/** A driver did DMA, because it was told to: whether it had the right to, and what it reached. */
export type DriverDma = {
  readonly driver: string;
  readonly device: string;
  /** false for a driver that says it leaves DMA to user space: nothing stops it, this is what the flag is trusted for */
  readonly granted: boolean;
  /** name of the domain that its DMA went through; undefined without IOMMU */
  readonly through: string | undefined;
};

/** What happens around virtual functions, in Linux's order. */
export type SriovListener = {
  /** a virtual function has its links, and no driver yet */
  linked(vf: PciFunction): void;
  /** all that were asked for are there */
  enabled(physfn: PciFunction): void;
  /** the links of the physical function are others than before */
  changed(physfn: PciFunction): void;
};

export class PciSystem implements Functions {
  readonly machine: Machine;
  readonly core = new DriverCore();
  readonly groups: GroupTable;
  readonly vfio: Vfio;
  readonly #options: PciSystemOptions;
  readonly #functions = new Map<PciDevice, PciFunction>();
  readonly #byName = new Map<string, PciFunction>();
  /** experiments: what drivers did that were told to do DMA */
  readonly dma: DriverDma[] = [];
  readonly vectors: Vectors;
  readonly #sriov: SriovListener[] = [];
  /** enable_sriov of vfio_pci */
  vfioEnablesSriov: () => boolean = () => false;
  #joining = true;
  #starting = true;

  /** Boots Linux on the machine: devices, groups, then its drivers in their order. */
  constructor(machine: Machine, options: PciSystemOptions) {
    this.machine = machine;
    this.#options = options;
    this.groups = options.groups;
    this.vfio = options.vfio;
    this.vectors = new Vectors(machine.iommus.length);
    this.core.listen((event, device) => {
      if (event === 'bound-driver') this.#noteBound(device);
      if (event === 'add' && !this.#joining) this.#joinGroup(device);
      if (event === 'removed') this.#leaveGroup(device);
    });
    for (const pci of machine.devices) this.#add(pci);
    for (const pci of bootOrder(machine)) this.#joinGroup(this.#required(pci).device);
    for (const group of this.groups.list()) this.#bootDomain(group);
    this.#joining = false;
    this.core.autoprobe = options.boot === 'autoprobe';
    for (const spec of options.drivers ?? driversOf(machine)) {
      this.core.register(makeDriver(spec, this));
    }
    if (!this.core.autoprobe) this.#bindAsDescribed();
    this.core.autoprobe = true;
    this.#starting = false;
    machine.subscribe({
      added: (pci) => {
        this.#add(pci);
        if (pci.isVirtualFunction) this.#enterVirtualFunction(pci);
      },
      removed: (pci) => {
        this.#vanished(pci);
      },
    });
  }

  // A kernel that was recorded had its reasons for the type; a member that forbids it here leaves Linux's own choice.
  #bootDomain(group: IommuGroup): void {
    const { recordedGroups } = this.machine;
    const type = isObserved(this.machine) ? recordedGroups.get(group.id)?.type : undefined;
    try {
      setupDefaultDomain(group, type === undefined ? undefined : defaultDomainKindOf(type));
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      setupDefaultDomain(group, undefined);
    }
  }

  #bindAsDescribed(): void {
    for (const { pci, device } of this.#functions.values()) {
      const driver = this.core.driver(pci.facts.driver ?? '');
      if (driver !== undefined) this.core.bindAtBoot(driver, device);
    }
  }

  /** Drivers are being bound that devices have from the beginning, in an order that the machine does not tell. */
  get starting(): boolean {
    return this.#starting;
  }

  /** Which device is in which group, and why. */
  get builder(): GroupBuilder {
    return this.#options.builder;
  }

  managed(pci: PciDevice): ManagedFunction | undefined {
    return this.#functions.get(pci)?.managed;
  }

  groupId(pci: PciDevice): number | undefined {
    return this.#functions.get(pci)?.device.iommu.group?.id;
  }

  /** @param name "0000:01:00.0" */
  function(name: string): PciFunction | undefined {
    return this.#byName.get(name);
  }

  /** The bridge that leads to the function's bus; for a virtual function, to its physical one's. */
  bridgeOf({ pci }: PciFunction): PciFunction | undefined {
    const bridge = pci.upstreamBridge;
    return bridge && this.#functions.get(bridge);
  }

  /** In the order in which they were found. */
  get functions(): IterableIterator<PciFunction> {
    return this.#functions.values();
  }

  #required(pci: PciDevice): PciFunction {
    const known = this.#functions.get(pci);
    if (known === undefined) throw new Error(`${pci.name} is in the machine but not on the bus`);
    return known;
  }

  #add(pci: PciDevice): void {
    const { vendor, device: id, subsystem } = pci;
    const identity = { vendor, device: id, ...subsystem, class: pci.classCode };
    const device = newBusDevice(pci.name, identity, this.#iommuDevice(pci));
    const known = newPciFunction(pci, device, this.#options.dma);
    this.#functions.set(pci, known);
    this.#byName.set(pci.name, known);
    device.override = pci.facts.driverOverride ?? this.#driverOfPhysfn(pci);
    this.core.add(device);
  }

  // Virtual functions of a function in user hands are meant for user space too. After vfio_pci_bus_notifier.
  #driverOfPhysfn({ physfn }: PciDevice): string | undefined {
    const device = physfn && this.#functions.get(physfn)?.device;
    const offered = device !== undefined && this.vfio.deviceOf(device.iommu) !== undefined;
    return offered ? device.driver?.name : undefined;
  }

  #noteBound({ name }: BusDevice): void {
    const known = this.#byName.get(name);
    if (known !== undefined) known.everBound = true;
  }

  // Switched off, or pulled out without a word: its driver is told afterwards.
  #vanished(pci: PciDevice): void {
    const entry = this.#functions.get(pci);
    if (entry === undefined) return;
    this.core.remove(entry.device, () => {
      this.#forget(entry);
    });
  }

  #forget({ pci }: PciFunction): void {
    this.#functions.delete(pci);
    this.#byName.delete(pci.name);
  }

  #iommuDevice(pci: PciDevice): IommuDevice {
    const { config, bus } = pci;
    const iommu = this.machine.iommuOf(pci);
    const pasid = config.findExtendedCapability(EXT_PASID);
    return new IommuDevice({
      name: pci.name,
      ops: this.#options.ops(iommu),
      ...(iommu && { instance: iommu }),
      maxPasids: pasid === 0 ? 0 : 2 ** ((config.u16(pasid + 4) >> 8) & 0x1f),
      reservedRegions: this.machine.reservedOf(pci),
      atsSupported:
        config.findExtendedCapability(EXT_ATS) !== 0 && !bus.platform.atsDisabled && !pci.untrusted,
      untrusted: pci.untrusted,
      isolatedMsi: iommu?.interruptRemapping ?? true,
      requesterIds: [...aliasWalk(pci)].map(({ rid }) => rid),
      sourceValidated: isSourceValidated(pci),
    });
  }

  // An IOMMU that refuses the device, or none at all, leaves it without group: no error of the bus.
  #joinGroup(device: BusDevice): void {
    const pci = this.#byName.get(device.name)?.pci;
    if (pci === undefined || this.machine.iommuOf(pci) === undefined) return;
    const { builder } = this.#options;
    try {
      probeDevice(device.iommu, () => builder.add(pci).iommu.ref(), {
        deferDefault: this.#joining,
      });
    } catch (error) {
      builder.remove(pci);
      if (!(error instanceof Errno)) throw error;
    }
  }

  #leaveGroup(device: BusDevice): void {
    const pci = this.#byName.get(device.name)?.pci;
    releaseDevice(device.iommu);
    if (pci !== undefined) this.#options.builder.remove(pci);
  }

  /** Write to a device's `remove`: what is behind a bridge goes first. Done when all drivers have let go. */
  remove(name: string, done: Done): void {
    this.#takeAway(name, done, () => {
      this.machine.remove(name);
    });
  }

  /** The device leaves the computer, in order: a rescan does not find it again. */
  unplug(name: string, done: Done): void {
    this.#takeAway(name, done, () => {
      this.machine.unplug(name);
    });
  }

  #takeAway(name: string, done: Done, finish: () => void): void {
    const known = this.#byName.get(name);
    if (known === undefined) {
      done(new Errno('ENODEV', `there is no device "${name}" on the bus`));
      return;
    }
    const leaving = this.#withChildren(known.pci);
    const next = (): void => {
      const pci = leaving.shift();
      const entry = pci && this.#functions.get(pci);
      if (entry === undefined) {
        finish();
        done();
        return;
      }
      this.core.remove(entry.device, () => {
        this.#forget(entry);
        next();
      });
    };
    next();
  }

  // Last child first; virtual functions before their physical one.
  #withChildren(pci: PciDevice): PciDevice[] {
    const behind = [...(pci.subordinate?.devices.values() ?? [])].reverse();
    return [
      ...behind.flatMap((child) => this.#withChildren(child)),
      ...this.machine.virtualFunctions(pci).reverse(),
      pci,
    ];
  }

  /** Write to the bus's `rescan`: everything that is found joins its group, then drivers are looked for. */
  rescan(): void {
    this.#offer(this.machine.rescan());
  }

  /** New hardware appears and is found. */
  plug(descriptions: readonly DeviceDescription[]): void {
    this.#offer(this.machine.plug(descriptions));
  }

  /** Write to `sriov_numvfs`. ENOENT, ERANGE, EBUSY; 0 switches all off, whatever their drivers do. */
  setVirtualFunctions(name: string, count: number): void {
    const added = this.machine.setVirtualFunctions(name, count);
    const physfn = this.function(name);
    if (physfn === undefined) return;
    for (const listener of this.#sriov) {
      listener.changed(physfn);
      if (added.length > 0) listener.enabled(physfn);
    }
  }

  #offer(found: readonly PciDevice[]): void {
    const entries = found
      .map((pci) => this.#functions.get(pci))
      .filter((each) => each !== undefined);
    this.core.initialProbes(entries.map(({ device }) => device));
  }

  // Each virtual function is offered to drivers before the next one appears. After pci_iov_add_virtfn.
  #enterVirtualFunction(pci: PciDevice): void {
    const vf = this.#required(pci);
    const physfn = pci.physfn && this.#functions.get(pci.physfn);
    for (const listener of this.#sriov) listener.linked(vf);
    if (physfn?.vfAutoprobe === false && vf.device.override === undefined) return;
    this.core.initialProbe(vf.device);
  }

  followSriov(listener: SriovListener): void {
    this.#sriov.push(listener);
  }
}

function driversOf(machine: Machine): DriverSpec[] {
  const described = [
    ...LINUX_DRIVERS.filter(({ name }) => !machine.drivers.some((own) => own.name === name)).map(
      (spec) => withDevices(spec, machine),
    ),
    ...machine.drivers,
  ];
  const known = new Set(described.map(({ name }) => name));
  const unknown = [...machine.devices].filter(
    ({ facts }) => facts.driver !== undefined && !known.has(facts.driver),
  );
  const names = new Set(unknown.map(({ facts }) => facts.driver ?? ''));
  const plain = [...names].map((name) => ({
    name,
    managedDma: managedDriver(name) !== undefined,
    vfio: managedDriver(name)?.vfio ?? false,
    overrideOnly: false,
    bridges: false,
    enables: 'while-bound' as const,
    sriov: true,
    ids: unknown
      .filter(({ facts }) => facts.driver === name)
      .map(({ vendor, device }) => ({ vendor, device })),
  }));
  return [...described, ...plain];
}

// Tables of drivers are cut down here; a driver knows what the machine says it is bound to.
function withDevices(spec: DriverSpec, { devices }: Machine): DriverSpec {
  if (spec.ids.length === 0 || spec.bridges || spec.vfio === true) return spec;
  const bound = [...devices].filter(({ facts }) => facts.driver === spec.name);
  return {
    ...spec,
    ids: [...spec.ids, ...bound.map(({ vendor, device }) => ({ vendor, device }))],
  };
}

/** The first port above checks the bus number of what comes in; directly on a root bus nothing can be forged. */
function isSourceValidated(pci: PciDevice): boolean {
  for (let bridge = pci.upstreamBridge; ; bridge = bridge.upstreamBridge) {
    if (bridge === undefined) return pci.bus.isRoot;
    if (!bridge.isExpress) return false;
    if (bridge.isDownstream) return acsVerdict(bridge, ACS_BITS.SV).isolated;
  }
}
