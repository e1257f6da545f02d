/**
 * The table of /dev/iommu: what each ioctl does. Numbers, structs and minimum sizes come from uapi/ioctls.ts.
 *
 * After the table in drivers/iommu/iommufd/main.c. A new ioctl is a declaration in uapi/, a handler, and a row here.
 */
import { IOMMUFD_CMD_BASE } from '../uapi/iommufd.ts';
import { IOMMUFD_IOCTLS as spec } from '../uapi/ioctls.ts';
import { getDirtyBitmap, setDirtyTracking } from './dirty.ts';
import { faultAlloc } from './fault.ts';
import { getHwInfo } from './hw-info.ts';
import { hwptAlloc } from './hwpt-alloc.ts';
import { hwQueueAlloc } from './hw-queue.ts';
import { hwptInvalidate } from './invalidate.ts';
import {
  ioasAlloc,
  ioasAllowIovas,
  ioasCopy,
  ioasIovaRanges,
  ioasMap,
  ioasMapFile,
  ioasUnmap,
} from './ioas.ts';
import { destroy, ioasChangeProcess, option } from './option.ts';
import { noiommuGetPa } from './noiommu.ts';
import { testCmd } from './selftest/test-cmd.ts';
import { op, type Op } from './ucmd.ts';
import { vdeviceAlloc } from './vdevice.ts';
import { veventqAlloc } from './veventq.ts';
import { vfioIoas } from './vfio-compat.ts';
import { viommuAlloc } from './viommu.ts';

const OPS: readonly Op[] = [
  op(spec.IOMMU_DESTROY, destroy),
  op(spec.IOMMU_FAULT_QUEUE_ALLOC, faultAlloc),
  op(spec.IOMMU_GET_HW_INFO, getHwInfo),
  op(spec.IOMMU_HW_QUEUE_ALLOC, hwQueueAlloc),
  op(spec.IOMMU_HWPT_ALLOC, hwptAlloc),
  op(spec.IOMMU_HWPT_GET_DIRTY_BITMAP, getDirtyBitmap),
  op(spec.IOMMU_HWPT_INVALIDATE, hwptInvalidate),
  op(spec.IOMMU_HWPT_SET_DIRTY_TRACKING, setDirtyTracking),
  op(spec.IOMMU_IOAS_ALLOC, ioasAlloc),
  op(spec.IOMMU_IOAS_ALLOW_IOVAS, ioasAllowIovas),
  op(spec.IOMMU_IOAS_CHANGE_PROCESS, ioasChangeProcess),
  op(spec.IOMMU_IOAS_COPY, ioasCopy),
  op(spec.IOMMU_IOAS_IOVA_RANGES, ioasIovaRanges),
  op(spec.IOMMU_IOAS_MAP, ioasMap),
  op(spec.IOMMU_IOAS_MAP_FILE, ioasMapFile),
  op(spec.IOMMU_IOAS_NOIOMMU_GET_PA, noiommuGetPa),
  op(spec.IOMMU_IOAS_UNMAP, ioasUnmap),
  op(spec.IOMMU_OPTION, option),
  op(spec.IOMMU_VDEVICE_ALLOC, vdeviceAlloc),
  op(spec.IOMMU_VEVENTQ_ALLOC, veventqAlloc),
  op(spec.IOMMU_VFIO_IOAS, vfioIoas),
  op(spec.IOMMU_VIOMMU_ALLOC, viommuAlloc),
  op(spec.IOMMU_TEST_CMD, testCmd),
];

/** The number within the type: the low byte of a command (_IOC_NR). */
export function commandNumber(command: number): number {
  return command & 0xff;
}

/** By number; holes are undefined. */
export const OPS_BY_NUMBER: readonly (Op | undefined)[] = OPS.reduce<(Op | undefined)[]>(
  (table, row) => {
    table[commandNumber(row.spec.number) - IOMMUFD_CMD_BASE] = row;
    return table;
  },
  [],
);
