/**
 * The ABI of the kernel's mock IOMMU driver: every struct, operation, flag and magic value of
 * drivers/iommu/iommufd/iommufd_test.h in Linux 7.3, under the C names. Bytes only, no behaviour. Compared with the C
 * compiler by test/uapi.
 *
 * The anonymous union of iommu_test_cmd is called `u`; which member counts depends on `op` (TEST_OPS).
 */
import { _IO } from '../base/ioctl-number.ts';
import { struct, u32, u64, union, type Static } from '../base/struct.ts';
import { IOMMUFD_CMD_BASE, IOMMUFD_TYPE } from './iommufd.ts';
import { fd, flags, hex, iova, oneOf, pointer } from './meaning.ts';

export const IOMMU_TEST_OP_ADD_RESERVED = 1;
export const IOMMU_TEST_OP_MOCK_DOMAIN = 2;
export const IOMMU_TEST_OP_MD_CHECK_MAP = 3;
export const IOMMU_TEST_OP_MD_CHECK_REFS = 4;
export const IOMMU_TEST_OP_CREATE_ACCESS = 5;
export const IOMMU_TEST_OP_DESTROY_ACCESS_PAGES = 6;
export const IOMMU_TEST_OP_ACCESS_PAGES = 7;
export const IOMMU_TEST_OP_ACCESS_RW = 8;
export const IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT = 9;
export const IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE = 10;
export const IOMMU_TEST_OP_ACCESS_REPLACE_IOAS = 11;
export const IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS = 12;
export const IOMMU_TEST_OP_DIRTY = 13;
export const IOMMU_TEST_OP_MD_CHECK_IOTLB = 14;
export const IOMMU_TEST_OP_TRIGGER_IOPF = 15;
export const IOMMU_TEST_OP_DEV_CHECK_CACHE = 16;
export const IOMMU_TEST_OP_TRIGGER_VEVENT = 17;
export const IOMMU_TEST_OP_PASID_ATTACH = 18;
export const IOMMU_TEST_OP_PASID_REPLACE = 19;
export const IOMMU_TEST_OP_PASID_DETACH = 20;
export const IOMMU_TEST_OP_PASID_CHECK_HWPT = 21;
export const IOMMU_TEST_OP_DMABUF_GET = 22;
export const IOMMU_TEST_OP_DMABUF_REVOKE = 23;

export const MOCK_IOMMUPT_DEFAULT = 0;
export const MOCK_IOMMUPT_HUGE = 1;

export const MOCK_APERTURE_START = 2 ** 24;
export const MOCK_APERTURE_LAST = 2 ** 31 - 1;
export const MOCK_PAGE_SIZE = 2048;
export const MOCK_HUGE_PAGE_SIZE = 512 * MOCK_PAGE_SIZE;

export const MOCK_FLAGS_ACCESS_WRITE = 1 << 0;
export const MOCK_FLAGS_ACCESS_SYZ = 1 << 16;

export const MOCK_ACCESS_RW_WRITE = 1 << 0;
export const MOCK_ACCESS_RW_SLOW_PATH = 1 << 2;

export const MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES = 1 << 0;

export const MOCK_FLAGS_DEVICE_NO_DIRTY = 1 << 0;
export const MOCK_FLAGS_DEVICE_PASID = 1 << 2;

export const MOCK_NESTED_DOMAIN_IOTLB_ID_MAX = 3;
export const MOCK_NESTED_DOMAIN_IOTLB_NUM = 4;

export const MOCK_DEV_CACHE_ID_MAX = 3;
export const MOCK_DEV_CACHE_NUM = 4;

export const IOMMU_TEST_PASID_RESERVED = 1024;

const accessFlags = flags(u32, 'MOCK_FLAGS_ACCESS_', {
  MOCK_FLAGS_ACCESS_WRITE,
  MOCK_FLAGS_ACCESS_SYZ,
});
const pasidAndTable = { pasid: u32, pt_id: u32 };

