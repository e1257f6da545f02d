/**
 * How far each ioctl, flag, data type and mock operation goes, and which test of the kernel's own shows it. The page
 * docs/compatibility.md is made from this; tests see to it that nothing of the ABI is missing here, that what is called
 * supported has a handler, and that the kernel has tests of these names.
 */

/**
 * supported: answers as Linux does. partial: in the cases that the note names. declared: the layout is known and shown in
 * traces; no machine has the hardware or driver that would take it, so it is refused as Linux refuses it there. unsupported:
 * shown in traces, and refused with ENOTTY where Linux would take it.
 */
export type Level = 'supported' | 'partial' | 'declared' | 'unsupported';

export type SupportRow = {
  readonly name: string;
  readonly level: Level;
  /** FIXTURE.TEST of the kernel's selftests; undefined where none of them looks at it */
  readonly test: string | undefined;
  readonly note: string;
};

export type SupportSection = { readonly title: string; readonly rows: readonly SupportRow[] };

function yes(name: string, test?: string, note = ''): SupportRow {
  return { name, level: 'supported', test, note };
}

function declared(name: string, note: string): SupportRow {
  return { name, level: 'declared', test: undefined, note };
}

const VTD = 'VT-d stage 1 tables';
const SMMU = 'SMMUv3';
const CMDQV = 'Tegra241 CMDQV';
const NO_TEST = 'recorded answers of a real kernel';

const IOCTLS: SupportSection = {
  title: 'Ioctls of /dev/iommu',
  rows: [
    yes('IOMMU_DESTROY', 'iommufd.cmd_fail'),
    yes('IOMMU_IOAS_ALLOC', 'iommufd_ioas.ioas_auto_destroy'),
    yes('IOMMU_IOAS_ALLOW_IOVAS', 'iommufd_ioas.area_allowed'),
    yes('IOMMU_IOAS_COPY', 'iommufd_ioas.copy_area'),
    yes('IOMMU_IOAS_IOVA_RANGES', 'iommufd_ioas.iova_ranges'),
    yes('IOMMU_IOAS_MAP', 'iommufd_ioas.area'),
    yes('IOMMU_IOAS_UNMAP', 'iommufd_ioas.unmap_fully_contained_areas'),
    yes('IOMMU_OPTION', 'iommufd.global_options'),
    yes('IOMMU_VFIO_IOAS', 'iommufd.vfio_ioas'),
    yes('IOMMU_HWPT_ALLOC', 'iommufd_mock_domain.alloc_hwpt'),
    yes('IOMMU_GET_HW_INFO', 'iommufd_ioas.get_hw_info'),
    yes('IOMMU_HWPT_SET_DIRTY_TRACKING', 'iommufd_dirty_tracking.set_dirty_tracking'),
    yes('IOMMU_HWPT_GET_DIRTY_BITMAP', 'iommufd_dirty_tracking.get_dirty_bitmap'),
    yes('IOMMU_HWPT_INVALIDATE', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_FAULT_QUEUE_ALLOC', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_IOAS_MAP_FILE', 'change_process.basic'),
    yes('IOMMU_VIOMMU_ALLOC', 'iommufd_viommu.viommu_alloc_with_data'),
    yes('IOMMU_VDEVICE_ALLOC', 'iommufd_viommu.vdevice_alloc'),
    yes('IOMMU_IOAS_CHANGE_PROCESS', 'change_process.basic'),
    yes('IOMMU_VEVENTQ_ALLOC', 'iommufd_viommu.vdevice_alloc'),
    yes('IOMMU_HW_QUEUE_ALLOC', 'iommufd_viommu.hw_queue'),
    yes('IOMMU_IOAS_NOIOMMU_GET_PA', undefined, 'no-iommu mode only, as in Linux'),
    yes('IOMMU_TEST_CMD', 'iommufd_mock_domain.basic', 'machine `selftest`'),
  ],
};

