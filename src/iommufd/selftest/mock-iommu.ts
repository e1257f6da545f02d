/**
 * The mock IOMMU: the driver behind which Linux's own selftests put imaginary devices, each in a group of its own.
 *
 * Its page table has pages of 2 KiB, half of the processor's, to show whoever confuses the two; its default domain is the
 * blocking one. Everything it does is there to be observed by a test.
 *
 * After drivers/iommu/iommufd/selftest.c and generic_pt/fmt/iommu_mock.c (AMD v1 with a granule of 2^11, three levels).
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import {
  Domain,
  type IommuDevice,
  type DomainKind,
  type IommuCapability,
  type IommuOps,
  type PagingRequest,
  type UserData,
} from '../../iommu/domain.ts';
import type { Backing } from '../../base/task.ts';
import { probeDevice, releaseDevice, type GroupTable } from '../../iommu/group.ts';
import { ExtentTable } from '../../iommu/page-table.ts';
import { PagingDomain, type Geometry } from '../../iommu/paging-domain.ts';
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HW_INFO_TYPE_DEFAULT,
} from '../../uapi/iommufd.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import { copyStructIn } from '../client-data.ts';
import { unknownInfoType } from '../hw-info.ts';
import type { Viommu, ViommuMaker } from '../viommu.ts';
import { MockDevice } from './mock-device.ts';
import { MockNestedDomain } from './mock-nested.ts';
import { MockViommu } from './mock-viommu.ts';

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID;
const DEVICE_FLAGS = uapi.MOCK_FLAGS_DEVICE_NO_DIRTY | uapi.MOCK_FLAGS_DEVICE_PASID;

// Three levels of 9 bits over 2^11: addresses of 38 bits. Leaves in all powers of two, but none of half a table:
// pt_iommu_get_info hides the bit below the width of addresses.
const SMALLEST_LEAF_LG2 = 11;
const LARGEST_LEAF_LG2 = 36;
const LAST_ADDRESS = 2n ** 38n - 1n;
const DEFAULT_LEAVES = Array.from(
  { length: LARGEST_LEAF_LG2 - SMALLEST_LEAF_LG2 + 1 },
  (_, i) => 2 ** (LARGEST_LEAF_LG2 - i),
);
const HUGE_LEAVES = [uapi.MOCK_HUGE_PAGE_SIZE, 4096];

/** How attaching a mock device to any of the mock domains works (mock_domain_nop_attach). */
function attachMock(domain: Domain, device: IommuDevice): void {
  if (!(device instanceof MockDevice)) throw new Error(`${device.name} is not a mock device`);
  const tracks = domain instanceof PagingDomain && domain.dirtyTracking;
  if (tracks && (device.flags & uapi.MOCK_FLAGS_DEVICE_NO_DIRTY) !== 0) {
    throw new Errno('EINVAL', `${device.name} cannot track dirty pages, ${domain.name} does`);
  }
  const viommu = domain instanceof MockNestedDomain ? domain.viommu : undefined;
  const vdevice = [...(viommu?.vdevices.values() ?? [])].find(
    (candidate) => candidate.device.iommu === device,
  );
  if (viommu !== undefined && vdevice === undefined) {
    throw new Errno('ENOENT', `${device.name} has no vDEVICE in ${String(viommu)}`);
  }
  // Behind the same vIOMMU the device keeps the id that it came with, whatever its vDEVICE is by now.
  if (viommu === device.viommu) return;
  device.viommu = viommu;
  device.vdeviceId = vdevice?.virtId ?? 0n;
}

/** Attaching a PASID; PASID 1024 fails every second time, so that tests see the way back (mock_domain_set_dev_pasid_nop). */
function attachMockPasid(domain: Domain, device: IommuDevice, pasid: number): void {
  if (!(device instanceof MockDevice)) throw new Error(`${device.name} is not a mock device`);
  if (pasid !== uapi.IOMMU_TEST_PASID_RESERVED) return;
  if (domain.kind === 'blocked') {
    device.failsReservedPasid = false;
  } else if (device.failsReservedPasid) {
    device.failsReservedPasid = false;
    throw new Errno(
      'ENOMEM',
      `${device.name} fails every second attach of PASID ${pasid}, for tests`,
    );
  } else {
    device.failsReservedPasid = true;
  }
}

