/**
 * Test operations on mock devices: making, attaching, PASIDs, faults and events.
 *
 * After the device part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { hex } from '../../base/position.ts';
import {
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
} from '../../uapi/iommufd.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import type { Context } from '../context.ts';
import { IommufdDevice, NO_PASID } from '../device.ts';
import { HwPagetable } from '../hw-pagetable.ts';
import { IommufdObject } from '../object.ts';
import { reportEvent } from '../veventq.ts';
import { MockDevice } from './mock-device.ts';
import type { MockIommu } from './mock-iommu.ts';
import type { TestCmd } from './test-cmd.ts';

/** A mock device of a test: bound and attached when made, gone when destroyed. */
export class SelftestDevice extends IommufdObject {
  override readonly type = 'SELFTEST';
  readonly #iommu: MockIommu;
  #mock: MockDevice | undefined;
  #device: IommufdDevice | undefined;

  constructor(context: Context) {
    super();
    this.#iommu = mockOf(context);
  }

  get device(): IommufdDevice {
    if (this.#device === undefined) throw new Error(`${String(this)} is not bound`);
    return this.#device;
  }

  /** @returns the id of the HWPT that the device is attached to */
  build(context: Context, flags: number, ptId: number): number {
    context.environment.faults.alloc('mock device');
    this.#mock = this.#iommu.addDevice(flags);
    this.#device = IommufdDevice.bindDevice(context, this.#mock, { mock: true });
    return this.#device.attach(NO_PASID, ptId);
  }

  /** Linux detaches the RID alone here and warns if a PASID is left; the device then outlives its context. */
  override destroy(): void {
    this.#device?.detachAll();
    this.#device?.unbind();
    if (this.#mock !== undefined) this.#iommu.removeDevice(this.#mock);
  }
}

export function mockOf(context: Context): MockIommu {
  const { mock } = context.environment;
  if (mock === undefined) throw new Errno('EOPNOTSUPP', 'this machine has no mock driver');
  return mock;
}

export function mockDomain({ context, cmd, respond }: TestCmd): undefined {
  const flags =
    cmd.op === uapi.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS ? cmd.u.read('mock_domain_flags').dev_flags : 0;
  context.objects.create(new SelftestDevice(context), (test) => {
    const hwptId = test.build(context, flags, cmd.id);
    cmd.u.write('mock_domain', {
      out_stdev_id: test.id,
      out_hwpt_id: hwptId,
      out_idev_id: test.device.id,
    });
    respond();
  });
}

export function mockDomainReplace({ context, cmd, respond }: TestCmd): undefined {
  const { device } = context.objects.get(SelftestDevice, cmd.id);
  const { pt_id: ptId } = cmd.u.read('mock_domain_replace');
  cmd.u.write('mock_domain_replace', { pt_id: device.replace(NO_PASID, ptId) });
  respond();
}

export function pasidAttach({ context, cmd, respond }: TestCmd): undefined {
  const { device } = context.objects.get(SelftestDevice, cmd.id);
  const { pasid, pt_id: ptId } = cmd.u.read('pasid_attach');
  cmd.u.write('pasid_attach', { pasid, pt_id: device.attach(pasid, ptId) });
  try {
    respond();
  } catch (error) {
    device.detach(pasid);
    throw error;
  }
}

export function pasidReplace({ context, cmd, respond }: TestCmd): undefined {
  const { device } = context.objects.get(SelftestDevice, cmd.id);
  const { pasid, pt_id: ptId } = cmd.u.read('pasid_replace');
  cmd.u.write('pasid_replace', { pasid, pt_id: device.replace(pasid, ptId) });
  respond();
}

export function pasidDetach({ context, cmd }: TestCmd): undefined {
  const { device } = context.objects.get(SelftestDevice, cmd.id);
  device.detach(cmd.u.read('pasid_detach').pasid);
}

export function pasidCheckHwpt({ context, cmd }: TestCmd): undefined {
  const { device } = context.objects.get(SelftestDevice, cmd.id);
  const { pasid, hwpt_id: id } = cmd.u.read('pasid_check');
  const { iommu } = device;
  const attached = iommu.requireGroup().subgroupOf(iommu).pasidArray.get(pasid)?.handle?.domain;
  if (id === 0) {
    if (attached === undefined) return;
    throw new Errno('EINVAL', `PASID ${pasid} is attached to ${attached.name}, not detached`);
  }
  const hwpt = context.objects.any(id);
  if (!(hwpt instanceof HwPagetable)) throw new Errno('EINVAL', `${String(hwpt)} is no HWPT`);
  if (attached === hwpt.domain) return;
  throw new Errno(
    'EINVAL',
    `PASID ${pasid} is attached to ${attached?.name ?? 'nothing'}, not to ${String(hwpt)}`,
  );
}

export function devCheckCache({ context, cmd }: TestCmd): undefined {
  const mock = mockDevice(context, cmd.id);
  const { id, cache } = cmd.u.read('check_dev_cache');
  const word = mock.cache[id];
  if (word === cache) return;
  throw new Errno(
    'EINVAL',
    `cache word ${id} of ${mock.name} is ${word === undefined ? 'not there' : hex(word)}, not ${hex(cache)}`,
  );
}

export function triggerIopf({ context, cmd }: TestCmd): undefined {
  const { dev_id: id, pasid, grpid, perm, addr } = cmd.u.read('trigger_iopf');
  const iommu = mockDevice(context, id);
  const valid = pasid === NO_PASID ? 0 : IOMMU_PGFAULT_FLAGS_PASID_VALID;
  const flags = IOMMU_PGFAULT_FLAGS_LAST_PAGE | valid;
  iommu.reportFault({ flags, pasid, grpid, perm, addr }, () => {
    context.environment.faults.alloc('fault group');
  });
}

export function triggerVevent({ context, cmd }: TestCmd): undefined {
  const iommu = mockDevice(context, cmd.u.read('trigger_vevent').dev_id);
  if (iommu.viommu === undefined || iommu.vdeviceId === 0n) {
    throw new Errno('ENOENT', `${iommu.name} is not attached behind a vIOMMU`);
  }
  const struct = uapi.iommu_viommu_event_selftest;
  const bytes = new Uint8Array(struct.size);
  struct.encode({ virt_id: Number(BigInt.asUintN(32, iommu.vdeviceId)) }, bytes);
  reportEvent(iommu.viommu, uapi.IOMMU_VEVENTQ_TYPE_SELFTEST, bytes);
}

function mockDevice(context: Context, id: number): MockDevice {
  const { iommu } = context.objects.get(IommufdDevice, id);
  if (!(iommu instanceof MockDevice))
    throw new Errno('EINVAL', `${iommu.name} is not a mock device`);
  return iommu;
}
