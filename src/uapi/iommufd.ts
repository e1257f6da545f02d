/**
 * The ABI of /dev/iommu as Linux 7.3 has it: every struct, ioctl number, flag and enumerated value of
 * include/uapi/linux/iommufd.h, under the C names and in the order of the header. Bytes only, no behaviour. Sizes, offsets
 * and values are compared with the C compiler by test/uapi.
 *
 * One anonymous union has to be called something: `data_type` in iommu_hw_info, which C spells in_data_type and
 * out_data_type.
 */
import { _IO } from '../base/ioctl-number.ts';
import { array, struct, u16, u32, u64, u8, union, type Static } from '../base/struct.ts';
import { fd, flags, hex, iova, oneOf, pointer } from './meaning.ts';

export const IOMMUFD_TYPE = ';';

export const IOMMUFD_CMD_BASE = 0x80;
export const IOMMUFD_CMD_DESTROY = 0x80;
export const IOMMUFD_CMD_IOAS_ALLOC = 0x81;
export const IOMMUFD_CMD_IOAS_ALLOW_IOVAS = 0x82;
export const IOMMUFD_CMD_IOAS_COPY = 0x83;
export const IOMMUFD_CMD_IOAS_IOVA_RANGES = 0x84;
export const IOMMUFD_CMD_IOAS_MAP = 0x85;
export const IOMMUFD_CMD_IOAS_UNMAP = 0x86;
export const IOMMUFD_CMD_OPTION = 0x87;
export const IOMMUFD_CMD_VFIO_IOAS = 0x88;
export const IOMMUFD_CMD_HWPT_ALLOC = 0x89;
export const IOMMUFD_CMD_GET_HW_INFO = 0x8a;
export const IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING = 0x8b;
export const IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP = 0x8c;
export const IOMMUFD_CMD_HWPT_INVALIDATE = 0x8d;
export const IOMMUFD_CMD_FAULT_QUEUE_ALLOC = 0x8e;
export const IOMMUFD_CMD_IOAS_MAP_FILE = 0x8f;
export const IOMMUFD_CMD_VIOMMU_ALLOC = 0x90;
export const IOMMUFD_CMD_VDEVICE_ALLOC = 0x91;
export const IOMMUFD_CMD_IOAS_CHANGE_PROCESS = 0x92;
export const IOMMUFD_CMD_VEVENTQ_ALLOC = 0x93;
export const IOMMUFD_CMD_HW_QUEUE_ALLOC = 0x94;
export const IOMMUFD_CMD_IOAS_NOIOMMU_GET_PA = 0x95;

export const iommu_destroy = struct('iommu_destroy', { size: u32, id: u32 });
export type iommu_destroy = Static<typeof iommu_destroy>;
export const IOMMU_DESTROY = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_DESTROY);

// IOAS: address space objects and what is mapped in them.

export const iommu_ioas_alloc = struct('iommu_ioas_alloc', {
  size: u32,
  flags: hex(u32),
  out_ioas_id: u32,
});
export type iommu_ioas_alloc = Static<typeof iommu_ioas_alloc>;
export const IOMMU_IOAS_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_ALLOC);

export const iommu_iova_range = struct('iommu_iova_range', { start: iova, last: iova });
export type iommu_iova_range = Static<typeof iommu_iova_range>;

export const iommu_ioas_iova_ranges = struct('iommu_ioas_iova_ranges', {
  size: u32,
  ioas_id: u32,
  num_iovas: u32,
  __reserved: u32,
  allowed_iovas: pointer,
  out_iova_alignment: iova,
});
export type iommu_ioas_iova_ranges = Static<typeof iommu_ioas_iova_ranges>;
export const IOMMU_IOAS_IOVA_RANGES = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_IOVA_RANGES);

export const iommu_ioas_allow_iovas = struct('iommu_ioas_allow_iovas', {
  size: u32,
  ioas_id: u32,
  num_iovas: u32,
  __reserved: u32,
  allowed_iovas: pointer,
});
export type iommu_ioas_allow_iovas = Static<typeof iommu_ioas_allow_iovas>;
export const IOMMU_IOAS_ALLOW_IOVAS = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_ALLOW_IOVAS);

export const IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0;
export const IOMMU_IOAS_MAP_WRITEABLE = 1 << 1;
export const IOMMU_IOAS_MAP_READABLE = 1 << 2;
const mapFlags = flags(u32, 'IOMMU_IOAS_MAP_', {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_MAP_READABLE,
});