class MockBlockingDomain extends Domain {
  override kind: DomainKind = 'blocked';
  override readonly name = 'the mock blocking domain';

  override attachDevice(device: IommuDevice): void {
    attachMock(this, device);
  }

  override setDevicePasid(device: IommuDevice, pasid: number): void {
    attachMockPasid(this, device, pasid);
  }
}

export class MockPagingDomain extends PagingDomain {
  override readonly name: string;
  override readonly table: ExtentTable;
  override readonly geometry: Geometry;
  override readonly pageSizes: bigint;
  /** writes are being recorded */
  recordsWrites = false;

  constructor(
    owner: IommuOps,
    name: string,
    options: { readonly huge: boolean; readonly dirty: boolean },
  ) {
    super(owner, options.dirty);
    this.name = name;
    const sizes = options.huge ? HUGE_LEAVES : DEFAULT_LEAVES;
    this.table = new ExtentTable(sizes);
    this.pageSizes = sizes.reduce((bits, size) => bits | BigInt(size), 0n);
    this.geometry = options.huge
      ? { first: 0n, last: LAST_ADDRESS }
      : { first: BigInt(uapi.MOCK_APERTURE_START), last: BigInt(uapi.MOCK_APERTURE_LAST) };
  }

  override attachDevice(device: IommuDevice): void {
    attachMock(this, device);
  }

  override setDevicePasid(device: IommuDevice, pasid: number): void {
    attachMockPasid(this, device, pasid);
  }

  override setDirtyTracking(enable: boolean): void {
    this.recordsWrites = enable;
  }
}

/** Makes zeroed memory that can be shown to clients. @param size in bytes, whole pages */
export type AllocMemory = (name: string, size: number) => Backing & { free?(): void };

/** One mock IOMMU, with the devices behind it. */
export class MockIommu {
  readonly ops: IommuOps;
  /** memory of the driver that clients see */
  readonly alloc: AllocMemory;
  readonly #groups: GroupTable;
  readonly #indexes = new Set<number>();
  #domains = 0;

  constructor(groups: GroupTable, alloc: AllocMemory) {
    this.#groups = groups;
    this.alloc = alloc;
    const blocking = new MockBlockingDomain();
    this.ops = {
      name: 'iommufd_mock',
      defaultDomain: blocking,
      blockedDomain: blocking,
      flaggedAllocation: true,
      capable: (device, capability) => capable(device, capability),
      allocPaging: (device, request) => this.#allocPaging(device, request),
      allocNested: (_device, parent, flags, data) => this.#allocNested(parent, flags, data),
      hwInfo: (_device, type) => hwInfo(type),
    };
  }