export const iommu_test_cmd = struct('iommu_test_cmd', {
  size: u32,
  op: oneOf(u32, 'IOMMU_TEST_OP_', {
    IOMMU_TEST_OP_ADD_RESERVED,
    IOMMU_TEST_OP_MOCK_DOMAIN,
    IOMMU_TEST_OP_MD_CHECK_MAP,
    IOMMU_TEST_OP_MD_CHECK_REFS,
    IOMMU_TEST_OP_CREATE_ACCESS,
    IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
    IOMMU_TEST_OP_ACCESS_PAGES,
    IOMMU_TEST_OP_ACCESS_RW,
    IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
    IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
    IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
    IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
    IOMMU_TEST_OP_DIRTY,
    IOMMU_TEST_OP_MD_CHECK_IOTLB,
    IOMMU_TEST_OP_TRIGGER_IOPF,
    IOMMU_TEST_OP_DEV_CHECK_CACHE,
    IOMMU_TEST_OP_TRIGGER_VEVENT,
    IOMMU_TEST_OP_PASID_ATTACH,
    IOMMU_TEST_OP_PASID_REPLACE,
    IOMMU_TEST_OP_PASID_DETACH,
    IOMMU_TEST_OP_PASID_CHECK_HWPT,
    IOMMU_TEST_OP_DMABUF_GET,
    IOMMU_TEST_OP_DMABUF_REVOKE,
  }),
  id: u32,
  __reserved: u32,
  u: union({
    add_reserved: struct('add_reserved', { start: iova, length: iova }),
    mock_domain: struct('mock_domain', { out_stdev_id: u32, out_hwpt_id: u32, out_idev_id: u32 }),
    mock_domain_flags: struct('mock_domain_flags', {
      out_stdev_id: u32,
      out_hwpt_id: u32,
      out_idev_id: u32,
      dev_flags: flags(u32, 'MOCK_FLAGS_DEVICE_', {
        MOCK_FLAGS_DEVICE_NO_DIRTY,
        MOCK_FLAGS_DEVICE_PASID,
      }),
    }),
    mock_domain_replace: struct('mock_domain_replace', { pt_id: u32 }),
    check_map: struct('check_map', { iova, length: iova, uptr: pointer }),
    check_refs: struct('check_refs', { length: iova, uptr: pointer, refs: u32 }),
    create_access: struct('create_access', {
      out_access_fd: u32,
      flags: flags(u32, 'MOCK_FLAGS_ACCESS_CREATE_', { MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES }),
    }),
    destroy_access_pages: struct('destroy_access_pages', { access_pages_id: u32 }),
    access_pages: struct('access_pages', {
      flags: accessFlags,
      out_access_pages_id: u32,
      iova,
      length: iova,
      uptr: pointer,
    }),
    access_rw: struct('access_rw', {
      iova,
      length: iova,
      uptr: pointer,
      flags: flags(u32, 'MOCK_ACCESS_RW_', { MOCK_ACCESS_RW_WRITE, MOCK_ACCESS_RW_SLOW_PATH }),
    }),
    memory_limit: struct('memory_limit', { limit: u32 }),
    access_replace_ioas: struct('access_replace_ioas', { ioas_id: u32 }),
    dirty: struct('dirty', {
      flags: hex(u32),
      iova,
      length: iova,
      page_size: iova,
      uptr: pointer,
      out_nr_dirty: u64,
    }),
    check_iotlb: struct('check_iotlb', { id: u32, iotlb: hex(u32) }),
    trigger_iopf: struct('trigger_iopf', {
      dev_id: u32,
      pasid: u32,
      grpid: u32,
      perm: hex(u32),
      addr: hex(u64),
    }),
    check_dev_cache: struct('check_dev_cache', { id: u32, cache: hex(u32) }),
    trigger_vevent: struct('trigger_vevent', { dev_id: u32 }),
    pasid_attach: struct('pasid_attach', pasidAndTable),
    pasid_replace: struct('pasid_replace', pasidAndTable),
    pasid_detach: struct('pasid_detach', { pasid: u32 }),
    pasid_check: struct('pasid_check', { pasid: u32, hwpt_id: u32 }),
    dmabuf_get: struct('dmabuf_get', { length: hex(u32), open_flags: hex(u32) }),
    dmabuf_revoke: struct('dmabuf_revoke', { dmabuf_fd: fd, revoked: u32 }),
  }),
  last: u32,
});
export type iommu_test_cmd = Static<typeof iommu_test_cmd>;
export const IOMMU_TEST_CMD = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_BASE + 32);

export type TestMember = keyof iommu_test_cmd['u']['members'];