const COMPAT: SupportSection = {
  title: 'VFIO container ioctls on /dev/iommu',
  rows: [
    yes('VFIO_GET_API_VERSION', 'iommufd.simple_ioctls'),
    yes('VFIO_CHECK_EXTENSION', 'iommufd.simple_ioctls'),
    yes('VFIO_SET_IOMMU', 'iommufd.set_iommu_cmd', 'type 1 v1 and v2, and no-iommu'),
    yes('VFIO_IOMMU_GET_INFO', 'vfio_compat_mock_domain.get_info'),
    yes('VFIO_IOMMU_MAP_DMA', 'vfio_compat_mock_domain.map'),
    yes('VFIO_IOMMU_UNMAP_DMA', 'iommufd.unmap_cmd'),
    yes('VFIO_IOMMU_DIRTY_PAGES', undefined, 'ENOTTY, as in Linux'),
  ],
};

const POWER = 'POWER';

const VFIO: SupportSection = {
  title: 'Ioctls of VFIO',
  rows: [
    yes('VFIO_GET_API_VERSION'),
    yes('VFIO_CHECK_EXTENSION'),
    yes('VFIO_SET_IOMMU', undefined, 'type 1 v1 and v2'),
    yes('VFIO_IOMMU_GET_INFO'),
    yes('VFIO_IOMMU_MAP_DMA'),
    yes('VFIO_IOMMU_UNMAP_DMA'),
    yes('VFIO_IOMMU_DIRTY_PAGES'),
    yes('VFIO_GROUP_GET_STATUS'),
    yes('VFIO_GROUP_SET_CONTAINER'),
    yes('VFIO_GROUP_UNSET_CONTAINER'),
    yes('VFIO_GROUP_GET_DEVICE_FD'),
    yes('VFIO_DEVICE_GET_INFO'),
    yes('VFIO_DEVICE_GET_REGION_INFO'),
    yes('VFIO_DEVICE_GET_IRQ_INFO'),
    yes('VFIO_DEVICE_SET_IRQS'),
    yes('VFIO_DEVICE_RESET'),
    yes('VFIO_DEVICE_GET_PCI_HOT_RESET_INFO'),
    yes('VFIO_DEVICE_PCI_HOT_RESET'),
    yes('VFIO_DEVICE_IOEVENTFD'),
    yes(
      'VFIO_DEVICE_FEATURE',
      undefined,
      'VF token, low power, dma-buf; ENOTTY for migration and DMA logging',
    ),
    yes('VFIO_DEVICE_BIND_IOMMUFD'),
    yes('VFIO_DEVICE_ATTACH_IOMMUFD_PT'),
    yes('VFIO_DEVICE_DETACH_IOMMUFD_PT'),
    declared('VFIO_MIG_GET_PRECOPY_INFO', 'no model migrates'),
    declared('VFIO_DEVICE_QUERY_GFX_PLANE', 'graphics devices'),
    declared('VFIO_DEVICE_GET_GFX_DMABUF', 'graphics devices'),
    declared('VFIO_IOMMU_ENABLE', POWER),
    declared('VFIO_IOMMU_DISABLE', POWER),
    declared('VFIO_IOMMU_SPAPR_TCE_GET_INFO', POWER),
    declared('VFIO_EEH_PE_OP', POWER),
    declared('VFIO_IOMMU_SPAPR_REGISTER_MEMORY', POWER),
    declared('VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY', POWER),
    declared('VFIO_IOMMU_SPAPR_TCE_CREATE', POWER),
    declared('VFIO_IOMMU_SPAPR_TCE_REMOVE', POWER),
  ],
};

