/**
 * The IOMMUs of machines with PCI devices: four-level page tables with leaves of 4 KiB, 2 MiB and 1 GiB over 48 bits of IOVA,
 * coherent with caches. No dirty tracking, no nesting. By its kind an IOMMU can snoop against the device's wish or not.
 *
 * Not here: page-table formats of the kinds (docs/divergence.md).
 *
 * After intel_iommu_capable, amd_iommu_capable, arm_smmu_capable and viommu_capable, as far as user space can see it.
 */
import { Errno } from '../../base/errno.ts';
import type { IommuKind } from '../../machine/machine.ts';
import { Domain, type DomainKind, type IommuOps, type PagingRequest } from '../domain.ts';
import { ExtentTable } from '../page-table.ts';
import { PagingDomain, type Geometry } from '../paging-domain.ts';

const LEAVES = [2 ** 12, 2 ** 21, 2 ** 30];
const LAST_IOVA = 2n ** 48n - 1n;

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
  override readonly table = new ExtentTable(LEAVES);
  override readonly geometry: Geometry = { first: 0n, last: LAST_IOVA };
  override readonly pageSizes = LEAVES.reduce((bits, size) => bits | BigInt(size), 0n);

  constructor(owner: IommuOps, name: string, kind: DomainKind) {
    super(owner, false);
    this.name = name;
    this.kind = kind;
  }

  override attachDevice(): void {
    // Nothing to program.
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
 */
export function pcIommu(pasidFlag: number, kind: IommuKind = 'intel'): IommuOps {
  let made = 0;
  const ops: IommuOps = {
    name: kind,
    capable: (_device, capability) =>
      capability === 'cache-coherency' ||
      (capability === 'enforce-cache-coherency' && ENFORCES_COHERENCY.includes(kind)),
    blockedDomain: new StaticDomain('blocked', 'the blocking domain'),
    identityDomain: new StaticDomain('identity', 'the identity domain'),
    flaggedAllocation: true,
    allocPaging: (_device, { kind: domainKind, flags, userData }: PagingRequest) => {
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
      return new PcDomain(ops, `${domainKind} domain ${made}`, domainKind);
    },
  };
  return ops;
}