export const iommu_ioas_map = struct('iommu_ioas_map', {
  size: u32,
  flags: mapFlags,
  ioas_id: u32,
  __reserved: u32,
  user_va: pointer,
  length: iova,
  iova,
});
export type iommu_ioas_map = Static<typeof iommu_ioas_map>;
export const IOMMU_IOAS_MAP = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_MAP);

export const iommu_ioas_noiommu_get_pa = struct('iommu_ioas_noiommu_get_pa', {
  size: u32,
  flags: hex(u32),
  ioas_id: u32,
  __reserved: u32,
  iova,
  length: iova,
  out_phys: hex(u64),
});
export type iommu_ioas_noiommu_get_pa = Static<typeof iommu_ioas_noiommu_get_pa>;
export const IOMMU_IOAS_NOIOMMU_GET_PA = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_NOIOMMU_GET_PA);

export const iommu_ioas_map_file = struct('iommu_ioas_map_file', {
  size: u32,
  flags: mapFlags,
  ioas_id: u32,
  fd,
  start: hex(u64),
  length: iova,
  iova,
});
export type iommu_ioas_map_file = Static<typeof iommu_ioas_map_file>;
export const IOMMU_IOAS_MAP_FILE = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_MAP_FILE);

export const iommu_ioas_copy = struct('iommu_ioas_copy', {
  size: u32,
  flags: mapFlags,
  dst_ioas_id: u32,
  src_ioas_id: u32,
  length: iova,
  dst_iova: iova,
  src_iova: iova,
});
export type iommu_ioas_copy = Static<typeof iommu_ioas_copy>;
export const IOMMU_IOAS_COPY = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_COPY);

export const iommu_ioas_unmap = struct('iommu_ioas_unmap', {
  size: u32,
  ioas_id: u32,
  iova,
  length: iova,
});
export type iommu_ioas_unmap = Static<typeof iommu_ioas_unmap>;
export const IOMMU_IOAS_UNMAP = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_UNMAP);

export const IOMMU_OPTION_RLIMIT_MODE = 0;
export const IOMMU_OPTION_HUGE_PAGES = 1;
export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;

export const iommu_option = struct('iommu_option', {
  size: u32,
  option_id: oneOf(u32, 'IOMMU_OPTION_', { IOMMU_OPTION_RLIMIT_MODE, IOMMU_OPTION_HUGE_PAGES }),
  op: oneOf(u16, 'IOMMU_OPTION_OP_', { IOMMU_OPTION_OP_SET, IOMMU_OPTION_OP_GET }),
  __reserved: u16,
  object_id: u32,
  val64: u64,
});
export type iommu_option = Static<typeof iommu_option>;
export const IOMMU_OPTION = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_OPTION);

export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;

export const iommu_vfio_ioas = struct('iommu_vfio_ioas', {
  size: u32,
  ioas_id: u32,
  op: oneOf(u16, 'IOMMU_VFIO_IOAS_', {
    IOMMU_VFIO_IOAS_GET,
    IOMMU_VFIO_IOAS_SET,
    IOMMU_VFIO_IOAS_CLEAR,
  }),
  __reserved: u16,
});
export type iommu_vfio_ioas = Static<typeof iommu_vfio_ioas>;
export const IOMMU_VFIO_IOAS = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VFIO_IOAS);

// HWPT: hardware page tables, and what each kind of hardware wants to know about a nested one.

export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1 << 0;
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1;
export const IOMMU_HWPT_FAULT_ID_VALID = 1 << 2;
export const IOMMU_HWPT_ALLOC_PASID = 1 << 3;

export const IOMMU_VTD_S1_SRE = 1 << 0;
export const IOMMU_VTD_S1_EAFE = 1 << 1;
export const IOMMU_VTD_S1_WPE = 1 << 2;

export const iommu_hwpt_vtd_s1 = struct('iommu_hwpt_vtd_s1', {
  flags: flags(u64, 'IOMMU_VTD_S1_', { IOMMU_VTD_S1_SRE, IOMMU_VTD_S1_EAFE, IOMMU_VTD_S1_WPE }),
  pgtbl_addr: hex(u64),
  addr_width: u32,
  __reserved: u32,
});
export type iommu_hwpt_vtd_s1 = Static<typeof iommu_hwpt_vtd_s1>;

export const iommu_hwpt_arm_smmuv3 = struct('iommu_hwpt_arm_smmuv3', { ste: array(hex(u64), 2) });
export type iommu_hwpt_arm_smmuv3 = Static<typeof iommu_hwpt_arm_smmuv3>;

