/**
 * The mock driver's help for fuzzers: with a flag set, an IOVA is read as "area number, offset" (low and high word), which
 * random programs can hit.
 *
 * After iommufd_test_syz_conv_iova of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { firstOf } from '../../base/position.ts';
import type { iommu_ioas_copy } from '../../uapi/iommufd.ts';
import { MOCK_FLAGS_ACCESS_SYZ } from '../../uapi/iommufd-test.ts';
import type { Context } from '../context.ts';
import type { IoPagetable } from '../io-pagetable.ts';
import { Ioas } from '../ioas.ts';

/** The IOVA that `value` means; 0 if there is no such area. */
export function syzkallerIova(iopt: IoPagetable, value: bigint): bigint {
  let nth = Number(value & 0xffff_ffffn);
  for (const area of iopt.areas) {
    if (nth-- === 0) return BigInt.asUintN(64, firstOf(area) + (value >> 32n));
  }
  return 0n;
}

/** IOMMU_IOAS_COPY takes the flag for its source on machines with the mock driver. */
export function convertSyzkallerIova(context: Context, cmd: iommu_ioas_copy): void {
  if ((cmd.flags & MOCK_FLAGS_ACCESS_SYZ) === 0) return;
  cmd.flags &= ~MOCK_FLAGS_ACCESS_SYZ;
  try {
    cmd.src_iova = syzkallerIova(context.objects.get(Ioas, cmd.src_ioas_id).iopt, cmd.src_iova);
  } catch (error) {
    // A bad id is reported by the call itself.
    if (!(error instanceof Errno)) throw error;
  }
}
