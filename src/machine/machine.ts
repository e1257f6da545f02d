/**
 * A machine: buses, devices, IOMMUs, drivers and boot options, whatever it was read from, and what can happen to it: devices
 * plugged and unplugged, removed and found again, virtual functions switched on and off.
 *
 * Invariants: devices are kept in the order in which Linux found them, a bridge before what is behind it; each sits on a
 * bus, each bus but the roots has a parent. Whoever follows a machine (groups, driver core) subscribes and hears of every
 * device that comes, and of every one that goes before what it sat behind does.
 *
 * Words: *remove* is what a write to the `remove` file of sysfs does, the device is still in its slot and *rescan* finds it
 * again; *unplug* takes it out of the computer.
 *
 * After drivers/pci/{probe,remove,iov}.c.
 */
import { Errno } from '../base/errno.ts';
import { InputError } from '../base/input-error.ts';
import { enableAcs, NO_ACS_OPTIONS, type AcsOptions } from './pci/acs-control.ts';
import {
  compareAddresses,
  formatAddress,
  formatBus,
  type BusAddress,
  type PciAddress,
} from './pci/address.ts';
import { ConfigSpace, REGISTER } from './pci/config-space.ts';
import {
  PciBus,
  PciDevice,
  type DeviceFacts,
  type DeviceNotes,
  type Platform,
  type ReservedRegion,
} from './pci/device.ts';
import { placeResources } from './pci/place-resources.ts';
import type { DriverSpec } from './drivers.ts';
import {
  disableSriov,
  enableSriov,
  sriovState,
  virtualFunctionAddress,
  virtualFunctionConfig,
} from './pci/sriov.ts';

/** `selftest`: the kernel's mock IOMMU, its devices made by test commands; `pc`: PCI devices behind root ports. */
export type MachineKind = 'selftest' | 'pc';

/** Where a machine came from. Groups that a real kernel formed count for more than those computed here. */
export type MachineSource = 'file' | 'recording' | 'capture' | 'host';

export type IommuKind = 'intel' | 'amd' | 'smmuv3' | 'virtio' | 'other';

export type Iommu = {
  readonly name: string;
  readonly kind: IommuKind;
  /** what the kernel's own DMA goes through: page tables, or straight to memory */
  readonly mode: 'translated' | 'passthrough';
  /** interrupts of devices are remapped, so none can forge another's; default true */
  readonly interruptRemapping?: boolean;
  /** kept out of every address space behind it */
  readonly reserved: readonly ReservedRegion[];
  /** what a VT-d unit says of itself */
  readonly registers?: VtdRegisters | undefined;
};

/** Version, CAP_REG and ECAP_REG of a remapping unit. VT-d specification 4.1, sections 11.4.1 to 11.4.3. */
export type VtdRegisters = {
  /** "1:0" */
  readonly version: string;
  readonly capabilities: bigint;
  readonly extended: bigint;
};

/** Where x86 puts the addresses of message-signalled interrupts. */
export const MSI_WINDOW: ReservedRegion = { start: 0xfee0_0000n, last: 0xfeef_ffffn, type: 'msi' };

/** Where drivers of other IOMMUs map the doorbell of interrupts, unless the platform has a window of its own. */
export const SW_MSI_WINDOW: ReservedRegion = {
  start: 0x800_0000n,
  last: 0x80f_ffffn,
  type: 'sw-msi',
};

/** Regions that the driver of an IOMMU reserves for every device behind it. */
export function usualRegions(kind: IommuKind): readonly ReservedRegion[] {
  switch (kind) {
    case 'intel':
    case 'amd':
      return [MSI_WINDOW];
    case 'smmuv3':
    case 'virtio':
      return [SW_MSI_WINDOW];
    case 'other':
      return [];
  }
}

/** What recordings were made with. */
export const RECORDED_IOMMU: Iommu = {
  name: 'dmar0',
  kind: 'intel',
  mode: 'translated',
  reserved: [MSI_WINDOW],
};

