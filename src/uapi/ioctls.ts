/**
 * The ioctls of /dev/iommu as data: number, struct, and the last field that a client must supply. The engine adds what each
 * one does (src/iommufd/ioctls.ts). The last required field is where the struct ended when the ioctl was first released;
 * what was added since may be missing. After the table in drivers/iommu/iommufd/main.c.
 */
import type { Fields, Struct } from '../base/struct.ts';
import * as uapi from './iommufd.ts';
import { IOMMU_TEST_CMD, iommu_test_cmd } from './iommufd-test.ts';

export type IoctlSpec<F extends Fields = Fields> = {
  readonly name: string;
  readonly number: number;
  readonly struct: Struct<F>;
  /** smallest accepted size in bytes */
  readonly minSize: number;
};

function spec<F extends Fields>(
  name: string,
  number: number,
  struct: Struct<F>,
  last: keyof F & string,
): IoctlSpec<F> {
  return { name, number, struct, minSize: struct.endOf(last) };
}

/** Every ioctl of /dev/iommu by its C name. */
export const IOMMUFD_IOCTLS = {
  IOMMU_DESTROY: spec('IOMMU_DESTROY', uapi.IOMMU_DESTROY, uapi.iommu_destroy, 'id'),
  IOMMU_IOAS_ALLOC: spec(
    'IOMMU_IOAS_ALLOC',
    uapi.IOMMU_IOAS_ALLOC,
    uapi.iommu_ioas_alloc,
    'out_ioas_id',
  ),
  IOMMU_IOAS_ALLOW_IOVAS: spec(
    'IOMMU_IOAS_ALLOW_IOVAS',
    uapi.IOMMU_IOAS_ALLOW_IOVAS,
    uapi.iommu_ioas_allow_iovas,
    'allowed_iovas',
  ),
  IOMMU_IOAS_COPY: spec('IOMMU_IOAS_COPY', uapi.IOMMU_IOAS_COPY, uapi.iommu_ioas_copy, 'src_iova'),
  IOMMU_IOAS_IOVA_RANGES: spec(
    'IOMMU_IOAS_IOVA_RANGES',
    uapi.IOMMU_IOAS_IOVA_RANGES,
    uapi.iommu_ioas_iova_ranges,
    'out_iova_alignment',
  ),
  IOMMU_IOAS_MAP: spec('IOMMU_IOAS_MAP', uapi.IOMMU_IOAS_MAP, uapi.iommu_ioas_map, 'iova'),
  IOMMU_IOAS_UNMAP: spec(
    'IOMMU_IOAS_UNMAP',
    uapi.IOMMU_IOAS_UNMAP,
    uapi.iommu_ioas_unmap,
    'length',
  ),
  IOMMU_OPTION: spec('IOMMU_OPTION', uapi.IOMMU_OPTION, uapi.iommu_option, 'val64'),
  IOMMU_VFIO_IOAS: spec(
    'IOMMU_VFIO_IOAS',
    uapi.IOMMU_VFIO_IOAS,
    uapi.iommu_vfio_ioas,
    '__reserved',
  ),
  IOMMU_HWPT_ALLOC: spec(
    'IOMMU_HWPT_ALLOC',
    uapi.IOMMU_HWPT_ALLOC,
    uapi.iommu_hwpt_alloc,
    '__reserved',
  ),
  IOMMU_GET_HW_INFO: spec(
    'IOMMU_GET_HW_INFO',
    uapi.IOMMU_GET_HW_INFO,
    uapi.iommu_hw_info,
    '__reserved',
  ),
  IOMMU_HWPT_SET_DIRTY_TRACKING: spec(
    'IOMMU_HWPT_SET_DIRTY_TRACKING',
    uapi.IOMMU_HWPT_SET_DIRTY_TRACKING,
    uapi.iommu_hwpt_set_dirty_tracking,
    '__reserved',
  ),
  IOMMU_HWPT_GET_DIRTY_BITMAP: spec(
    'IOMMU_HWPT_GET_DIRTY_BITMAP',
    uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,
    uapi.iommu_hwpt_get_dirty_bitmap,
    'data',
  ),
  IOMMU_HWPT_INVALIDATE: spec(
    'IOMMU_HWPT_INVALIDATE',
    uapi.IOMMU_HWPT_INVALIDATE,
    uapi.iommu_hwpt_invalidate,
    '__reserved',
  ),
  IOMMU_FAULT_QUEUE_ALLOC: spec(
    'IOMMU_FAULT_QUEUE_ALLOC',
    uapi.IOMMU_FAULT_QUEUE_ALLOC,
    uapi.iommu_fault_alloc,
    'out_fault_fd',
  ),
  IOMMU_IOAS_MAP_FILE: spec(
    'IOMMU_IOAS_MAP_FILE',
    uapi.IOMMU_IOAS_MAP_FILE,
    uapi.iommu_ioas_map_file,
    'iova',
  ),
  IOMMU_VIOMMU_ALLOC: spec(
    'IOMMU_VIOMMU_ALLOC',
    uapi.IOMMU_VIOMMU_ALLOC,
    uapi.iommu_viommu_alloc,
    'out_viommu_id',
  ),
  IOMMU_VDEVICE_ALLOC: spec(
    'IOMMU_VDEVICE_ALLOC',
    uapi.IOMMU_VDEVICE_ALLOC,
    uapi.iommu_vdevice_alloc,
    'virt_id',
  ),
  IOMMU_IOAS_CHANGE_PROCESS: spec(
    'IOMMU_IOAS_CHANGE_PROCESS',
    uapi.IOMMU_IOAS_CHANGE_PROCESS,
    uapi.iommu_ioas_change_process,
    '__reserved',
  ),
  IOMMU_VEVENTQ_ALLOC: spec(
    'IOMMU_VEVENTQ_ALLOC',
    uapi.IOMMU_VEVENTQ_ALLOC,
    uapi.iommu_veventq_alloc,
    'out_veventq_fd',
  ),
  IOMMU_HW_QUEUE_ALLOC: spec(
    'IOMMU_HW_QUEUE_ALLOC',
    uapi.IOMMU_HW_QUEUE_ALLOC,
    uapi.iommu_hw_queue_alloc,
    'length',
  ),
  IOMMU_IOAS_NOIOMMU_GET_PA: spec(
    'IOMMU_IOAS_NOIOMMU_GET_PA',
    uapi.IOMMU_IOAS_NOIOMMU_GET_PA,
    uapi.iommu_ioas_noiommu_get_pa,
    'out_phys',
  ),
  IOMMU_TEST_CMD: spec('IOMMU_TEST_CMD', IOMMU_TEST_CMD, iommu_test_cmd, 'last'),
} as const;
