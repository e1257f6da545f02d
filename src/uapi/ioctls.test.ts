import assert from 'node:assert/strict';
import test from 'node:test';
import { IOMMUFD_IOCTLS } from './ioctls.ts';

// Known and smallest sizes, worked out from the structs and the op table of Linux 7.3's drivers/iommu/iommufd/main.c.
const SIZES = {
  IOMMU_DESTROY: [0x80, 8, 8],
  IOMMU_IOAS_ALLOC: [0x81, 12, 12],
  IOMMU_IOAS_ALLOW_IOVAS: [0x82, 24, 24],
  IOMMU_IOAS_COPY: [0x83, 40, 40],
  IOMMU_IOAS_IOVA_RANGES: [0x84, 32, 32],
  IOMMU_IOAS_MAP: [0x85, 40, 40],
  IOMMU_IOAS_UNMAP: [0x86, 24, 24],
  IOMMU_OPTION: [0x87, 24, 24],
  IOMMU_VFIO_IOAS: [0x88, 12, 12],
  IOMMU_HWPT_ALLOC: [0x89, 48, 24],
  IOMMU_GET_HW_INFO: [0x8a, 40, 32],
  IOMMU_HWPT_SET_DIRTY_TRACKING: [0x8b, 16, 16],
  IOMMU_HWPT_GET_DIRTY_BITMAP: [0x8c, 48, 48],
  IOMMU_HWPT_INVALIDATE: [0x8d, 32, 32],
  IOMMU_FAULT_QUEUE_ALLOC: [0x8e, 16, 16],
  IOMMU_IOAS_MAP_FILE: [0x8f, 40, 40],
  IOMMU_VIOMMU_ALLOC: [0x90, 40, 24],
  IOMMU_VDEVICE_ALLOC: [0x91, 24, 24],
  IOMMU_IOAS_CHANGE_PROCESS: [0x92, 8, 8],
  IOMMU_VEVENTQ_ALLOC: [0x93, 32, 28],
  IOMMU_HW_QUEUE_ALLOC: [0x94, 40, 40],
  IOMMU_IOAS_NOIOMMU_GET_PA: [0x95, 40, 40],
  IOMMU_TEST_CMD: [0xa0, 72, 68],
};

test('IOMMUFD_IOCTLS has the number, size and smallest size of every ioctl', () => {
  const ours = Object.entries(IOMMUFD_IOCTLS).map(([name, { number, struct, minSize }]) => [
    name,
    [number & 0xff, struct.size, minSize],
  ]);
  assert.deepEqual(Object.fromEntries(ours), SIZES);
});

test('IOMMUFD_IOCTLS: each row is filed under its name, with a number of type ;', () => {
  for (const [key, { name, number }] of Object.entries(IOMMUFD_IOCTLS)) {
    assert.equal(name, key);
    assert.equal(number >> 8, ';'.charCodeAt(0));
  }
});