const IOAS_VALUES: SupportSection = {
  title: 'Flags and values: IOAS',
  rows: [
    yes('IOMMU_IOAS_MAP_FIXED_IOVA', 'iommufd_ioas.area'),
    yes('IOMMU_IOAS_MAP_WRITEABLE', 'iommufd_mock_domain.ro_unshare'),
    yes('IOMMU_IOAS_MAP_READABLE', 'iommufd_mock_domain.ro_unshare'),
    yes('IOMMU_OPTION_RLIMIT_MODE', 'iommufd.global_options'),
    yes('IOMMU_OPTION_HUGE_PAGES', 'iommufd_ioas.ioas_option_huge_pages'),
    yes('IOMMU_OPTION_OP_SET', 'iommufd_ioas.ioas_option_huge_pages'),
    yes('IOMMU_OPTION_OP_GET', 'iommufd_ioas.ioas_option_huge_pages'),
    yes('IOMMU_VFIO_IOAS_GET', 'iommufd.vfio_ioas'),
    yes('IOMMU_VFIO_IOAS_SET', 'iommufd.vfio_ioas'),
    yes('IOMMU_VFIO_IOAS_CLEAR', 'iommufd.vfio_ioas'),
  ],
};

const HWPT_VALUES: SupportSection = {
  title: 'Flags and data types: HWPT',
  rows: [
    yes('IOMMU_HWPT_ALLOC_NEST_PARENT', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_HWPT_ALLOC_DIRTY_TRACKING', 'iommufd_dirty_tracking.enforce_dirty'),
    yes('IOMMU_HWPT_FAULT_ID_VALID', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_HWPT_ALLOC_PASID', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_HWPT_DATA_NONE', 'iommufd_mock_domain.alloc_hwpt'),
    yes('IOMMU_HWPT_DATA_SELFTEST', 'iommufd_ioas.alloc_hwpt_nested', 'machine `selftest`'),
    declared('IOMMU_HWPT_DATA_VTD_S1', VTD),
    declared('IOMMU_HWPT_DATA_ARM_SMMUV3', SMMU),
    declared('IOMMU_HWPT_DATA_AMD_GUEST', 'AMD guest page tables'),
    declared('IOMMU_VTD_S1_SRE', VTD),
    declared('IOMMU_VTD_S1_EAFE', VTD),
    declared('IOMMU_VTD_S1_WPE', VTD),
    yes('IOMMU_HWPT_DIRTY_TRACKING_ENABLE', 'iommufd_dirty_tracking.set_dirty_tracking'),
    yes('IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR', 'iommufd_dirty_tracking.get_dirty_bitmap_no_clear'),
    yes('IOMMU_HWPT_INVALIDATE_DATA_SELFTEST', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID', 'iommufd_ioas.alloc_hwpt_nested', 'refused'),
    yes('IOMMU_TEST_INVALIDATE_FLAG_ALL', 'iommufd_ioas.alloc_hwpt_nested'),
    declared('IOMMU_HWPT_INVALIDATE_DATA_VTD_S1', VTD),
    declared('IOMMU_VTD_INV_FLAGS_LEAF', VTD),
  ],
};

const INFO_VALUES: SupportSection = {
  title: 'Flags and data types: GET_HW_INFO',
  rows: [
    yes('IOMMU_HW_INFO_FLAG_INPUT_TYPE', 'iommufd_ioas.get_hw_info'),
    yes('IOMMU_HW_INFO_TYPE_NONE', undefined, NO_TEST),
    yes('IOMMU_HW_INFO_TYPE_DEFAULT', 'iommufd_ioas.get_hw_info'),
    yes('IOMMU_HW_INFO_TYPE_SELFTEST', 'iommufd_ioas.get_hw_info', 'machine `selftest`'),
    declared('IOMMU_HW_INFO_TYPE_INTEL_VTD', 'VT-d'),
    declared('IOMMU_HW_INFO_TYPE_ARM_SMMUV3', SMMU),
    declared('IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV', CMDQV),
    declared('IOMMU_HW_INFO_TYPE_AMD', 'AMD IOMMU'),
    declared('IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17', 'VT-d'),
    declared('IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI', SMMU),
    yes('IOMMU_HW_CAP_DIRTY_TRACKING', 'iommufd_dirty_tracking.device_dirty_capability'),
    yes('IOMMU_HW_CAP_PCI_PASID_EXEC', undefined, NO_TEST),
    yes('IOMMU_HW_CAP_PCI_PASID_PRIV', undefined, NO_TEST),
    yes('IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED', undefined, NO_TEST),
  ],
};

const FAULT_VALUES: SupportSection = {
  title: 'Flags and values: page faults',
  rows: [
    yes('IOMMU_PGFAULT_FLAGS_PASID_VALID', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_PGFAULT_FLAGS_LAST_PAGE', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_PGFAULT_PERM_READ', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_PGFAULT_PERM_WRITE', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_PGFAULT_PERM_EXEC', undefined, 'passed on as the device gave it'),
    yes('IOMMU_PGFAULT_PERM_PRIV', undefined, 'passed on as the device gave it'),
    yes('IOMMUFD_PAGE_RESP_SUCCESS', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMUFD_PAGE_RESP_INVALID', undefined, NO_TEST),
  ],
};

const VIOMMU_VALUES: SupportSection = {
  title: 'Flags and data types: vIOMMU, events, queues',
  rows: [
    yes('IOMMU_VIOMMU_TYPE_DEFAULT', 'iommufd_viommu.viommu_negative_tests', 'refused'),
    yes('IOMMU_VIOMMU_TYPE_SELFTEST', 'iommufd_viommu.viommu_alloc_with_data'),
    declared('IOMMU_VIOMMU_TYPE_ARM_SMMUV3', SMMU),
    declared('IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV', CMDQV),
    yes('IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST', 'iommufd_viommu.vdevice_cache'),
    yes('IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID', 'iommufd_viommu.vdevice_cache', 'refused'),
    declared('IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3', SMMU),
    yes('IOMMU_VEVENTQ_FLAG_LOST_EVENTS', 'iommufd_viommu.vdevice_alloc'),
    yes('IOMMU_VEVENTQ_TYPE_DEFAULT', undefined, 'refused'),
    yes('IOMMU_VEVENTQ_TYPE_SELFTEST', 'iommufd_viommu.vdevice_alloc'),
    declared('IOMMU_VEVENTQ_TYPE_ARM_SMMUV3', SMMU),
    declared('IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV', CMDQV),
    yes('IOMMU_HW_QUEUE_TYPE_DEFAULT', 'iommufd_viommu.hw_queue', 'refused'),
    yes('IOMMU_HW_QUEUE_TYPE_SELFTEST', 'iommufd_viommu.hw_queue'),
    declared('IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV', CMDQV),
  ],
};

const MOCK_OPERATIONS: SupportSection = {
  title: 'Operations of the mock driver',
  rows: [
    yes('IOMMU_TEST_OP_ADD_RESERVED', 'iommufd_ioas.area_auto_iova'),
    yes('IOMMU_TEST_OP_MOCK_DOMAIN', 'iommufd_ioas.hwpt_attach'),
    yes('IOMMU_TEST_OP_MD_CHECK_MAP', 'iommufd_mock_domain.basic'),
    yes('IOMMU_TEST_OP_MD_CHECK_REFS', 'iommufd_mock_domain.all_aligns'),
    yes('IOMMU_TEST_OP_CREATE_ACCESS', 'iommufd_ioas.access_pin'),
    yes('IOMMU_TEST_OP_DESTROY_ACCESS_PAGES', 'iommufd_ioas.access_pin_unmap'),
    yes('IOMMU_TEST_OP_ACCESS_PAGES', 'iommufd_ioas.access_pin'),
    yes('IOMMU_TEST_OP_ACCESS_RW', 'iommufd_ioas.access_rw'),
    yes('IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT', 'basic_fail_nth.map_domain'),
    yes('IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE', 'iommufd_mock_domain.replace'),
    yes('IOMMU_TEST_OP_ACCESS_REPLACE_IOAS', 'iommufd_mock_domain.user_copy'),
    yes('IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS', 'iommufd_dirty_tracking.enforce_dirty'),
    yes('IOMMU_TEST_OP_DIRTY', 'iommufd_dirty_tracking.get_dirty_bitmap'),
    yes('IOMMU_TEST_OP_MD_CHECK_IOTLB', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_TEST_OP_TRIGGER_IOPF', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_TEST_OP_DEV_CHECK_CACHE', 'iommufd_viommu.vdevice_cache'),
    yes('IOMMU_TEST_OP_TRIGGER_VEVENT', 'iommufd_viommu.vdevice_alloc'),
    yes('IOMMU_TEST_OP_PASID_ATTACH', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_TEST_OP_PASID_REPLACE', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_TEST_OP_PASID_DETACH', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_TEST_OP_PASID_CHECK_HWPT', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_TEST_OP_DMABUF_GET', 'iommufd_ioas.dmabuf_simple'),
    yes('IOMMU_TEST_OP_DMABUF_REVOKE', 'iommufd_ioas.dmabuf_revoke'),
  ],
};

const MOCK_VALUES: SupportSection = {
  title: 'Flags and values of the mock driver',
  rows: [
    yes('MOCK_IOMMUPT_DEFAULT', 'iommufd_dirty_tracking.get_dirty_bitmap'),
    yes('MOCK_IOMMUPT_HUGE', 'iommufd_dirty_tracking.get_dirty_bitmap'),
    yes('MOCK_APERTURE_START', 'iommufd_ioas.iova_ranges'),
    yes('MOCK_APERTURE_LAST', 'iommufd_ioas.iova_ranges'),
    yes('MOCK_PAGE_SIZE', 'iommufd_ioas.iova_ranges'),
    yes('MOCK_HUGE_PAGE_SIZE', 'iommufd_dirty_tracking.get_dirty_bitmap'),
    yes('MOCK_FLAGS_ACCESS_WRITE', undefined, NO_TEST),
    yes('MOCK_FLAGS_ACCESS_SYZ', undefined, 'what fuzzers use'),
    yes('MOCK_ACCESS_RW_WRITE', 'iommufd_ioas.access_rw'),
    yes('MOCK_ACCESS_RW_SLOW_PATH', 'iommufd_ioas.access_rw'),
    yes('MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES', 'iommufd_ioas.access_pin'),
    yes('MOCK_FLAGS_DEVICE_NO_DIRTY', 'iommufd_dirty_tracking.enforce_dirty'),
    yes('MOCK_FLAGS_DEVICE_PASID', 'iommufd_dirty_tracking.pasid_set_dirty_tracking'),
    yes('MOCK_NESTED_DOMAIN_IOTLB_ID_MAX', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('MOCK_NESTED_DOMAIN_IOTLB_NUM', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('MOCK_DEV_CACHE_ID_MAX', 'iommufd_viommu.vdevice_cache'),
    yes('MOCK_DEV_CACHE_NUM', 'iommufd_viommu.vdevice_cache'),
    yes('MOCK_PASID_WIDTH', 'iommufd_ioas.get_hw_info'),
    yes('IOMMU_TEST_PASID_RESERVED', 'iommufd_device_pasid.pasid_attach'),
    yes('IOMMU_HW_INFO_SELFTEST_REGVAL', 'iommufd_ioas.get_hw_info'),
    yes('IOMMU_TEST_IOTLB_DEFAULT', 'iommufd_ioas.alloc_hwpt_nested'),
    yes('IOMMU_TEST_DEV_CACHE_DEFAULT', 'iommufd_viommu.vdevice_cache'),
    yes('IOMMU_TEST_HW_QUEUE_MAX', 'iommufd_viommu.hw_queue'),
  ],
};

/** The ioctls of /dev/vfio, groups and devices. */
export const VFIO_SUPPORT = VFIO;

/** The whole ABI of /dev/iommu, and VFIO's ioctls, in the order of the page. */
export const SUPPORT: readonly SupportSection[] = [
  IOCTLS,
  COMPAT,
  VFIO,
  IOAS_VALUES,
  HWPT_VALUES,
  INFO_VALUES,
  FAULT_VALUES,
  VIOMMU_VALUES,
  MOCK_OPERATIONS,
  MOCK_VALUES,
];
