/**
 * PCI functions and the buses they sit on: what Linux's pci_dev and pci_bus know, as far as isolation depends on it.
 *
 * Invariants: a bus has a bridge (`self`) or is a root bus or is *virtual* (it exists only because virtual functions have
 * that bus number; it has a parent and no bridge). Everything that follows from configuration space is read from its bytes
 * when asked, so a changed register shows at once; only the positions of capabilities are remembered.
 *
 * After drivers/pci/probe.c (pci_setup_device, set_pcie_port_type, pci_scan_slot) and drivers/pci/iov.c.
 */
import {
  readResources,
  RESOURCE,
  RESOURCE_FLAGS,
  resourceSize,
  setBarAddress,
  setRomAddress,
  type Bar,
  type Resource,
} from './bar.ts';
import {
  CAP_EXPRESS,
  CAP_SUBSYSTEM,
  EXPRESS,
  EXT_ACS,
  EXT_SRIOV,
  PORT_TYPES,
  SRIOV,
  DEVICE_CONTROL_2_ARI,
} from './capabilities.ts';
import {
  HEADER_BRIDGE,
  HEADER_CARDBUS,
  HEADER_MULTIFUNCTION,
  HEADER_NORMAL,
  REGISTER,
  type ConfigSpace,
} from './config-space.ts';
import { formatAddress, formatBus, functionOf, type PciAddress } from './address.ts';

/** What is true of the whole computer and changes how Linux judges single devices. */
export type Platform = {
  /** An IOMMU driver asked for ACS before the bus was scanned (pci_request_acs). */
  acsRequested: boolean;
  /** Firmware describes an AMD IOMMU (ACPI table IVRS). */
  ivrs: boolean;
  /** ATS is switched off for the whole computer (pci=noats). */
  atsDisabled: boolean;
};

export class PciBus {
  readonly domain: number;
  readonly number: number;
  /** undefined for a root bus */
  readonly parent: PciBus | undefined;
  /** the bridge that leads here; undefined for root and virtual buses */
  readonly self: PciDevice | undefined;
  /** whose requester ID everything below a root bus carries (VMD); undefined elsewhere */
  readonly dmaDevice: PciDevice | undefined;
  readonly platform: Platform;
  /** by devfn, in the order in which Linux found them */
  readonly devices = new Map<number, PciDevice>();

  constructor(place: {
    readonly domain: number;
    readonly number: number;
    readonly platform: Platform;
    readonly parent?: PciBus | undefined;
    readonly self?: PciDevice | undefined;
    readonly dmaDevice?: PciDevice | undefined;
  }) {
    this.domain = place.domain;
    this.number = place.number;
    this.platform = place.platform;
    this.parent = place.parent;
    this.self = place.self;
    this.dmaDevice = place.dmaDevice;
  }

  get isRoot(): boolean {
    return this.parent === undefined;
  }

  /** Only there for the numbers of virtual functions. */
  get isVirtual(): boolean {
    return this.parent !== undefined && this.self === undefined;
  }

  /** "0000:01" */
  get name(): string {
    return formatBus({ domain: this.domain, bus: this.number });
  }

  get root(): PciBus {
    return this.parent?.root ?? this;
  }

  /** The bridge takes slot and function of what is below as one number of eight bits. */
  get ari(): boolean {
    const bridge = this.self;
    if (bridge === undefined || bridge.expressOffset === 0) return false;
    const control = bridge.config.u16(bridge.expressOffset + EXPRESS.DEVICE_CONTROL_2);
    return (control & DEVICE_CONTROL_2_ARI) !== 0;
  }
}

/** What a person or a firmware table says about a device and its configuration space does not. */
export type DeviceNotes = {
  /** devfns on its own bus that the device uses besides its own */
  readonly aliases?: readonly number[];
  /** bridge: the IOMMU sits here, not at the root (PCI_DEV_FLAGS_BRIDGE_XLATE_ROOT) */
  readonly translationRoot?: boolean;
  /** bridge: requester IDs from below pass unchanged (PCI_DEV_FLAGS_PCI_BRIDGE_NO_ALIAS) */
  readonly noAlias?: boolean;
  /** bridge: is PCIe-to-PCI although it has no PCI Express capability (PCI_DEV_FLAG_PCIE_BRIDGE_ALIAS) */
  readonly expressBridgeAlias?: boolean;
  readonly untrusted?: boolean;
  readonly externalFacing?: boolean;
};