/** What a real kernel said of a group. */
export type RecordedGroup = {
  readonly id: number;
  /** content of the group's `type` file; empty if it could not be read */
  readonly type: string;
  readonly reserved: readonly ReservedRegion[];
  /** content of its `name` file; only groups that VFIO made up have one */
  readonly name?: string | undefined;
  /** members that are not PCI devices */
  readonly others?: readonly string[];
};

/** VFIO made the group up, without an IOMMU (drivers/vfio/group.c, vfio_noiommu_group_alloc). */
export function isNoiommuGroup(group: RecordedGroup | undefined): boolean {
  return group?.name === 'vfio-noiommu';
}

export type DeviceDescription = {
  readonly address: PciAddress;
  /** the bridge above; undefined on a root bus */
  readonly parent?: PciAddress | undefined;
  /** whose requester ID the root bus carries (VMD) */
  readonly dmaDevice?: PciAddress | undefined;
  readonly config: ConfigSpace;
  readonly physfn?: PciAddress | undefined;
  readonly notes?: DeviceNotes | undefined;
  readonly facts?: DeviceFacts | undefined;
};

export type MachineListener = {
  added?(device: PciDevice): void;
  removed?(device: PciDevice): void;
};

export type MachineOptions = {
  readonly kind: MachineKind;
  readonly name: string;
  readonly source: MachineSource;
  /** `enable`: Linux still has to turn ACS on; `as-is`: the registers show what it did */
  readonly acs?: 'enable' | 'as-is';
  readonly acsOptions?: AcsOptions;
  readonly atsDisabled?: boolean;
  readonly iommus?: readonly Iommu[];
  readonly drivers?: readonly DriverSpec[];
  /** ACPI tables that describe an IOMMU */
  readonly firmwareTables?: readonly string[];
  readonly unsafeInterrupts?: UnsafeInterrupts;
  /** enable_unsafe_noiommu_mode of the module vfio: devices without IOMMU can be assigned */
  readonly noIommu?: boolean;
};

/** allow_unsafe_interrupts of two modules: assign devices although their interrupts are not remapped. */
export type UnsafeInterrupts = { readonly type1: boolean; readonly iommufd: boolean };

const LAST_BUS = 0xff;

export class Machine {
  readonly kind: MachineKind;
  readonly name: string;
  readonly source: MachineSource;
  readonly acs: 'enable' | 'as-is';
  readonly acsOptions: AcsOptions;
  readonly iommus: readonly Iommu[];
  readonly drivers: readonly DriverSpec[];
  readonly platform: Platform;
  /** ACPI tables that describe an IOMMU, used or not */
  readonly firmwareTables: readonly string[];
  readonly unsafeInterrupts: UnsafeInterrupts;
  readonly noIommu: boolean;
  /** groups as a real kernel showed them; empty for machines that were only described */
  readonly recordedGroups = new Map<number, RecordedGroup>();
  /** for people: what could not be read, and what that means */
  readonly remarks: string[] = [];
  readonly #devices = new Map<string, PciDevice>();
  readonly #buses = new Map<string, PciBus>();
  // Still in their slots, but removed by software.
  readonly #hidden = new Map<string, DeviceDescription>();
  readonly #descriptions = new Map<PciDevice, DeviceDescription>();
  readonly #listeners = new Set<MachineListener>();

  constructor(options: MachineOptions) {
    this.kind = options.kind;
    this.name = options.name;
    this.source = options.source;
    this.acs = options.acs ?? 'enable';
    this.acsOptions = options.acsOptions ?? NO_ACS_OPTIONS;
    this.iommus = options.iommus ?? [];
    this.drivers = options.drivers ?? [];
    this.firmwareTables = options.firmwareTables ?? [];
    this.unsafeInterrupts = options.unsafeInterrupts ?? { type1: false, iommufd: false };
    this.noIommu = options.noIommu ?? false;
    this.platform = {
      acsRequested: this.iommus.some(({ kind }) => kind !== 'virtio'),
      ivrs: this.iommus.some(({ kind }) => kind === 'amd'),
      atsDisabled: options.atsDisabled ?? false,
    };
  }