/** Which member of the union each operation uses. */
export const TEST_OPS = new Map<number, TestMember>([
  [IOMMU_TEST_OP_ADD_RESERVED, 'add_reserved'],
  [IOMMU_TEST_OP_MOCK_DOMAIN, 'mock_domain'],
  [IOMMU_TEST_OP_MD_CHECK_MAP, 'check_map'],
  [IOMMU_TEST_OP_MD_CHECK_REFS, 'check_refs'],
  [IOMMU_TEST_OP_CREATE_ACCESS, 'create_access'],
  [IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, 'destroy_access_pages'],
  [IOMMU_TEST_OP_ACCESS_PAGES, 'access_pages'],
  [IOMMU_TEST_OP_ACCESS_RW, 'access_rw'],
  [IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, 'memory_limit'],
  [IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, 'mock_domain_replace'],
  [IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, 'access_replace_ioas'],
  [IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, 'mock_domain_flags'],
  [IOMMU_TEST_OP_DIRTY, 'dirty'],
  [IOMMU_TEST_OP_MD_CHECK_IOTLB, 'check_iotlb'],
  [IOMMU_TEST_OP_TRIGGER_IOPF, 'trigger_iopf'],
  [IOMMU_TEST_OP_DEV_CHECK_CACHE, 'check_dev_cache'],
  [IOMMU_TEST_OP_TRIGGER_VEVENT, 'trigger_vevent'],
  [IOMMU_TEST_OP_PASID_ATTACH, 'pasid_attach'],
  [IOMMU_TEST_OP_PASID_REPLACE, 'pasid_replace'],
  [IOMMU_TEST_OP_PASID_DETACH, 'pasid_detach'],
  [IOMMU_TEST_OP_PASID_CHECK_HWPT, 'pasid_check'],
  [IOMMU_TEST_OP_DMABUF_GET, 'dmabuf_get'],
  [IOMMU_TEST_OP_DMABUF_REVOKE, 'dmabuf_revoke'],
]);

export const MOCK_PASID_WIDTH = 20;

export const IOMMU_HW_INFO_TYPE_SELFTEST = 0xfeed_beef;
export const IOMMU_HW_INFO_SELFTEST_REGVAL = 0xdead_beef;

export const iommu_test_hw_info = struct('iommu_test_hw_info', {
  flags: hex(u32),
  test_reg: hex(u32),
});
export type iommu_test_hw_info = Static<typeof iommu_test_hw_info>;

export const IOMMU_HWPT_DATA_SELFTEST = 0xdead;
export const IOMMU_TEST_IOTLB_DEFAULT = 0xbad_beef;
export const IOMMU_TEST_DEV_CACHE_DEFAULT = 0xba_ddad;

export const iommu_hwpt_selftest = struct('iommu_hwpt_selftest', {
  iotlb: hex(u32),
  pagetable_type: oneOf(u32, 'MOCK_IOMMUPT_', { MOCK_IOMMUPT_DEFAULT, MOCK_IOMMUPT_HUGE }),
});
export type iommu_hwpt_selftest = Static<typeof iommu_hwpt_selftest>;

export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST = 0xdead_beef;
export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID = 0xdad_beef;

export const IOMMU_TEST_INVALIDATE_FLAG_ALL = 1 << 0;
const invalidateFlags = flags(u32, 'IOMMU_TEST_INVALIDATE_FLAG_', {
  IOMMU_TEST_INVALIDATE_FLAG_ALL,
});

export const iommu_hwpt_invalidate_selftest = struct('iommu_hwpt_invalidate_selftest', {
  flags: invalidateFlags,
  iotlb_id: u32,
});
export type iommu_hwpt_invalidate_selftest = Static<typeof iommu_hwpt_invalidate_selftest>;

export const IOMMU_VIOMMU_TYPE_SELFTEST = 0xdead_beef;

export const iommu_viommu_selftest = struct('iommu_viommu_selftest', {
  in_data: hex(u32),
  out_data: hex(u32),
  out_mmap_offset: hex(u64),
  out_mmap_length: hex(u64),
});
export type iommu_viommu_selftest = Static<typeof iommu_viommu_selftest>;

export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST = 0xdead_beef;
export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID = 0xdad_beef;

export const iommu_viommu_invalidate_selftest = struct('iommu_viommu_invalidate_selftest', {
  flags: invalidateFlags,
  vdev_id: u32,
  cache_id: u32,
});
export type iommu_viommu_invalidate_selftest = Static<typeof iommu_viommu_invalidate_selftest>;

export const IOMMU_VEVENTQ_TYPE_SELFTEST = 0xbeef_beef;

export const iommu_viommu_event_selftest = struct('iommu_viommu_event_selftest', {
  virt_id: hex(u32),
});
export type iommu_viommu_event_selftest = Static<typeof iommu_viommu_event_selftest>;

export const IOMMU_HW_QUEUE_TYPE_SELFTEST = 0xdead_beef;
export const IOMMU_TEST_HW_QUEUE_MAX = 2;
