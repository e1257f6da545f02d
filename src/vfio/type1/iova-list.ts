/**
 * The IOVAs that a container can map: what the domains of all its groups translate, less the regions that are reserved for any of
 * their devices. Ranges are closed, ascending and disjoint; no range at all means that nothing restricts the container yet.
 *
 * After vfio_iommu_aper_resize, vfio_iommu_resv_exclude and vfio_iommu_iova_dma_valid of drivers/vfio/vfio_iommu_type1.c.
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import type { ReservedRegion } from '../../iommu/domain.ts';

export type IovaRange = { readonly first: bigint; readonly last: bigint };

/** The ranges that also lie in `aperture`. */
export function withinAperture(
  ranges: readonly IovaRange[],
  aperture: IovaRange,
): readonly IovaRange[] {
  if (ranges.length === 0) return [aperture];
  return ranges
    .map(({ first, last }) => ({
      first: first > aperture.first ? first : aperture.first,
      last: last < aperture.last ? last : aperture.last,
    }))
    .filter(({ first, last }) => first <= last);
}

/** Firmware maps relaxable regions for itself only; a user may have these IOVAs. */
export function isExcluded({ type }: ReservedRegion): boolean {
  return type !== 'direct-relaxable';
}

/** The ranges without `regions`. EINVAL if nothing is left. */
export function withoutRegions(
  ranges: readonly IovaRange[],
  regions: readonly ReservedRegion[],
): readonly IovaRange[] {
  let left = ranges;
  for (const region of regions.filter(isExcluded))
    left = left.flatMap((range) => cut(range, region));
  if (left.length === 0) throw new Errno('EINVAL', 'reserved regions leave no IOVA to map');
  return left;
}

function cut(range: IovaRange, { start, last }: ReservedRegion): IovaRange[] {
  if (start > range.last || last < range.first) return [range];
  const rest: IovaRange[] = [];
  if (start > range.first) rest.push({ first: range.first, last: start - 1n });
  if (last < range.last) rest.push({ first: last + 1n, last: range.last });
  return rest;
}

/** EINVAL unless one range holds all of [first, last]. */
export function requireValid(ranges: readonly IovaRange[], first: bigint, last: bigint): void {
  if (ranges.length === 0) return;
  if (ranges.some((range) => range.first <= first && last <= range.last)) return;
  const shown = ranges.map((range) => `${hex(range.first)}-${hex(range.last)}`).join(', ');
  throw new Errno(
    'EINVAL',
    `IOVAs ${hex(first)}-${hex(last)} are not within the valid ranges of the container: ${shown}`,
  );
}