export const iommu_hwpt_amd_guest = struct('iommu_hwpt_amd_guest', { dte: array(hex(u64), 4) });
export type iommu_hwpt_amd_guest = Static<typeof iommu_hwpt_amd_guest>;

export const IOMMU_HWPT_DATA_NONE = 0;
export const IOMMU_HWPT_DATA_VTD_S1 = 1;
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2;
export const IOMMU_HWPT_DATA_AMD_GUEST = 3;

export const iommu_hwpt_alloc = struct('iommu_hwpt_alloc', {
  size: u32,
  flags: flags(u32, 'IOMMU_HWPT_', {
    IOMMU_HWPT_ALLOC_NEST_PARENT,
    IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
    IOMMU_HWPT_FAULT_ID_VALID,
    IOMMU_HWPT_ALLOC_PASID,
  }),
  dev_id: u32,
  pt_id: u32,
  out_hwpt_id: u32,
  __reserved: u32,
  data_type: oneOf(u32, 'IOMMU_HWPT_DATA_', {
    IOMMU_HWPT_DATA_NONE,
    IOMMU_HWPT_DATA_VTD_S1,
    IOMMU_HWPT_DATA_ARM_SMMUV3,
    IOMMU_HWPT_DATA_AMD_GUEST,
  }),
  data_len: u32,
  data_uptr: pointer,
  fault_id: u32,
  __reserved2: u32,
});
export type iommu_hwpt_alloc = Static<typeof iommu_hwpt_alloc>;
export const IOMMU_HWPT_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_ALLOC);

// What a device's IOMMU is and can do.

export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0;

export const iommu_hw_info_vtd = struct('iommu_hw_info_vtd', {
  flags: flags(u32, 'IOMMU_HW_INFO_VTD_', { IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 }),
  __reserved: u32,
  cap_reg: hex(u64),
  ecap_reg: hex(u64),
});
export type iommu_hw_info_vtd = Static<typeof iommu_hw_info_vtd>;

export const IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI = 1 << 0;

export const iommu_hw_info_arm_smmuv3 = struct('iommu_hw_info_arm_smmuv3', {
  flags: flags(u32, 'IOMMU_HW_INFO_ARM_SMMUV3_', {
    IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI,
  }),
  __reserved: u32,
  idr: array(hex(u32), 6),
  iidr: hex(u32),
  aidr: hex(u32),
});
export type iommu_hw_info_arm_smmuv3 = Static<typeof iommu_hw_info_arm_smmuv3>;

export const iommu_hw_info_tegra241_cmdqv = struct('iommu_hw_info_tegra241_cmdqv', {
  flags: hex(u32),
  version: u8,
  log2vcmdqs: u8,
  log2vsids: u8,
  __reserved: u8,
});
export type iommu_hw_info_tegra241_cmdqv = Static<typeof iommu_hw_info_tegra241_cmdqv>;

export const iommu_hw_info_amd = struct('iommu_hw_info_amd', { efr: hex(u64), efr2: hex(u64) });
export type iommu_hw_info_amd = Static<typeof iommu_hw_info_amd>;

export const IOMMU_HW_INFO_TYPE_NONE = 0;
export const IOMMU_HW_INFO_TYPE_DEFAULT = 0;
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2;
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3;
export const IOMMU_HW_INFO_TYPE_AMD = 4;
const hwInfoType = oneOf(u32, 'IOMMU_HW_INFO_TYPE_', {
  IOMMU_HW_INFO_TYPE_NONE,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV,
  IOMMU_HW_INFO_TYPE_AMD,
});

export const IOMMU_HW_CAP_DIRTY_TRACKING = 1 << 0;
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 1 << 1;
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 1 << 2;
export const IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1 << 3;

export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0;

export const iommu_hw_info = struct('iommu_hw_info', {
  size: u32,
  flags: flags(u32, 'IOMMU_HW_INFO_FLAG_', { IOMMU_HW_INFO_FLAG_INPUT_TYPE }),
  dev_id: u32,
  data_len: u32,
  data_uptr: pointer,
  data_type: union({ in_data_type: hwInfoType, out_data_type: hwInfoType }),
  out_max_pasid_log2: u8,
  __reserved: array(u8, 3),
  out_capabilities: flags(u64, 'IOMMU_HW_CAP_', {
    IOMMU_HW_CAP_DIRTY_TRACKING,
    IOMMU_HW_CAP_PCI_PASID_EXEC,
    IOMMU_HW_CAP_PCI_PASID_PRIV,
    IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  }),
});
export type iommu_hw_info = Static<typeof iommu_hw_info>;
export const IOMMU_GET_HW_INFO = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_GET_HW_INFO);

