/** /dev/iommu as a device node: the same on every machine. */
import type { Iommufd } from '../iommufd/iommufd.ts';
import type { DeviceNode } from './kernel.ts';

// include/uapi/linux/major.h, drivers/iommu/iommufd/main.c: a misc device with a dynamic minor number
export const MISC_MAJOR = 10;
const IOMMU_MINOR = 125;
const IOMMU_MODE = 0o660;

export const iommuNode = (iommufd: Iommufd): DeviceNode => ({
  major: MISC_MAJOR,
  minor: IOMMU_MINOR,
  mode: IOMMU_MODE,
  open: iommufd.open.bind(iommufd),
});
