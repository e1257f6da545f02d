/**
 * The ABI of VFIO as Linux 7.3 has it: the parts of include/uapi/linux/vfio.h that x86 PCI devices use, under the C names
 * and in the order of the header. Bytes only, no behaviour. Compared with the C compiler by test/uapi.
 *
 * Not here: POWER's IOMMU and graphics planes (vfio-other.ts), and what needs no ioctl of its own: NVLink, s390 (CCW, AP, zPCI).
 * Numbers from 0x70 on mean one thing on a container and another on a device.
 *
 * The anonymous union of vfio_pci_dependent_device, group_id or devid, is called `id`.
 */
import { _IO } from '../base/ioctl-number.ts';
import { array, s32, struct, u16, u32, u64, u8, union, type Static } from '../base/struct.ts';
import { fd, flags, hex, iova, oneOf, pointer } from './meaning.ts';

export const VFIO_API_VERSION = 0;

export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_SPAPR_TCE_IOMMU = 2;
export const VFIO_TYPE1v2_IOMMU = 3;
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_EEH = 5;
export const __VFIO_RESERVED_TYPE1_NESTING_IOMMU = 6;
export const VFIO_SPAPR_TCE_v2_IOMMU = 7;
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

export const VFIO_TYPE = ';';
export const VFIO_BASE = 100;

export const vfio_info_cap_header = struct('vfio_info_cap_header', {
  id: u16,
  version: u16,
  next: u32,
});
export type vfio_info_cap_header = Static<typeof vfio_info_cap_header>;

// Container: /dev/vfio/vfio, and /dev/iommu in its place.

export const VFIO_GET_API_VERSION = _IO(VFIO_TYPE, VFIO_BASE + 0);
export const VFIO_CHECK_EXTENSION = _IO(VFIO_TYPE, VFIO_BASE + 1);
export const VFIO_SET_IOMMU = _IO(VFIO_TYPE, VFIO_BASE + 2);

// Group: /dev/vfio/GROUP.

export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1;

export const vfio_group_status = struct('vfio_group_status', {
  argsz: u32,
  flags: flags(u32, 'VFIO_GROUP_FLAGS_', {
    VFIO_GROUP_FLAGS_VIABLE,
    VFIO_GROUP_FLAGS_CONTAINER_SET,
  }),
});
export type vfio_group_status = Static<typeof vfio_group_status>;
export const VFIO_GROUP_GET_STATUS = _IO(VFIO_TYPE, VFIO_BASE + 3);
export const VFIO_GROUP_SET_CONTAINER = _IO(VFIO_TYPE, VFIO_BASE + 4);
export const VFIO_GROUP_UNSET_CONTAINER = _IO(VFIO_TYPE, VFIO_BASE + 5);
export const VFIO_GROUP_GET_DEVICE_FD = _IO(VFIO_TYPE, VFIO_BASE + 6);

// Device: from a group, or /dev/vfio/devices/vfioN.

export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;
export const VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2;
export const VFIO_DEVICE_FLAGS_AMBA = 1 << 3;
export const VFIO_DEVICE_FLAGS_CCW = 1 << 4;
export const VFIO_DEVICE_FLAGS_AP = 1 << 5;
export const VFIO_DEVICE_FLAGS_FSL_MC = 1 << 6;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;
export const VFIO_DEVICE_FLAGS_CDX = 1 << 8;

export const vfio_device_info = struct('vfio_device_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_FLAGS_', {
    VFIO_DEVICE_FLAGS_RESET,
    VFIO_DEVICE_FLAGS_PCI,
    VFIO_DEVICE_FLAGS_PLATFORM,
    VFIO_DEVICE_FLAGS_AMBA,
    VFIO_DEVICE_FLAGS_CCW,
    VFIO_DEVICE_FLAGS_AP,
    VFIO_DEVICE_FLAGS_FSL_MC,
    VFIO_DEVICE_FLAGS_CAPS,
    VFIO_DEVICE_FLAGS_CDX,
  }),
  num_regions: u32,
  num_irqs: u32,
  cap_offset: u32,
  pad: u32,
});
export type vfio_device_info = Static<typeof vfio_device_info>;
export const VFIO_DEVICE_GET_INFO = _IO(VFIO_TYPE, VFIO_BASE + 7);