export type ReservedRegionType = 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'sw-msi';

/** Addresses that firmware or the IOMMU keeps for itself; `last` is inclusive. */
export type ReservedRegion = {
  readonly start: bigint;
  readonly last: bigint;
  readonly type: ReservedRegionType;
};

/** What else belongs to a device and does not decide about isolation. */
export type DeviceFacts = {
  /** bound when the machine starts; on a host: now */
  readonly driver?: string | undefined;
  readonly driverOverride?: string | undefined;
  /** the group that a real kernel gave it */
  readonly recordedGroup?: number | undefined;
  /** besides those of its IOMMU */
  readonly reserved?: readonly ReservedRegion[] | undefined;
  readonly bars?: readonly Bar[] | undefined;
  /** bytes of its expansion ROM */
  readonly romSize?: bigint | undefined;
  /** contents of its expansion ROM */
  readonly rom?: Uint8Array | undefined;
  /** what its configuration space read after writing ones and after writing zeros, on real hardware */
  readonly registers?: { readonly ones: Uint8Array; readonly zeros: Uint8Array } | undefined;
  /** BARs of each of its virtual functions */
  readonly vfBars?: readonly Bar[] | undefined;
  /** its interrupt as the kernel showed it; otherwise the register of configuration space */
  readonly irq?: number | undefined;
  /** name of the IOMMU that translates for it; false: none does */
  readonly iommu?: string | false | undefined;
  /** for people: "GPU", "eth0" */
  readonly label?: string | undefined;
};

export class PciDevice {
  readonly address: PciAddress;
  /** "0000:01:00.0" */
  readonly name: string;
  readonly bus: PciBus;
  readonly config: ConfigSpace;
  /** the physical function that this virtual function belongs to */
  readonly physfn: PciDevice | undefined;
  readonly notes: DeviceNotes;
  readonly facts: DeviceFacts;
  /** the bus behind this bridge; set by the machine */
  subordinate: PciBus | undefined;
  /**
   * Linux has read the header and is adding the device. Only afterwards does it look at the function number; that matters
   * on a running system, where the group is chosen at once, and not at boot, where groups come last.
   */
  underScan = false;
  /** kept by alias.ts: ids do not change, and every device of a bus is asked for every other one */
  aliasDevfns: ReadonlySet<number> | undefined;
  #expressOffset: number | undefined;
  #acsOffset: number | undefined;
  #sriovOffset: number | undefined;
  #resources: readonly Resource[] | undefined;

  constructor(place: {
    readonly address: PciAddress;
    readonly bus: PciBus;
    readonly config: ConfigSpace;
    readonly physfn?: PciDevice | undefined;
    readonly notes?: DeviceNotes | undefined;
    readonly facts?: DeviceFacts | undefined;
  }) {
    this.address = place.address;
    this.name = formatAddress(place.address);
    this.bus = place.bus;
    this.config = place.config;
    this.physfn = place.physfn;
    this.notes = place.notes ?? {};
    this.facts = place.facts ?? {};
  }

  get devfn(): number {
    return this.address.devfn;
  }

  get isVirtualFunction(): boolean {
    return this.physfn !== undefined;
  }

  /** Virtual functions do not show a vendor of their own. */
  get vendor(): number {
    return this.physfn?.vendor ?? this.config.u16(REGISTER.VENDOR);
  }

  get device(): number {
    if (this.physfn === undefined) return this.config.u16(REGISTER.DEVICE);
    const sriov = this.physfn.sriovOffset;
    return sriov === 0
      ? this.config.u16(REGISTER.DEVICE)
      : this.physfn.config.u16(sriov + SRIOV.VF_DEVICE);
  }

  /** Of an endpoint in its header, of a bridge in a capability of its own. After pci_setup_device. */
  get subsystem(): { readonly subvendor: number; readonly subdevice: number } {
    const { config } = this;
    const type = config.headerType;
    const at =
      type === HEADER_NORMAL
        ? REGISTER.SUBSYSTEM_VENDOR
        : type === HEADER_CARDBUS
          ? REGISTER.CARDBUS_SUBSYSTEM
          : this.#subsystemRegister;
    return at === 0
      ? { subvendor: 0, subdevice: 0 }
      : { subvendor: config.u16(at), subdevice: config.u16(at + 2) };
  }

