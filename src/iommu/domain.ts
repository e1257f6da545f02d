/**
 * Domains, the devices that they are attached to, and what a hardware driver of an IOMMU gives to the core.
 *
 * A domain is one translation of IOVAs. Kinds: `dma`, `dma-fq` and `identity` are default domains (the kernel's own DMA),
 * `blocked` lets nothing through, `unmanaged` and `nested` belong to a user. Static domains (blocked, identity) belong to
 * the ops that list them; all others remember the ops that made them and work with no other.
 *
 * Invariant: `IommuDevice.attached` and `IommuDevice.pasids` say what the hardware applies to the device right now; only
 * attach.ts and group.ts write them, after the domain's driver agreed.
 *
 * After include/linux/iommu.h (iommu_ops, iommu_domain, iommu_domain_ops, dev_iommu, iommu_resv_region).
 */
import { Errno } from '../base/errno.ts';
import type { IommuGroup } from './group.ts';

export type DomainKind = 'blocked' | 'identity' | 'dma' | 'dma-fq' | 'unmanaged' | 'nested';

export abstract class Domain {
  /** Mutable for one transition alone: dma becomes dma-fq in place. */
  abstract kind: DomainKind;
  /** For people, in reasons: "blocking domain", "HWPT 4". */
  abstract readonly name: string;
  /** Who made the domain; undefined for the static domains of an ops. */
  readonly owner: IommuOps | undefined;

  constructor(owner?: IommuOps) {
    this.owner = owner;
  }

  /** Points the hardware of `device` here, away from `old`. Throws Errno; the device then still is on `old`. */
  abstract attachDevice(device: IommuDevice, old: Domain | undefined): void;

  /** The same for one PASID; `old` is undefined where the PASID had nothing. Absent: no PASID can be attached. */
  setDevicePasid?(device: IommuDevice, pasid: number, old: Domain | undefined): void;

  /** Maps a firmware region one to one, skipping what is mapped already; only DMA domains are asked. */
  mapIdentity?(region: ReservedRegion): void;

  /** Called once, when nothing is attached any more. Static domains ignore it. */
  free(): void {
    // Nothing to give back unless a driver says so.
  }
}

/** What part of the IOMMU a device can use (enum iommu_cap). */
export type IommuCapability =
  'cache-coherency' | 'enforce-cache-coherency' | 'dirty-tracking' | 'deferred-flush' | 'ats';

/** Driver data that came with a request of user space; copied in by whoever knows its layout. */
export type UserData = {
  /** IOMMU_HWPT_DATA_*, IOMMU_VIOMMU_TYPE_* … */
  readonly type: number;
  /** in bytes, as the client gave it */
  readonly length: number;
  /** at most `length` bytes from the start; EFAULT */
  copyIn(into: Uint8Array): void;
};

/** Which paging domain is wanted. */
export type PagingRequest = {
  readonly kind: 'dma' | 'dma-fq' | 'unmanaged';
  /** IOMMU_HWPT_ALLOC_*; 0 asks for the plain form that every driver has */
  readonly flags: number;
  readonly userData?: UserData;
};

/**
 * What a driver for one kind of IOMMU offers. Optional members are absent where the driver lacks the operation, as a
 * NULL pointer in the kernel's table; the errno for that is the caller's.
 */
export type IommuOps = {
  readonly name: string;
  capable(device: IommuDevice, capability: IommuCapability): boolean;
  /** Cannot fail to attach. Absent: an empty paging domain takes its place. */
  readonly blockedDomain?: Domain;
  readonly identityDomain?: Domain;
  /** Where a device is parked before `releaseDevice`. */
  readonly releaseDomain?: Domain;
  /** Old drivers: the one default domain that there is. */
  readonly defaultDomain?: Domain;
  /** What this device's default domain has to be; undefined for no preference. */
  defaultDomainType?(device: IommuDevice): 'identity' | 'dma' | undefined;
  /** Throws Errno: the device then ends without a group. */
  probeDevice?(device: IommuDevice): void;
  releaseDevice?(device: IommuDevice): void;
  /** Throws EOPNOTSUPP for flags or user data that the driver does not know. */
  allocPaging(device: IommuDevice, request: PagingRequest): Domain;
  /** Page sizes and flagged allocation exist (domain_alloc_paging_flags). */
  readonly flaggedAllocation?: boolean;
  allocNested?(device: IommuDevice, parent: Domain, flags: number, userData: UserData): Domain;
  /** @param type the wanted type, 0 for the driver's own; EOPNOTSUPP for one it does not have */
  hwInfo?(device: IommuDevice, type: number): { readonly type: number; readonly bytes: Uint8Array };
};