export const VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5;
export const VFIO_PCI_ATOMIC_COMP32 = 1 << 0;
export const VFIO_PCI_ATOMIC_COMP64 = 1 << 1;
export const VFIO_PCI_ATOMIC_COMP128 = 1 << 2;

export const vfio_device_info_cap_pci_atomic_comp = struct('vfio_device_info_cap_pci_atomic_comp', {
  header: vfio_info_cap_header,
  flags: flags(u32, 'VFIO_PCI_ATOMIC_', {
    VFIO_PCI_ATOMIC_COMP32,
    VFIO_PCI_ATOMIC_COMP64,
    VFIO_PCI_ATOMIC_COMP128,
  }),
  reserved: u32,
});
export type vfio_device_info_cap_pci_atomic_comp = Static<
  typeof vfio_device_info_cap_pci_atomic_comp
>;

export const VFIO_REGION_INFO_FLAG_READ = 1 << 0;
export const VFIO_REGION_INFO_FLAG_WRITE = 1 << 1;
export const VFIO_REGION_INFO_FLAG_MMAP = 1 << 2;
export const VFIO_REGION_INFO_FLAG_CAPS = 1 << 3;

export const vfio_region_info = struct('vfio_region_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_REGION_INFO_FLAG_', {
    VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
    VFIO_REGION_INFO_FLAG_MMAP,
    VFIO_REGION_INFO_FLAG_CAPS,
  }),
  index: u32,
  cap_offset: u32,
  size: hex(u64),
  offset: hex(u64),
});
export type vfio_region_info = Static<typeof vfio_region_info>;
export const VFIO_DEVICE_GET_REGION_INFO = _IO(VFIO_TYPE, VFIO_BASE + 8);

export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;

export const vfio_region_sparse_mmap_area = struct('vfio_region_sparse_mmap_area', {
  offset: hex(u64),
  size: hex(u64),
});
export type vfio_region_sparse_mmap_area = Static<typeof vfio_region_sparse_mmap_area>;

export const vfio_region_info_cap_sparse_mmap = struct('vfio_region_info_cap_sparse_mmap', {
  header: vfio_info_cap_header,
  nr_areas: u32,
  reserved: u32,
  areas: array(vfio_region_sparse_mmap_area, 0),
});
export type vfio_region_info_cap_sparse_mmap = Static<typeof vfio_region_info_cap_sparse_mmap>;

export const VFIO_REGION_INFO_CAP_TYPE = 2;

export const vfio_region_info_cap_type = struct('vfio_region_info_cap_type', {
  header: vfio_info_cap_header,
  type: u32,
  subtype: u32,
});
export type vfio_region_info_cap_type = Static<typeof vfio_region_info_cap_type>;

export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;

export const VFIO_IRQ_INFO_EVENTFD = 1 << 0;
export const VFIO_IRQ_INFO_MASKABLE = 1 << 1;
export const VFIO_IRQ_INFO_AUTOMASKED = 1 << 2;
export const VFIO_IRQ_INFO_NORESIZE = 1 << 3;

export const vfio_irq_info = struct('vfio_irq_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_IRQ_INFO_', {
    VFIO_IRQ_INFO_EVENTFD,
    VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_INFO_AUTOMASKED,
    VFIO_IRQ_INFO_NORESIZE,
  }),
  index: u32,
  count: u32,
});
export type vfio_irq_info = Static<typeof vfio_irq_info>;
export const VFIO_DEVICE_GET_IRQ_INFO = _IO(VFIO_TYPE, VFIO_BASE + 9);

export const VFIO_IRQ_SET_DATA_NONE = 1 << 0;
export const VFIO_IRQ_SET_DATA_BOOL = 1 << 1;
export const VFIO_IRQ_SET_DATA_EVENTFD = 1 << 2;
export const VFIO_IRQ_SET_ACTION_MASK = 1 << 3;
export const VFIO_IRQ_SET_ACTION_UNMASK = 1 << 4;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5;
export const VFIO_IRQ_SET_DATA_TYPE_MASK =
  VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD;