  /** Makes a device and brings it under the IOMMU; EINVAL for unknown flags. */
  addDevice(flags: number): MockDevice {
    if ((flags & ~DEVICE_FLAGS) !== 0)
      throw new Errno('EINVAL', `unknown mock device flags ${hex(flags >>> 0)}`);
    let index = 0;
    while (this.#indexes.has(index)) index++;
    const device = new MockDevice(this.ops, index, flags);
    probeDevice(device, () => this.#groups.alloc());
    this.#indexes.add(index);
    return device;
  }

  removeDevice(device: MockDevice): void {
    releaseDevice(device);
    this.#indexes.delete(device.index);
  }

  /** A vIOMMU of the one type that there is; undefined for others. */
  viommuMaker(device: IommuDevice, type: number): ViommuMaker | undefined {
    if (device.ops !== this.ops || type !== uapi.IOMMU_VIOMMU_TYPE_SELFTEST) return undefined;
    return (viommu, data) => new MockViommu(this, viommu, { data, alloc: this.alloc });
  }

  /** Devices that are there; for the leak check. */
  get deviceCount(): number {
    return this.#indexes.size;
  }

  /** A nested domain on its own or, with `viommu`, behind a vIOMMU. */
  allocNestedDomain(flags: number, data: UserData, viommu: Viommu | undefined): MockNestedDomain {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) {
      throw new Errno('EOPNOTSUPP', `flags ${flags} are not for nested page tables`);
    }
    if (data.type !== uapi.IOMMU_HWPT_DATA_SELFTEST) throw unknownDataType(data.type);
    const config = copyStructIn(uapi.iommu_hwpt_selftest, data, {
      type: uapi.IOMMU_HWPT_DATA_SELFTEST,
      last: 'iotlb',
    });
    const hooks = { attach: attachMock, attachPasid: attachMockPasid };
    return new MockNestedDomain(this.ops, hooks, { viommu, iotlb: config.iotlb });
  }

  #allocNested(parent: Domain, flags: number, data: UserData): Domain {
    if ((flags & ~IOMMU_HWPT_ALLOC_PASID) !== 0) {
      throw new Errno('EOPNOTSUPP', `flags ${flags} are not for nested page tables`);
    }
    if (!(parent instanceof PagingDomain))
      throw new Errno('EINVAL', `${parent.name} is not a paging domain`);
    return this.allocNestedDomain(flags, data, undefined);
  }

  #allocPaging(device: IommuDevice, { flags, userData }: PagingRequest): Domain {
    const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0;
    if ((flags & ~PAGING_FLAGS) !== 0)
      throw new Errno('EOPNOTSUPP', `unknown HWPT flags ${hex((flags & ~PAGING_FLAGS) >>> 0)}`);
    if (dirty && !capable(device, 'dirty-tracking')) {
      throw new Errno('EOPNOTSUPP', `${device.name} cannot track dirty pages`);
    }
    const name = `mock domain ${++this.#domains}`;
    return new MockPagingDomain(this.ops, name, { huge: wantsHuge(userData), dirty });
  }
}

function wantsHuge(data: UserData | undefined): boolean {
  if (data === undefined) return false;
  if (data.type !== uapi.IOMMU_HWPT_DATA_SELFTEST) throw unknownDataType(data.type);
  const { pagetable_type: format } = copyStructIn(uapi.iommu_hwpt_selftest, data, {
    type: uapi.IOMMU_HWPT_DATA_SELFTEST,
    last: 'iotlb',
  });
  if (format !== uapi.MOCK_IOMMUPT_DEFAULT && format !== uapi.MOCK_IOMMUPT_HUGE) {
    throw new Errno('EOPNOTSUPP', `page table type ${format} is not known`);
  }
  return format === uapi.MOCK_IOMMUPT_HUGE;
}

function unknownDataType(type: number): Errno {
  return new Errno('EOPNOTSUPP', `data of type ${type} is not for the mock driver`);
}

function capable(device: IommuDevice, capability: IommuCapability): boolean {
  switch (capability) {
    case 'cache-coherency':
      return true;
    case 'dirty-tracking':
      return device instanceof MockDevice && (device.flags & uapi.MOCK_FLAGS_DEVICE_NO_DIRTY) === 0;
    case 'enforce-cache-coherency':
    case 'deferred-flush':
    case 'ats':
      return false;
  }
}

function hwInfo(type: number): { type: number; bytes: Uint8Array } {
  if (type !== IOMMU_HW_INFO_TYPE_DEFAULT && type !== uapi.IOMMU_HW_INFO_TYPE_SELFTEST) {
    throw unknownInfoType(type);
  }
  const struct = uapi.iommu_test_hw_info;
  const bytes = new Uint8Array(struct.size);
  struct.encode({ flags: 0, test_reg: uapi.IOMMU_HW_INFO_SELFTEST_REGVAL }, bytes);
  return { type: uapi.IOMMU_HW_INFO_TYPE_SELFTEST, bytes };
}
