/**
 * IOMMU_GET_HW_INFO: what the IOMMU of a device can do, in the driver's own words and in common ones.
 *
 * After iommufd_get_hw_info of drivers/iommu/iommufd/device.c.
 */
import { Errno } from '../base/errno.ts';
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HW_INFO_TYPE_NONE,
  iommu_hw_info,
} from '../uapi/iommufd.ts';
import { IommufdDevice } from './device.ts';

import type { Ucmd } from './ucmd.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

const CHUNK = 65_536;

export function getHwInfo({ context, task, cmd, respond }: Ucmd<iommu_hw_info>): undefined {
  if ((cmd.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0) {
    throw unknownFlags(iommu_hw_info, cmd.flags, IOMMU_HW_INFO_FLAG_INPUT_TYPE);
  }
  const reserved = cmd.__reserved.find((value) => value !== 0);
  if (reserved !== undefined) throw reservedSet(reserved);
  const asked = (cmd.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE) !== 0;
  const type = asked ? cmd.data_type.read('in_data_type') : IOMMU_HW_INFO_TYPE_DEFAULT;
  const { iommu } = context.objects.get(IommufdDevice, cmd.dev_id);
  const { ops } = iommu;
  if (ops.hwInfo !== undefined) context.environment.faults.alloc('hardware info');
  const info = ops.hwInfo?.(iommu, type) ?? {
    type: IOMMU_HW_INFO_TYPE_NONE,
    bytes: new Uint8Array(),
  };
  const copied = Math.min(cmd.data_len, info.bytes.length);
  if (copied > 0) task.memory.copyOut(cmd.data_uptr, info.bytes.subarray(0, copied));
  clearOut(task.memory, cmd.data_uptr + BigInt(copied), cmd.data_len - copied);
  cmd.data_type.write('out_data_type', info.type);
  cmd.data_len = info.bytes.length;
  let capabilities = 0;
  if (ops.capable(iommu, 'dirty-tracking')) capabilities |= IOMMU_HW_CAP_DIRTY_TRACKING;
  if (!ops.capable(iommu, 'ats')) capabilities |= IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  cmd.out_capabilities = BigInt(capabilities);
  cmd.out_max_pasid_log2 = iommu.maxPasids === 0 ? 0 : Math.floor(Math.log2(iommu.maxPasids));
  respond();
}

/** Zeroes what the client has room for beyond the answer; EFAULT. */
function clearOut(
  memory: { copyOut(address: bigint, bytes: Uint8Array): void },
  address: bigint,
  length: number,
): void {
  for (let done = 0; done < length; done += CHUNK) {
    const bytes = new Uint8Array(Math.min(CHUNK, length - done));
    memory.copyOut(BigInt.asUintN(64, address + BigInt(done)), bytes);
  }
}

/** For drivers: the errno of a type that they do not have. */
export function unknownInfoType(type: number): Errno {
  return new Errno('EOPNOTSUPP', `hardware info of type ${type} is not what this IOMMU has`);
}