  /** The same machine with registers of its own, as they are now: for trying what would change it. */
  copy(): Machine {
    const copy = new Machine({
      kind: this.kind,
      name: this.name,
      source: this.source,
      acs: 'as-is',
      acsOptions: this.acsOptions,
      atsDisabled: this.platform.atsDisabled,
      iommus: this.iommus,
      drivers: this.drivers,
      firmwareTables: this.firmwareTables,
      unsafeInterrupts: this.unsafeInterrupts,
      noIommu: this.noIommu,
    });
    for (const [id, group] of this.recordedGroups) copy.recordedGroups.set(id, group);
    copy.remarks.push(...this.remarks);
    for (const { parent, domain, number, dmaDevice } of this.buses) {
      if (parent === undefined && dmaDevice === undefined) copy.addRootBus({ domain, bus: number });
    }
    for (const description of this.#descriptions.values()) {
      const config = new ConfigSpace(description.config.bytes.slice());
      copy.add({ ...description, config });
    }
    return copy;
  }

  /** In the order in which Linux found them. */
  get devices(): IterableIterator<PciDevice> {
    return this.#devices.values();
  }

  get buses(): IterableIterator<PciBus> {
    return this.#buses.values();
  }

  get deviceCount(): number {
    return this.#devices.size;
  }

  /** @param name "0000:01:00.0" */
  get(name: string): PciDevice | undefined {
    return this.#devices.get(name);
  }

  /** @param name "0000:01" */
  bus(name: string): PciBus | undefined {
    return this.#buses.get(name);
  }

  /** What `device` was made from: enough to make it again. */
  describe(device: PciDevice): DeviceDescription {
    const description = this.#descriptions.get(device);
    if (description === undefined) throw new Error(`${device.name} is not of this machine`);
    return description;
  }

  /** The IOMMU that translates for `device`; undefined if none does. */
  iommuOf(device: PciDevice): Iommu | undefined {
    const name = device.facts.iommu;
    if (name === false) return undefined;
    return name === undefined ? this.iommus[0] : this.iommus.find((iommu) => iommu.name === name);
  }

  /**
   * Regions that are kept out of the address spaces of `device`: its own, and those that a real kernel listed for its group or,
   * where there is no such list, those of its IOMMU. A kernel lists them by group and does not say which member wants them.
   */
  reservedOf(device: PciDevice): readonly ReservedRegion[] {
    const own = device.facts.reserved ?? [];
    const listed = this.recordedRegionsOf(device);
    const others = listed.length > 0 ? listed : (this.iommuOf(device)?.reserved ?? []);
    return [...own, ...others.filter((other) => !own.some((region) => sameRegion(region, other)))];
  }

  /** What a real kernel listed for the group of `device`. */
  recordedRegionsOf({ facts }: PciDevice): readonly ReservedRegion[] {
    const group = this.recordedGroups.get(facts.recordedGroup ?? -1);
    return group?.reserved ?? [];
  }

  subscribe(listener: MachineListener): void {
    this.#listeners.add(listener);
  }

  unsubscribe(listener: MachineListener): void {
    this.#listeners.delete(listener);
  }

  /** Linux finds a device at boot; a bridge must be found before what is behind it. */
  add(description: DeviceDescription): PciDevice {
    return this.#add(description, false);
  }