export const VFIO_IRQ_SET_ACTION_TYPE_MASK =
  VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER;

export const vfio_irq_set = struct('vfio_irq_set', {
  argsz: u32,
  flags: flags(u32, 'VFIO_IRQ_SET_', {
    VFIO_IRQ_SET_DATA_NONE,
    VFIO_IRQ_SET_DATA_BOOL,
    VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_ACTION_MASK,
    VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_ACTION_TRIGGER,
  }),
  index: u32,
  start: u32,
  count: u32,
  data: array(u8, 0),
});
export type vfio_irq_set = Static<typeof vfio_irq_set>;
export const VFIO_DEVICE_SET_IRQS = _IO(VFIO_TYPE, VFIO_BASE + 10);
export const VFIO_DEVICE_RESET = _IO(VFIO_TYPE, VFIO_BASE + 11);

export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_BAR1_REGION_INDEX = 1;
export const VFIO_PCI_BAR2_REGION_INDEX = 2;
export const VFIO_PCI_BAR3_REGION_INDEX = 3;
export const VFIO_PCI_BAR4_REGION_INDEX = 4;
export const VFIO_PCI_BAR5_REGION_INDEX = 5;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
export const VFIO_PCI_NUM_REGIONS = 9;

export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

export const VFIO_PCI_DEVID_OWNED = 0;
export const VFIO_PCI_DEVID_NOT_OWNED = -1;

export const vfio_pci_dependent_device = struct('vfio_pci_dependent_device', {
  id: union({ group_id: u32, devid: u32 }),
  segment: u16,
  bus: hex(u8),
  devfn: hex(u8),
});
export type vfio_pci_dependent_device = Static<typeof vfio_pci_dependent_device>;

export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1 << 0;
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 1 << 1;

export const vfio_pci_hot_reset_info = struct('vfio_pci_hot_reset_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_PCI_HOT_RESET_FLAG_', {
    VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
    VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
  }),
  count: u32,
  devices: array(vfio_pci_dependent_device, 0),
});
export type vfio_pci_hot_reset_info = Static<typeof vfio_pci_hot_reset_info>;
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = _IO(VFIO_TYPE, VFIO_BASE + 12);

export const vfio_pci_hot_reset = struct('vfio_pci_hot_reset', {
  argsz: u32,
  flags: hex(u32),
  count: u32,
  group_fds: array(s32, 0),
});
export type vfio_pci_hot_reset = Static<typeof vfio_pci_hot_reset>;
export const VFIO_DEVICE_PCI_HOT_RESET = _IO(VFIO_TYPE, VFIO_BASE + 13);

export const VFIO_DEVICE_IOEVENTFD_8 = 1 << 0;
export const VFIO_DEVICE_IOEVENTFD_16 = 1 << 1;
export const VFIO_DEVICE_IOEVENTFD_32 = 1 << 2;
export const VFIO_DEVICE_IOEVENTFD_64 = 1 << 3;
export const VFIO_DEVICE_IOEVENTFD_SIZE_MASK = 0xf;

export const vfio_device_ioeventfd = struct('vfio_device_ioeventfd', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_IOEVENTFD_', {
    VFIO_DEVICE_IOEVENTFD_8,
    VFIO_DEVICE_IOEVENTFD_16,
    VFIO_DEVICE_IOEVENTFD_32,
    VFIO_DEVICE_IOEVENTFD_64,
  }),
  offset: hex(u64),
  data: hex(u64),
  fd,
  reserved: u32,
});
export type vfio_device_ioeventfd = Static<typeof vfio_device_ioeventfd>;
export const VFIO_DEVICE_IOEVENTFD = _IO(VFIO_TYPE, VFIO_BASE + 16);

export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

export const vfio_device_feature = struct('vfio_device_feature', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_FEATURE_', {
    VFIO_DEVICE_FEATURE_GET,
    VFIO_DEVICE_FEATURE_SET,
    VFIO_DEVICE_FEATURE_PROBE,
  }),
  data: array(u8, 0),
});
export type vfio_device_feature = Static<typeof vfio_device_feature>;
export const VFIO_DEVICE_FEATURE = _IO(VFIO_TYPE, VFIO_BASE + 17);

