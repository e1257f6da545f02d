/**
 * The mock driver's nested domain: four words that stand for cached translations of the guest.
 *
 * After the nested part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import { Domain, type DomainKind, type IommuDevice, type IommuOps } from '../../iommu/domain.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import { clientData, copyStructIn } from '../client-data.ts';
import type { InvalidateArray, Viommu } from '../viommu.ts';

export type MockAttachHooks = {
  readonly attach: (domain: Domain, device: IommuDevice) => void;
  readonly attachPasid: (domain: Domain, device: IommuDevice, pasid: number) => void;
};

export class MockNestedDomain extends Domain {
  override kind: DomainKind = 'nested';
  override readonly name = 'a nested mock domain';
  /** the vIOMMU that it was made from, if any */
  readonly viommu: Viommu | undefined;
  readonly iotlb: number[];
  readonly #hooks: MockAttachHooks;

  constructor(
    owner: IommuOps,
    hooks: MockAttachHooks,
    options: { readonly viommu: Viommu | undefined; readonly iotlb: number },
  ) {
    super(owner);
    this.#hooks = hooks;
    this.viommu = options.viommu;
    this.iotlb = Array.from({ length: uapi.MOCK_NESTED_DOMAIN_IOTLB_NUM }, () => options.iotlb);
  }

  override attachDevice(device: IommuDevice): void {
    this.#hooks.attach(this, device);
  }

  override setDevicePasid(device: IommuDevice, pasid: number): void {
    this.#hooks.attachPasid(this, device, pasid);
  }

  /** Forgets cached words by index or all; stops at the first bad entry. After mock_domain_cache_invalidate_user. */
  invalidate(array: InvalidateArray): void {
    if (array.type !== uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST) {
      throw new Errno(
        'EINVAL',
        `invalidation data of type ${array.type} is not for the mock driver`,
      );
    }
    for (let i = 0; i < array.entryNumber; i++) {
      const data = clientData(array.task, {
        type: array.type,
        address: BigInt.asUintN(64, array.address + BigInt(array.entryLength * i)),
        length: array.entryLength,
      });
      const entry = copyStructIn(uapi.iommu_hwpt_invalidate_selftest, data, {
        type: uapi.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
        last: 'iotlb_id',
      });
      this.#invalidateEntry(entry);
      array.done++;
    }
  }

  #invalidateEntry({ flags, iotlb_id: id }: uapi.iommu_hwpt_invalidate_selftest): void {
    if ((flags & ~uapi.IOMMU_TEST_INVALIDATE_FLAG_ALL) !== 0) {
      throw new Errno('EOPNOTSUPP', `unknown invalidation flags ${hex(flags >>> 0)}`);
    }
    if (id > uapi.MOCK_NESTED_DOMAIN_IOTLB_ID_MAX) {
      throw new Errno('EINVAL', `there is no cached word ${id}`);
    }
    if (flags !== 0) this.iotlb.fill(0);
    else this.iotlb[id] = 0;
  }
}
