/**
 * PagingDomain: a domain with a page table that iommufd fills (IOMMU_DOMAIN_UNMANAGED with its iommu_domain_ops).
 */
import { Domain, type DomainKind, type IommuOps } from './domain.ts';
import type { PageTable } from './page-table.ts';

/** IOVAs that a page table can translate; both ends inclusive. */
export type Geometry = { readonly first: bigint; readonly last: bigint };

export abstract class PagingDomain extends Domain {
  override kind: DomainKind = 'unmanaged';
  abstract readonly table: PageTable;
  abstract readonly geometry: Geometry;
  /** Sizes that a mapping can have, one bit each (pgsize_bitmap). */
  abstract readonly pageSizes: bigint;
  /** The format records writes and the user asked for it (dirty_ops). */
  readonly dirtyTracking: boolean;
  // Asked for at each map; computed once, since bigints cost more than all the rest of the question.
  #minPageSize: number | undefined;

  constructor(owner: IommuOps, dirtyTracking: boolean) {
    super(owner);
    this.dirtyTracking = dirtyTracking;
  }

  /** Starts or stops recording writes. Only called where {@link dirtyTracking} is set. */
  abstract setDirtyTracking(enable: boolean): void;

  /** Smallest size that can be mapped, in bytes. */
  get minPageSize(): number {
    return (this.#minPageSize ??= Number(this.pageSizes & -this.pageSizes));
  }
}