export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;

export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_BIND_FLAG_', { VFIO_DEVICE_BIND_FLAG_TOKEN }),
  iommufd: fd,
  out_devid: u32,
  token_uuid_ptr: pointer,
});
export type vfio_device_bind_iommufd = Static<typeof vfio_device_bind_iommufd>;
export const VFIO_DEVICE_BIND_IOMMUFD = _IO(VFIO_TYPE, VFIO_BASE + 18);

export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;

export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_ATTACH_', { VFIO_DEVICE_ATTACH_PASID }),
  pt_id: u32,
  pasid: u32,
});
export type vfio_device_attach_iommufd_pt = Static<typeof vfio_device_attach_iommufd_pt>;
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = _IO(VFIO_TYPE, VFIO_BASE + 19);

export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DEVICE_DETACH_', { VFIO_DEVICE_DETACH_PASID }),
  pasid: u32,
});
export type vfio_device_detach_iommufd_pt = Static<typeof vfio_device_detach_iommufd_pt>;
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = _IO(VFIO_TYPE, VFIO_BASE + 20);

export const VFIO_PRECOPY_INFO_REINIT = 1 << 0;

export const vfio_precopy_info = struct('vfio_precopy_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_PRECOPY_INFO_', { VFIO_PRECOPY_INFO_REINIT }),
  initial_bytes: u64,
  dirty_bytes: u64,
});
export type vfio_precopy_info = Static<typeof vfio_precopy_info>;
export const VFIO_MIG_GET_PRECOPY_INFO = _IO(VFIO_TYPE, VFIO_BASE + 21);

export const VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0;
export const VFIO_DEVICE_FEATURE_MIGRATION = 1;
export const VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3;
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4;
export const VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7;
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8;
export const VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9;
export const VFIO_DEVICE_FEATURE_BUS_MASTER = 10;
export const VFIO_DEVICE_FEATURE_DMA_BUF = 11;

export const vfio_device_low_power_entry_with_wakeup = struct(
  'vfio_device_low_power_entry_with_wakeup',
  { wakeup_eventfd: fd, reserved: u32 },
);
export type vfio_device_low_power_entry_with_wakeup = Static<
  typeof vfio_device_low_power_entry_with_wakeup
>;

export const VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0;
export const VFIO_DEVICE_FEATURE_SET_MASTER = 1;

export const vfio_device_feature_bus_master = struct('vfio_device_feature_bus_master', {
  op: oneOf(u32, 'VFIO_DEVICE_FEATURE_', {
    VFIO_DEVICE_FEATURE_CLEAR_MASTER,
    VFIO_DEVICE_FEATURE_SET_MASTER,
  }),
});
export type vfio_device_feature_bus_master = Static<typeof vfio_device_feature_bus_master>;

export const vfio_region_dma_range = struct('vfio_region_dma_range', {
  offset: hex(u64),
  length: hex(u64),
});
export type vfio_region_dma_range = Static<typeof vfio_region_dma_range>;

export const vfio_device_feature_dma_buf = struct('vfio_device_feature_dma_buf', {
  region_index: u32,
  open_flags: hex(u32),
  flags: hex(u32),
  nr_ranges: u32,
  dma_ranges: array(vfio_region_dma_range, 0),
});
export type vfio_device_feature_dma_buf = Static<typeof vfio_device_feature_dma_buf>;

// Type 1 IOMMU driver of a container.

export const VFIO_IOMMU_INFO_PGSIZES = 1 << 0;
export const VFIO_IOMMU_INFO_CAPS = 1 << 1;

export const vfio_iommu_type1_info = struct('vfio_iommu_type1_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_IOMMU_INFO_', { VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_INFO_CAPS }),
  iova_pgsizes: hex(u64),
  cap_offset: u32,
  pad: u32,
});
export type vfio_iommu_type1_info = Static<typeof vfio_iommu_type1_info>;

export const VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1;

export const vfio_iova_range = struct('vfio_iova_range', { start: iova, end: iova });
export type vfio_iova_range = Static<typeof vfio_iova_range>;

