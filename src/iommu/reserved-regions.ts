/**
 * Reserved regions of a group, as its members' are put together: sorted by start and then by type, regions of one type that
 * overlap or touch are one.
 *
 * After drivers/iommu/iommu.c: iommu_get_group_resv_regions, iommu_insert_resv_region.
 */
import type { ReservedRegion, ReservedRegionType } from './domain.ts';
import type { IommuGroup } from './group.ts';

const TYPE_ORDER: readonly ReservedRegionType[] = [
  'direct',
  'direct-relaxable',
  'reserved',
  'msi',
  'sw-msi',
];

export function groupReservedRegions({ members }: IommuGroup): ReservedRegion[] {
  const all = members.flatMap(({ reservedRegions }) => reservedRegions);
  const merged = TYPE_ORDER.flatMap((type) =>
    mergeOfOneType(all.filter((each) => each.type === type)),
  );
  return merged.sort(
    (a, b) =>
      Number(a.start > b.start) - Number(a.start < b.start) ||
      TYPE_ORDER.indexOf(a.type) - TYPE_ORDER.indexOf(b.type),
  );
}

function mergeOfOneType(regions: readonly ReservedRegion[]): ReservedRegion[] {
  const sorted = [...regions].sort((a, b) => Number(a.start > b.start) - Number(a.start < b.start));
  const merged: ReservedRegion[] = [];
  for (const region of sorted) {
    const last = merged.at(-1);
    if (last === undefined || region.start > last.last + 1n) merged.push(region);
    else if (region.last > last.last) merged[merged.length - 1] = { ...last, last: region.last };
  }
  return merged;
}
