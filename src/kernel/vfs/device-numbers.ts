/** Numbers of the character devices that the machine has. include/uapi/linux/major.h, include/linux/miscdevice.h. */
export const MISC_MAJOR = 10;
/** fixed: VFIO_MINOR */
export const VFIO_MINOR = 196;
/** the kernel's choice: the first dynamic one of misc devices */
export const IOMMU_MINOR = 257;
/** the kernel's choice too: dynamic majors from above */
export const VFIO_GROUP_MAJOR = 247;
export const VFIO_DEVICE_MAJOR = 246;