export const vfio_iommu_type1_info_cap_iova_range = struct('vfio_iommu_type1_info_cap_iova_range', {
  header: vfio_info_cap_header,
  nr_iovas: u32,
  reserved: u32,
  iova_ranges: array(vfio_iova_range, 0),
});
export type vfio_iommu_type1_info_cap_iova_range = Static<
  typeof vfio_iommu_type1_info_cap_iova_range
>;

export const VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION = 2;

export const vfio_iommu_type1_info_cap_migration = struct('vfio_iommu_type1_info_cap_migration', {
  header: vfio_info_cap_header,
  flags: hex(u32),
  pgsize_bitmap: hex(u64),
  max_dirty_bitmap_size: hex(u64),
});
export type vfio_iommu_type1_info_cap_migration = Static<
  typeof vfio_iommu_type1_info_cap_migration
>;

export const VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;

export const vfio_iommu_type1_info_dma_avail = struct('vfio_iommu_type1_info_dma_avail', {
  header: vfio_info_cap_header,
  avail: u32,
});
export type vfio_iommu_type1_info_dma_avail = Static<typeof vfio_iommu_type1_info_dma_avail>;
export const VFIO_IOMMU_GET_INFO = _IO(VFIO_TYPE, VFIO_BASE + 12);

export const VFIO_DMA_MAP_FLAG_READ = 1 << 0;
export const VFIO_DMA_MAP_FLAG_WRITE = 1 << 1;
export const VFIO_DMA_MAP_FLAG_VADDR = 1 << 2;

export const vfio_iommu_type1_dma_map = struct('vfio_iommu_type1_dma_map', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DMA_MAP_FLAG_', {
    VFIO_DMA_MAP_FLAG_READ,
    VFIO_DMA_MAP_FLAG_WRITE,
    VFIO_DMA_MAP_FLAG_VADDR,
  }),
  vaddr: pointer,
  iova,
  size: iova,
});
export type vfio_iommu_type1_dma_map = Static<typeof vfio_iommu_type1_dma_map>;
export const VFIO_IOMMU_MAP_DMA = _IO(VFIO_TYPE, VFIO_BASE + 13);

export const vfio_bitmap = struct('vfio_bitmap', { pgsize: iova, size: u64, data: pointer });
export type vfio_bitmap = Static<typeof vfio_bitmap>;

export const VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP = 1 << 0;
export const VFIO_DMA_UNMAP_FLAG_ALL = 1 << 1;
export const VFIO_DMA_UNMAP_FLAG_VADDR = 1 << 2;

export const vfio_iommu_type1_dma_unmap = struct('vfio_iommu_type1_dma_unmap', {
  argsz: u32,
  flags: flags(u32, 'VFIO_DMA_UNMAP_FLAG_', {
    VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
    VFIO_DMA_UNMAP_FLAG_ALL,
    VFIO_DMA_UNMAP_FLAG_VADDR,
  }),
  iova,
  size: iova,
  data: array(u8, 0),
});
export type vfio_iommu_type1_dma_unmap = Static<typeof vfio_iommu_type1_dma_unmap>;
export const VFIO_IOMMU_UNMAP_DMA = _IO(VFIO_TYPE, VFIO_BASE + 14);

export const VFIO_IOMMU_DIRTY_PAGES_FLAG_START = 1 << 0;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP = 1 << 1;
export const VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP = 1 << 2;

export const vfio_iommu_type1_dirty_bitmap = struct('vfio_iommu_type1_dirty_bitmap', {
  argsz: u32,
  flags: flags(u32, 'VFIO_IOMMU_DIRTY_PAGES_FLAG_', {
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  }),
  data: array(u8, 0),
});
export type vfio_iommu_type1_dirty_bitmap = Static<typeof vfio_iommu_type1_dirty_bitmap>;

export const vfio_iommu_type1_dirty_bitmap_get = struct('vfio_iommu_type1_dirty_bitmap_get', {
  iova,
  size: iova,
  bitmap: vfio_bitmap,
});
export type vfio_iommu_type1_dirty_bitmap_get = Static<typeof vfio_iommu_type1_dirty_bitmap_get>;
export const VFIO_IOMMU_DIRTY_PAGES = _IO(VFIO_TYPE, VFIO_BASE + 17);