export type ReservedRegionType = 'direct' | 'direct-relaxable' | 'reserved' | 'msi' | 'sw-msi';

/** IOVAs that mean something else than memory to a device. Both ends inclusive. */
export type ReservedRegion = {
  readonly start: bigint;
  readonly last: bigint;
  readonly type: ReservedRegionType;
};

export type IommuDeviceOptions = {
  readonly name: string;
  readonly ops: IommuOps;
  /** One object for one IOMMU; devices of different instances never share a vIOMMU. Default: the ops. */
  readonly instance?: object;
  /** PASIDs that device and IOMMU both know; 0 for none. */
  readonly maxPasids?: number;
  readonly reservedRegions?: readonly ReservedRegion[];
  /** Interrupts of the device are remapped or routed so that it cannot forge others. Default true. */
  readonly isolatedMsi?: boolean;
  readonly atsSupported?: boolean;
  /** External-facing or otherwise untrusted: always translated. */
  readonly untrusted?: boolean;
  /**
   * What the IOMMU may see as the source of the device's requests, bridges' aliases included. Default: nothing is known,
   * so the device can be told from no other (profile subgroup).
   */
  readonly requesterIds?: readonly number[];
  /** The port above refuses requests with a foreign bus number (ACS source validation). Default false. */
  readonly sourceValidated?: boolean;
};

/** A device as the IOMMU core knows it: struct dev_iommu and struct group_device in one. */
export class IommuDevice {
  readonly name: string;
  readonly ops: IommuOps;
  readonly instance: object;
  readonly maxPasids: number;
  readonly reservedRegions: readonly ReservedRegion[];
  readonly isolatedMsi: boolean;
  readonly atsSupported: boolean;
  readonly untrusted: boolean;
  readonly requesterIds: readonly number[];
  readonly sourceValidated: boolean;

  /** Set while the device is a member; undefined before probe, after release, and where joining failed. */
  group: IommuGroup | undefined;
  /** Firmware wants a one-to-one mapping at all times: such a device is never blocked, hence never assigned. */
  requireDirect = false;
  /** The domain that the hardware applies to requests without PASID. */
  attached: Domain | undefined;
  /** The same by PASID. */
  readonly pasids = new Map<number, Domain>();
  /** In a reset window: parked on the blocking domain whatever the group's domain is. */
  blocked = false;
  resetDepth = 0;
  /** The group that it should be in and could not join; Linux then treats it as a device without IOMMU. */
  orphanOf: IommuGroup | undefined;
  /** The driver that does kernel DMA through this device, by name; what refusals point at. */
  kernelDriver: string | undefined;

  constructor(options: IommuDeviceOptions) {
    this.name = options.name;
    this.ops = options.ops;
    this.instance = options.instance ?? options.ops;
    this.maxPasids = options.maxPasids ?? 0;
    this.reservedRegions = options.reservedRegions ?? [];
    this.isolatedMsi = options.isolatedMsi ?? true;
    this.atsSupported = options.atsSupported ?? false;
    this.untrusted = options.untrusted ?? false;
    this.requesterIds = options.requesterIds ?? [];
    this.sourceValidated = options.sourceValidated ?? false;
  }

  /** The group, for callers that need one; ENODEV without. */
  requireGroup(): IommuGroup {
    if (this.group === undefined) {
      throw new Errno('ENODEV', `${this.name} has no IOMMU group`);
    }
    return this.group;
  }
}

/** Whether `domain` can be attached to devices of `ops`. */
export function domainFits(ops: IommuOps, domain: Domain): boolean {
  return domain.owner === ops || domain === ops.blockedDomain || domain === ops.identityDomain;
}

/** Default domains that the kernel's DMA API maps into. */
export function isDmaDomain(domain: Domain): boolean {
  return domain.kind === 'dma' || domain.kind === 'dma-fq';
}