// Which IOVAs a device wrote.

export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1;

export const iommu_hwpt_set_dirty_tracking = struct('iommu_hwpt_set_dirty_tracking', {
  size: u32,
  flags: flags(u32, 'IOMMU_HWPT_DIRTY_TRACKING_', { IOMMU_HWPT_DIRTY_TRACKING_ENABLE }),
  hwpt_id: u32,
  __reserved: u32,
});
export type iommu_hwpt_set_dirty_tracking = Static<typeof iommu_hwpt_set_dirty_tracking>;
export const IOMMU_HWPT_SET_DIRTY_TRACKING = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING);

export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;

export const iommu_hwpt_get_dirty_bitmap = struct('iommu_hwpt_get_dirty_bitmap', {
  size: u32,
  hwpt_id: u32,
  flags: flags(u32, 'IOMMU_HWPT_GET_DIRTY_BITMAP_', { IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR }),
  __reserved: u32,
  iova,
  length: iova,
  page_size: iova,
  data: pointer,
});
export type iommu_hwpt_get_dirty_bitmap = Static<typeof iommu_hwpt_get_dirty_bitmap>;
export const IOMMU_HWPT_GET_DIRTY_BITMAP = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP);

// Invalidation of nested page tables, by HWPT or by vIOMMU.

export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0;
export const IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1;

export const IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0;

export const iommu_hwpt_vtd_s1_invalidate = struct('iommu_hwpt_vtd_s1_invalidate', {
  addr: hex(u64),
  npages: u64,
  flags: flags(u32, 'IOMMU_VTD_INV_FLAGS_', { IOMMU_VTD_INV_FLAGS_LEAF }),
  __reserved: u32,
});
export type iommu_hwpt_vtd_s1_invalidate = Static<typeof iommu_hwpt_vtd_s1_invalidate>;

export const iommu_viommu_arm_smmuv3_invalidate = struct('iommu_viommu_arm_smmuv3_invalidate', {
  cmd: array(hex(u64), 2),
});
export type iommu_viommu_arm_smmuv3_invalidate = Static<typeof iommu_viommu_arm_smmuv3_invalidate>;

export const iommu_hwpt_invalidate = struct('iommu_hwpt_invalidate', {
  size: u32,
  hwpt_id: u32,
  data_uptr: pointer,
  data_type: oneOf(u32, '', {
    IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
    IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  }),
  entry_len: u32,
  entry_num: u32,
  __reserved: u32,
});
export type iommu_hwpt_invalidate = Static<typeof iommu_hwpt_invalidate>;
export const IOMMU_HWPT_INVALIDATE = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HWPT_INVALIDATE);

// Page faults that user space answers.

export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1 << 0;
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 1 << 1;

export const IOMMU_PGFAULT_PERM_READ = 1 << 0;
export const IOMMU_PGFAULT_PERM_WRITE = 1 << 1;
export const IOMMU_PGFAULT_PERM_EXEC = 1 << 2;
export const IOMMU_PGFAULT_PERM_PRIV = 1 << 3;

export const iommu_hwpt_pgfault = struct('iommu_hwpt_pgfault', {
  flags: flags(u32, 'IOMMU_PGFAULT_FLAGS_', {
    IOMMU_PGFAULT_FLAGS_PASID_VALID,
    IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  }),
  dev_id: u32,
  pasid: u32,
  grpid: u32,
  perm: flags(u32, 'IOMMU_PGFAULT_PERM_', {
    IOMMU_PGFAULT_PERM_READ,
    IOMMU_PGFAULT_PERM_WRITE,
    IOMMU_PGFAULT_PERM_EXEC,
    IOMMU_PGFAULT_PERM_PRIV,
  }),
  __reserved: u32,
  addr: hex(u64),
  length: u32,
  cookie: u32,
});
export type iommu_hwpt_pgfault = Static<typeof iommu_hwpt_pgfault>;

export const IOMMUFD_PAGE_RESP_SUCCESS = 0;
export const IOMMUFD_PAGE_RESP_INVALID = 1;

export const iommu_hwpt_page_response = struct('iommu_hwpt_page_response', {
  cookie: u32,
  code: oneOf(u32, 'IOMMUFD_PAGE_RESP_', { IOMMUFD_PAGE_RESP_SUCCESS, IOMMUFD_PAGE_RESP_INVALID }),
});
export type iommu_hwpt_page_response = Static<typeof iommu_hwpt_page_response>;