  // On a running system listeners hear of the device while it is being scanned.
  #add(description: DeviceDescription, underScan: boolean): PciDevice {
    const name = formatAddress(description.address);
    if (this.#devices.has(name)) {
      throw new InputError(`${this.name}: two devices at ${name}`);
    }
    const device = new PciDevice({
      address: description.address,
      bus: this.#busFor(description),
      config: description.config,
      physfn: this.#required(description.physfn, `the physical function of ${name}`),
      notes: description.notes,
      facts: description.facts,
    });
    this.#devices.set(name, device);
    this.#descriptions.set(device, description);
    device.bus.devices.set(device.devfn, device);
    this.#openBusBehind(device);
    if (this.acs === 'enable') enableAcs(device, this.acsOptions);
    device.underScan = underScan;
    for (const listener of this.#listeners) listener.added?.(device);
    device.underScan = false;
    return device;
  }

  #required(address: PciAddress | undefined, what: string): PciDevice | undefined {
    if (address === undefined) return undefined;
    const name = formatAddress(address);
    const device = this.#devices.get(name);
    if (device === undefined) throw new InputError(`${this.name}: ${what} is missing: ${name}`);
    return device;
  }

  #busFor(description: DeviceDescription): PciBus {
    const { address } = description;
    const known = this.#buses.get(formatBus(address));
    if (known !== undefined) return known;
    const physfn = this.#required(description.physfn, 'a physical function');
    const self = this.#required(description.parent, `the bridge above ${formatAddress(address)}`);
    const bus = new PciBus({
      domain: address.domain,
      number: address.bus,
      platform: this.platform,
      parent: physfn?.bus ?? self?.bus,
      self: physfn === undefined ? self : undefined,
      dmaDevice: this.#required(description.dmaDevice, 'the controller of a root bus'),
    });
    this.#buses.set(bus.name, bus);
    if (bus.self !== undefined) bus.self.subordinate ??= bus;
    return bus;
  }

  /** A bridge brings its bus along, also when nothing is on it yet. */
  #openBusBehind(bridge: PciDevice): void {
    const number = bridge.config.u8(REGISTER.SECONDARY_BUS);
    if (!bridge.isBridge || number <= bridge.bus.number) return;
    const { domain, platform } = bridge.bus;
    const bus = new PciBus({ domain, number, platform, parent: bridge.bus, self: bridge });
    if (this.#buses.has(bus.name)) return;
    this.#buses.set(bus.name, bus);
    bridge.subordinate = bus;
  }

  /** A root bus that has no device yet. */
  addRootBus({ domain, bus }: BusAddress): PciBus {
    const root = new PciBus({ domain, number: bus, platform: this.platform });
    this.#buses.set(root.name, root);
    return root;
  }

  /** Hot-plug: new hardware, a bridge with what is behind it, found at once. */
  plug(descriptions: readonly DeviceDescription[]): PciDevice[] {
    const added = descriptions.map((description) => this.#add(description, true));
    placeResources(added);
    return added;
  }

  /** Hot-unplug: `name` and everything behind it leave the computer. */
  unplug(name: string): void {
    this.#detach(this.#existing(name));
  }

  /** A write to the `remove` file: gone until the next {@link rescan}; virtual functions do not come back. */
  remove(name: string): void {
    for (const description of this.#detach(this.#existing(name))) {
      if (description.physfn !== undefined) continue;
      this.#hidden.set(formatAddress(description.address), description);
    }
  }

  /** A write to the `rescan` file: what was removed and is still there is found again. */
  rescan(): PciDevice[] {
    const found = [...this.#hidden.values()].sort((a, b) => compareAddresses(a.address, b.address));
    this.#hidden.clear();
    const added: PciDevice[] = [];
    for (const description of found) {
      const { parent } = description;
      if (parent !== undefined && !this.#devices.has(formatAddress(parent))) continue;
      added.push(this.#add(description, true));
    }
    placeResources(added);
    return added;
  }

  #existing(name: string): PciDevice {
    const device = this.#devices.get(name);
    if (device === undefined) throw new Errno('ENODEV', `there is no device ${name}`);
    return device;
  }

  /** Last child first, the device itself at the end. */
  #detach(device: PciDevice): DeviceDescription[] {
    const gone: DeviceDescription[] = [];
    const behind = [...(device.subordinate?.devices.values() ?? [])].reverse();
    for (const child of behind) {
      if (this.#devices.has(child.name)) gone.push(...this.#detach(child));
    }
    for (const vf of this.virtualFunctions(device).reverse()) gone.push(...this.#detach(vf));
    if (device.sriovOffset !== 0) disableSriov(device);
    gone.push(this.describe(device));
    this.#devices.delete(device.name);
    device.bus.devices.delete(device.devfn);
    if (device.subordinate !== undefined) this.#buses.delete(device.subordinate.name);
    if (device.bus.isVirtual && device.bus.devices.size === 0) this.#buses.delete(device.bus.name);
    for (const listener of this.#listeners) listener.removed?.(device);
    this.#descriptions.delete(device);
    return gone;
  }

  /** The virtual functions of `physfn` that are switched on, in order of their number. */
  virtualFunctions(physfn: PciDevice): PciDevice[] {
    if (!physfn.config.complete) {
      return [...this.#devices.values()].filter((device) => device.physfn === physfn);
    }
    if (physfn.sriovOffset === 0) return [];
    const { enabled } = sriovState(physfn);
    const known = Array.from({ length: enabled }, (_, index) =>
      this.#devices.get(formatAddress(virtualFunctionAddress(physfn, index))),
    );
    return known
      .filter((device) => device?.physfn === physfn)
      .filter((device) => device !== undefined);
  }

  /**
   * Switches virtual functions on or off, as a write to `sriov_numvfs` does.
   * @param count how many there are afterwards; 0 switches them off
   * @returns those that came
   * @throws Errno ENOENT without SR-IOV, ERANGE above what the device has, EBUSY if another count is switched on
   */
  setVirtualFunctions(name: string, count: number): PciDevice[] {
    const physfn = this.#existing(name);
    const present = this.virtualFunctions(physfn);
    if (physfn.sriovOffset === 0 && present.length === 0) {
      throw new Errno('ENOENT', `${name} has no SR-IOV capability`);
    }
    const { total, enabled } =
      physfn.sriovOffset === 0
        ? { total: present.length, enabled: present.length }
        : sriovState(physfn);
    if (count === enabled) return [];
    if (count < 0 || count > total) {
      throw new Errno('ERANGE', `${name} has ${total} virtual functions, ${count} were asked for`);
    }
    if (count === 0) {
      for (const vf of present.reverse()) this.#detach(vf);
      if (physfn.sriovOffset !== 0) disableSriov(physfn);
      return [];
    }
    if (enabled !== 0) {
      throw new Errno(
        'EBUSY',
        `${name} has ${enabled} virtual functions on; switch them off first`,
      );
    }
    return this.#switchOn(physfn, count);
  }

  #switchOn(physfn: PciDevice, count: number): PciDevice[] {
    // After sriov_enable of drivers/pci/iov.c.
    const { bus } = virtualFunctionAddress(physfn, count - 1);
    if (bus > LAST_BUS) {
      throw new Errno(
        'ENOMEM',
        `${count} virtual functions of ${physfn.name} reach bus 0x${bus.toString(16)}; the last one is 0x${LAST_BUS.toString(16)}`,
      );
    }
    enableSriov(physfn, count);
    const { parent } = this.describe(physfn);
    const addresses = Array.from({ length: count }, (_, index) =>
      virtualFunctionAddress(physfn, index),
    );
    // A machine file may list some of them itself.
    const missing = addresses.filter(
      (address) => this.#devices.get(formatAddress(address))?.physfn !== physfn,
    );
    return missing.map((address) =>
      this.add({
        address,
        parent,
        config: virtualFunctionConfig(physfn),
        physfn: physfn.address,
        facts: { iommu: physfn.facts.iommu },
      }),
    );
  }
}

export function sameRegion(a: ReservedRegion, b: ReservedRegion): boolean {
  return a.start === b.start && a.last === b.last && a.type === b.type;
}
