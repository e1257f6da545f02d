/**
 * IOMMU_TEST_CMD: the operations by which the kernel's selftests make mock devices and look behind the curtain.
 *
 * After iommufd_test and the functions that it calls, drivers/iommu/iommufd/selftest.c; one row per operation.
 */
import { Errno } from '../../base/errno.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import type { Ucmd } from '../ucmd.ts';
import {
  accessPages,
  accessReplaceIoas,
  accessRw,
  createAccess,
  destroyAccessPages,
} from './test-access.ts';
import {
  devCheckCache,
  mockDomain,
  mockDomainReplace,
  pasidAttach,
  pasidCheckHwpt,
  pasidDetach,
  pasidReplace,
  triggerIopf,
  triggerVevent,
} from './test-device.ts';
import { dmabufGet, dmabufRevoke } from './test-dmabuf.ts';
import {
  addReserved,
  checkIotlb,
  checkMap,
  checkRefs,
  dirty,
  setTempMemoryLimit,
} from './test-memory.ts';

export type TestCmd = Ucmd<uapi.iommu_test_cmd>;

/** What an operation does; a number is the answer of the ioctl where it is not 0. */
type Operation = (ucmd: TestCmd) => number | undefined;

const OPERATIONS = new Map<number, Operation>([
  [uapi.IOMMU_TEST_OP_ADD_RESERVED, addReserved],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN, mockDomain],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, mockDomain],
  [uapi.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, mockDomainReplace],
  [uapi.IOMMU_TEST_OP_MD_CHECK_MAP, checkMap],
  [uapi.IOMMU_TEST_OP_MD_CHECK_REFS, checkRefs],
  [uapi.IOMMU_TEST_OP_MD_CHECK_IOTLB, checkIotlb],
  [uapi.IOMMU_TEST_OP_DEV_CHECK_CACHE, devCheckCache],
  [uapi.IOMMU_TEST_OP_CREATE_ACCESS, createAccess],
  [uapi.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, accessReplaceIoas],
  [uapi.IOMMU_TEST_OP_ACCESS_PAGES, accessPages],
  [uapi.IOMMU_TEST_OP_ACCESS_RW, accessRw],
  [uapi.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, destroyAccessPages],
  [uapi.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, setTempMemoryLimit],
  [uapi.IOMMU_TEST_OP_DIRTY, dirty],
  [uapi.IOMMU_TEST_OP_TRIGGER_IOPF, triggerIopf],
  [uapi.IOMMU_TEST_OP_TRIGGER_VEVENT, triggerVevent],
  [uapi.IOMMU_TEST_OP_PASID_ATTACH, pasidAttach],
  [uapi.IOMMU_TEST_OP_PASID_REPLACE, pasidReplace],
  [uapi.IOMMU_TEST_OP_PASID_DETACH, pasidDetach],
  [uapi.IOMMU_TEST_OP_PASID_CHECK_HWPT, pasidCheckHwpt],
  [uapi.IOMMU_TEST_OP_DMABUF_GET, dmabufGet],
  [uapi.IOMMU_TEST_OP_DMABUF_REVOKE, dmabufRevoke],
]);

/** @returns the answer of the ioctl: 0, or the file descriptor of DMABUF_GET */
export function testCmd(ucmd: TestCmd): number {
  const operation = OPERATIONS.get(ucmd.cmd.op);
  if (operation === undefined) {
    throw new Errno('EOPNOTSUPP', `the mock driver has no operation ${ucmd.cmd.op}`);
  }
  return operation(ucmd) ?? 0;
}