export const iommu_fault_alloc = struct('iommu_fault_alloc', {
  size: u32,
  flags: hex(u32),
  out_fault_id: u32,
  out_fault_fd: u32,
});
export type iommu_fault_alloc = Static<typeof iommu_fault_alloc>;
export const IOMMU_FAULT_QUEUE_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_FAULT_QUEUE_ALLOC);

// vIOMMU: a slice of a physical IOMMU given to a guest, its devices, events and queues.

export const IOMMU_VIOMMU_TYPE_DEFAULT = 0;
export const IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2;

export const iommu_viommu_tegra241_cmdqv = struct('iommu_viommu_tegra241_cmdqv', {
  out_vintf_mmap_offset: hex(u64),
  out_vintf_mmap_length: hex(u64),
});
export type iommu_viommu_tegra241_cmdqv = Static<typeof iommu_viommu_tegra241_cmdqv>;

export const iommu_viommu_alloc = struct('iommu_viommu_alloc', {
  size: u32,
  flags: hex(u32),
  type: oneOf(u32, 'IOMMU_VIOMMU_TYPE_', {
    IOMMU_VIOMMU_TYPE_DEFAULT,
    IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
    IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV,
  }),
  dev_id: u32,
  hwpt_id: u32,
  out_viommu_id: u32,
  data_len: u32,
  __reserved: u32,
  data_uptr: pointer,
});
export type iommu_viommu_alloc = Static<typeof iommu_viommu_alloc>;
export const IOMMU_VIOMMU_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VIOMMU_ALLOC);

export const iommu_vdevice_alloc = struct('iommu_vdevice_alloc', {
  size: u32,
  viommu_id: u32,
  dev_id: u32,
  out_vdevice_id: u32,
  virt_id: hex(u64),
});
export type iommu_vdevice_alloc = Static<typeof iommu_vdevice_alloc>;
export const IOMMU_VDEVICE_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VDEVICE_ALLOC);

export const iommu_ioas_change_process = struct('iommu_ioas_change_process', {
  size: u32,
  __reserved: u32,
});
export type iommu_ioas_change_process = Static<typeof iommu_ioas_change_process>;
export const IOMMU_IOAS_CHANGE_PROCESS = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_IOAS_CHANGE_PROCESS);

export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1 << 0;

export const iommufd_vevent_header = struct('iommufd_vevent_header', {
  flags: flags(u32, 'IOMMU_VEVENTQ_FLAG_', { IOMMU_VEVENTQ_FLAG_LOST_EVENTS }),
  sequence: u32,
});
export type iommufd_vevent_header = Static<typeof iommufd_vevent_header>;

export const IOMMU_VEVENTQ_TYPE_DEFAULT = 0;
export const IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2;

export const iommu_vevent_arm_smmuv3 = struct('iommu_vevent_arm_smmuv3', {
  evt: array(hex(u64), 4),
});
export type iommu_vevent_arm_smmuv3 = Static<typeof iommu_vevent_arm_smmuv3>;

export const iommu_vevent_tegra241_cmdqv = struct('iommu_vevent_tegra241_cmdqv', {
  lvcmdq_err_map: array(hex(u64), 2),
});
export type iommu_vevent_tegra241_cmdqv = Static<typeof iommu_vevent_tegra241_cmdqv>;

export const iommu_veventq_alloc = struct('iommu_veventq_alloc', {
  size: u32,
  flags: hex(u32),
  viommu_id: u32,
  type: oneOf(u32, 'IOMMU_VEVENTQ_TYPE_', {
    IOMMU_VEVENTQ_TYPE_DEFAULT,
    IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
    IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV,
  }),
  veventq_depth: u32,
  out_veventq_id: u32,
  out_veventq_fd: u32,
  __reserved: u32,
});
export type iommu_veventq_alloc = Static<typeof iommu_veventq_alloc>;
export const IOMMU_VEVENTQ_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_VEVENTQ_ALLOC);

export const IOMMU_HW_QUEUE_TYPE_DEFAULT = 0;
export const IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1;

export const iommu_hw_queue_alloc = struct('iommu_hw_queue_alloc', {
  size: u32,
  flags: hex(u32),
  viommu_id: u32,
  type: oneOf(u32, 'IOMMU_HW_QUEUE_TYPE_', {
    IOMMU_HW_QUEUE_TYPE_DEFAULT,
    IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV,
  }),
  index: u32,
  out_hw_queue_id: u32,
  nesting_parent_iova: iova,
  length: iova,
});
export type iommu_hw_queue_alloc = Static<typeof iommu_hw_queue_alloc>;
export const IOMMU_HW_QUEUE_ALLOC = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_HW_QUEUE_ALLOC);
