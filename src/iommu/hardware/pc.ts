/**
 * The IOMMUs of machines with PCI devices: four-level page tables with leaves of 4 KiB, 2 MiB and 1 GiB over 48 bits of IOVA,
 * coherent with caches. No dirty tracking, no nesting. By its kind an IOMMU can snoop against the device's wish or not. Where the
 * registers of a VT-d unit are known, they say how many bits of IOVA it translates, which large pages it has, and whether it can
 * snoop; a domain made for one unit is refused to devices of another that cannot walk it.
 *
 * Not here: page-table formats of the kinds (docs/divergence.md); scalable mode of VT-d, which Linux leaves off unless it is asked
 * for (intel_iommu=sm_on).
 *
 * After intel_iommu_capable, amd_iommu_capable, arm_smmu_capable and viommu_capable, as far as user space can see it; for registers
 * compute_vasz_lg2_ss, intel_iommu_domain_alloc_second_stage and paging_domain_compatible_second_stage of
 * drivers/iommu/intel/iommu.c, and the VT-d specification 4.1, sections 11.4.2 and 11.4.3.
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import type { IommuKind, VtdRegisters } from '../../machine/machine.ts';
import {
  Domain,
  type DomainKind,
  type IommuDevice,
  type IommuOps,
  type PagingRequest,
} from '../domain.ts';
import { ExtentTable } from '../page-table.ts';
import { PagingDomain, type Geometry } from '../paging-domain.ts';

/** What a unit can do. */
type Abilities = {
  /** bits of IOVA */
  readonly width: number;
  /** sizes of leaves in bytes, descending */
  readonly leaves: readonly number[];
  readonly snoopControl: boolean;
};

const SMALL_LEAF = 2 ** 12;
const MIDDLE_LEAF = 2 ** 21;
const LARGE_LEAF = 2 ** 30;

const field = (register: bigint, low: number, bits: number): number =>
  Number((register >> BigInt(low)) & ((1n << BigInt(bits)) - 1n));

/** MGAW, SAGAW and SLLPS of CAP_REG, SC of ECAP_REG. */
function abilitiesOf({ capabilities, extended }: VtdRegisters): Abilities {
  const mgaw = field(capabilities, 16, 6) + 1;
  const sagaw = field(capabilities, 8, 5);
  const large = field(capabilities, 34, 4);
  return {
    width: widthOf(mgaw, sagaw),
    leaves: [
      ...((large & 2) !== 0 ? [LARGE_LEAF] : []),
      ...((large & 1) !== 0 ? [MIDDLE_LEAF] : []),
      SMALL_LEAF,
    ],
    snoopControl: field(extended, 7, 1) === 1,
  };
}

/** The largest table that both allow: five, four or three levels. */
function widthOf(mgaw: number, sagaw: number): number {
  if (mgaw > 48 && sagaw >= 0b1000) return Math.min(57, mgaw);
  if (mgaw > 39 && sagaw >= 0b100) return Math.min(48, mgaw);
  return Math.min(39, mgaw);
}

// Pointing the hardware at a domain cannot fail, and nothing is to be done: whoever does DMA asks which domain a device is on.
class StaticDomain extends Domain {
  override kind: DomainKind;
  override readonly name: string;

  constructor(kind: DomainKind, name: string) {
    super();
    this.kind = kind;
    this.name = name;
  }

  override attachDevice(): void {
    // Nothing to program.
  }

  override setDevicePasid(): void {
    // Nothing to program.
  }
}

class PcDomain extends PagingDomain {
  override readonly name: string;
  override readonly table: ExtentTable;
  override readonly geometry: Geometry;
  override readonly pageSizes: bigint;
  readonly #abilities: Abilities;
  readonly #abilitiesOf: (device: IommuDevice) => Abilities;

  constructor(
    owner: IommuOps,
    identity: { readonly name: string; readonly kind: DomainKind },
    abilities: { readonly own: Abilities; readonly of: (device: IommuDevice) => Abilities },
  ) {
    super(owner, false);
    this.name = identity.name;
    this.kind = identity.kind;
    this.#abilities = abilities.own;
    this.#abilitiesOf = abilities.of;
    const { width, leaves } = abilities.own;
    this.table = new ExtentTable(leaves);
    this.geometry = { first: 0n, last: (1n << BigInt(width)) - 1n };
    this.pageSizes = leaves.reduce((bits, size) => bits | BigInt(size), 0n);
  }

  override attachDevice(device: IommuDevice): void {
    const { width, leaves } = this.#abilitiesOf(device);
    const own = this.#abilities;
    const missing = own.leaves.find((size) => !leaves.includes(size));
    if (own.width <= width && missing === undefined) return;
    throw new Errno(
      'EINVAL',
      `the IOMMU of ${device.name} cannot walk ${this.name}: ` +
        (missing === undefined
          ? `it translates ${width} bits, the domain has ${own.width}`
          : `it has no pages of ${hex(missing)} bytes`),
    );
  }

  override setDevicePasid(): void {
    // Nothing to program.
  }

  override setDirtyTracking(): void {
    throw new Error(`${this.name} has no dirty tracking to switch`);
  }
}

// The others could with hardware that says so (CANWBS of an SMMU), which machine files do not describe.
const ENFORCES_COHERENCY: readonly IommuKind[] = ['intel', 'amd'];

/**
 * The driver of all IOMMUs of one kind.
 * @param pasidFlag the one flag of a request that it knows: made for PASIDs
 * @param registersOf the VT-d unit of a device, as far as its registers are known
 */
export function pcIommu(
  pasidFlag: number,
  kind: IommuKind = 'intel',
  registersOf: (device: IommuDevice) => VtdRegisters | undefined = () => undefined,
): IommuOps {
  const usual: Abilities = {
    width: 48,
    leaves: [LARGE_LEAF, MIDDLE_LEAF, SMALL_LEAF],
    snoopControl: ENFORCES_COHERENCY.includes(kind),
  };
  const of = (device: IommuDevice): Abilities => {
    const registers = registersOf(device);
    return registers === undefined ? usual : abilitiesOf(registers);
  };
  let made = 0;
  const ops: IommuOps = {
    name: kind,
    capable: (device, capability) =>
      capability === 'cache-coherency' ||
      (capability === 'enforce-cache-coherency' && of(device).snoopControl),
    blockedDomain: new StaticDomain('blocked', 'the blocking domain'),
    identityDomain: new StaticDomain('identity', 'the identity domain'),
    flaggedAllocation: true,
    allocPaging: (device, { kind: domainKind, flags, userData }: PagingRequest) => {
      if ((flags & ~pasidFlag) !== 0) {
        throw new Errno(
          'EOPNOTSUPP',
          `unsupported HWPT flags 0x${(flags & ~pasidFlag).toString(16)}`,
        );
      }
      if (userData !== undefined) {
        throw new Errno('EOPNOTSUPP', 'this IOMMU accepts no driver data for a page table');
      }
      made++;
      const identity = { name: `${domainKind} domain ${made}`, kind: domainKind };
      return new PcDomain(ops, identity, { own: of(device), of });
    },
  };
  return ops;
}
