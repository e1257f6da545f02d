/**
 * A device behind the mock IOMMU: its cache words, its place behind a vIOMMU, and the page faults that it reports.
 *
 * After the device part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { NO_PASID, attachHandleGet } from '../../iommu/attach.ts';
import { IommuDevice, type IommuOps } from '../../iommu/domain.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import { IommufdAttachHandle } from '../device.ts';
import type { PageFault } from '../fault.ts';
import type { Viommu } from '../viommu.ts';

export class MockDevice extends IommuDevice {
  /** MOCK_FLAGS_DEVICE_* */
  readonly flags: number;
  readonly index: number;
  readonly cache = Array.from(
    { length: uapi.MOCK_DEV_CACHE_NUM },
    () => uapi.IOMMU_TEST_DEV_CACHE_DEFAULT,
  );
  /** behind which the device is attached, and its id there (0 for none) */
  viommu: Viommu | undefined;
  vdeviceId = 0n;
  failsReservedPasid = false;

  constructor(ops: IommuOps, index: number, flags: number) {
    const pasids = (flags & uapi.MOCK_FLAGS_DEVICE_PASID) !== 0;
    super({
      name: `iommufd_mock${index}`,
      ops,
      // Without the flag the property still is there and says 0 bits: one PASID, number 0, not none
      // (mock_dev_create, dev_iommu_get_max_pasids).
      maxPasids: pasids ? 2 ** uapi.MOCK_PASID_WIDTH : 1,
    });
    this.flags = flags;
    this.index = index;
  }

  /**
   * The device ran into a fault: it goes to the queue of whoever attached what the fault came through, if any. Where
   * `alloc` refuses, the fault is answered as a failure at once (iommu_report_device_fault, whose answer the driver drops).
   */
  reportFault(fault: PageFault, alloc: () => void): void {
    const handle = this.#faultHandle(fault);
    if (!(handle instanceof IommufdAttachHandle)) return;
    try {
      if (handle.hwpt.fault !== undefined) alloc();
    } catch (error) {
      if (error instanceof Errno) return;
      throw error;
    }
    handle.hwpt.fault?.deliver({
      handle,
      faults: [fault],
      // The mock device does nothing with an answer.
      respond: () => undefined,
    });
  }

  /** After find_fault_handler: with a PASID table of the client, unknown PASIDs are the nested table's business. */
  #faultHandle({ pasid }: PageFault): object | undefined {
    const subgroup = this.requireGroup().subgroupOf(this);
    if (pasid === NO_PASID) return subgroup.pasidArray.get(NO_PASID)?.handle;
    const own = subgroup.pasidArray.get(pasid)?.handle;
    if (own !== undefined) return own;
    try {
      return attachHandleGet(subgroup, NO_PASID, 'nested');
    } catch (error) {
      if (error instanceof Errno) return undefined;
      throw error;
    }
  }
}
