/**
 * IOMMU_IOAS_NOIOMMU_GET_PA: the physical address behind an IOVA, for devices that no IOMMU translates.
 *
 * After iommufd_ioas_noiommu_get_pa (drivers/iommu/iommufd/ioas.c) and iopt_get_phys (io_pagetable.c).
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, PAGE_BYTES, hex, lastOf, offsetOf, pageOf } from '../base/position.ts';
import { iommu_ioas_noiommu_get_pa } from '../uapi/iommufd.ts';
import type { Area } from './area.ts';
import { Ioas } from './ioas.ts';
import type { Ucmd } from './ucmd.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

/** The name by which the ops of software-only page tables are known (iommufd_noiommu_ops). */
export const NOIOMMU_OPS_NAME = 'noiommu';

export function noiommuGetPa({
  context,
  task,
  cmd,
  respond,
}: Ucmd<iommu_ioas_noiommu_get_pa>): undefined {
  if (!task.capable('CAP_SYS_RAWIO'))
    throw new Errno('EPERM', 'physical addresses need CAP_SYS_RAWIO');
  if (cmd.flags !== 0) throw unknownFlags(iommu_ioas_noiommu_get_pa, cmd.flags);
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  if (cmd.length === 0n) throw new Errno('EINVAL', 'length must not be 0');
  if (cmd.iova >= MAX_ADDRESS)
    throw new Errno('EOVERFLOW', `iova ${hex(cmd.iova)} must be below ULONG_MAX`);
  const { iopt } = context.objects.get(Ioas, cmd.ioas_id);
  const area = iopt.areas.at(pageOf(cmd.iova), offsetOf(cmd.iova));
  if (area === undefined) throw new Errno('ENOENT', `nothing is mapped at ${hex(cmd.iova)}`);
  if (area.pages.isRevoked)
    throw new Errno('EINVAL', `the dma-buf of area ${String(area)} was revoked`);
  const [storage] = iopt.domains;
  if (!area.filled || storage?.owner?.name !== NOIOMMU_OPS_NAME) {
    throw new Errno('EOPNOTSUPP', `area ${String(area)} is not shown to a device without IOMMU`);
  }
  const translate = (iova: bigint): number => storage.table.translate(pageOf(iova), offsetOf(iova));
  cmd.out_phys = BigInt(translate(cmd.iova));
  cmd.length = contiguousLength(area, cmd, translate);
  respond();
}

/** Bytes from the IOVA on that are physically contiguous, at most what was asked for. */
function contiguousLength(
  area: Area,
  { iova, length }: { readonly iova: bigint; readonly length: bigint },
  translate: (iova: bigint) => number,
): bigint {
  const page = BigInt(PAGE_BYTES);
  const end = lastOf(area);
  let at = iova;
  let phys = translate(at);
  let found = min(page - (iova % page), end - iova + 1n);
  while (found < length && at + page <= end) {
    const next = translate(at + page);
    if (next !== phys + PAGE_BYTES) break;
    at += page;
    phys = next;
    found += page;
  }
  return min(found, length);
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