  get #subsystemRegister(): number {
    const capability = this.config.findCapability(CAP_SUBSYSTEM);
    return capability === 0 ? 0 : capability + 4;
  }

  /** Class, subclass and programming interface in 24 bits. */
  get classCode(): number {
    return this.config.classCode;
  }

  /** Has a bus of its own below it. */
  get isBridge(): boolean {
    const type = this.config.headerType;
    return type === HEADER_BRIDGE || type === HEADER_CARDBUS;
  }

  /**
   * May have siblings in its slot: the bit of the header, and every function but the first, whatever its header says, once
   * it was scanned. A virtual function never counts as one. After pci_scan_slot.
   */
  get multifunction(): boolean {
    if (this.isVirtualFunction) return false;
    if ((this.config.u8(REGISTER.HEADER_TYPE) & HEADER_MULTIFUNCTION) !== 0) return true;
    if (this.underScan) return false;
    return this.bus.ari ? this.devfn !== 0 : functionOf(this.devfn) !== 0;
  }

  /** Offset of the PCI Express capability; 0 where there is none. */
  get expressOffset(): number {
    return (this.#expressOffset ??= this.config.findCapability(CAP_EXPRESS));
  }

  /** Offset of the ACS capability; 0 where there is none. */
  get acsOffset(): number {
    return (this.#acsOffset ??= this.config.findExtendedCapability(EXT_ACS));
  }

  /** Offset of the SR-IOV capability; 0 where there is none. */
  get sriovOffset(): number {
    return (this.#sriovOffset ??= this.config.findExtendedCapability(EXT_SRIOV));
  }

  /**
   * Where its registers are, as Linux found them: read once, when the machine boots or the device appears. What is written to
   * the registers later does not change it.
   */
  get resources(): readonly Resource[] {
    return (this.#resources ??= readResources(
      this.config,
      this.isVirtualFunction ? {} : this.facts,
    ));
  }

  /** Linux assigns another place to a resource, and writes it to the register; undefined: there is none for it. */
  moveResource(index: number, start: bigint | undefined): void {
    const resource = this.resources[index];
    if (resource === undefined) return;
    const size = resourceSize(resource);
    const from = start ?? 0n;
    const flags = resource.flags & ~RESOURCE_FLAGS.UNSET;
    const moved: Resource = {
      start: from,
      last: from + size - 1n,
      flags: start === undefined ? flags | RESOURCE_FLAGS.UNSET : flags,
    };
    this.#resources = this.resources.with(index, moved);
    const bar = this.facts.bars?.find((each) => each.index === index);
    if (start === undefined) return;
    if (bar !== undefined) setBarAddress(this.config, bar, start);
    if (index === RESOURCE.ROM) setRomAddress(this.config, start);
  }

  get isExpress(): boolean {
    return this.expressOffset !== 0;
  }

  /**
   * Device/port type of PCI Express; undefined for conventional PCI. A port that claims a direction which its parent makes
   * impossible is taken for the other direction.
   */
  get portType(): number | undefined {
    if (!this.isExpress) return undefined;
    const type = (this.config.u16(this.expressOffset + EXPRESS.FLAGS) >> 4) & 0xf;
    const parent = this.bus.self;
    if (parent === undefined) return type;
    if (type === PORT_TYPES['downstream-port'] && parent.isDownstream) {
      return PORT_TYPES['upstream-port'];
    }
    if (type === PORT_TYPES['upstream-port'] && parent.portType === PORT_TYPES['upstream-port']) {
      return PORT_TYPES['downstream-port'];
    }
    return type;
  }

  /** Leads away from the root complex over a PCI Express link. */
  get isDownstream(): boolean {
    const type = this.portType;
    return (
      type === PORT_TYPES['root-port'] ||
      type === PORT_TYPES['downstream-port'] ||
      type === PORT_TYPES['pci-pcie-bridge']
    );
  }

  /** The bridge above, past virtual buses; undefined on a root bus. */
  get upstreamBridge(): PciDevice | undefined {
    let bus: PciBus | undefined = this.bus;
    while (bus?.isVirtual === true) bus = bus.parent;
    return bus?.self;
  }

  /** The device whose requester ID its DMA really carries. */
  get dmaDevice(): PciDevice {
    return this.bus.root.dmaDevice ?? this;
  }

  /** The device itself, or something above it, can be plugged by strangers. */
  get untrusted(): boolean {
    return (this.notes.untrusted ?? false) || (this.upstreamBridge?.untrusted ?? false);
  }
}
