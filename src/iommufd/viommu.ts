/**
 * VIOMMU: a slice of a physical IOMMU that a client shows to its guest, on top of a nesting parent.
 *
 * Users: the table, each nested HWPT, vDEVICE, vEVENTQ and HW queue made from it, each mapping of its window.
 * After drivers/iommu/iommufd/viommu.c; what differs by IOMMU is in a driver (iommufd_viommu_ops).
 */
import { Errno } from '../base/errno.ts';
import { hex } from '../base/position.ts';
import type { Domain, UserData } from '../iommu/domain.ts';
import type { Task } from '../base/task.ts';
import { IOMMU_VIOMMU_TYPE_DEFAULT, iommu_viommu_alloc } from '../uapi/iommufd.ts';
import { clientData } from './client-data.ts';
import type { Context } from './context.ts';
import { IommufdDevice } from './device.ts';
import { HwptPaging } from './hw-pagetable.ts';
import type { HwQueue } from './hw-queue.ts';

import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import type { Vdevice } from './vdevice.ts';
import type { Veventq } from './veventq.ts';
import { unknownFlags } from '../uapi/refusals.ts';

/** Entries of an invalidation request. `done` counts those that were handled, also when a later one is refused. */
export type InvalidateArray = {
  readonly task: Task;
  readonly type: number;
  readonly address: bigint;
  readonly entryLength: number;
  readonly entryNumber: number;
  done: number;
};

/** What a driver does behind a vIOMMU; absent members are not supported. */
export type ViommuDriver = {
  destroy?(): void;
  allocNested?(flags: number, data: UserData): Domain;
  invalidate?(array: InvalidateArray): void;
  /** Whether the driver has HW queues of this type. */
  hasHwQueue?(type: number): boolean;
  /** Takes a queue at a physical address into use; sets the queue's own clean-up. */
  initHwQueue?(queue: HwQueue, index: number, phys: number): void;
};

/** Data of the client that a driver may also answer in. */
export type ViommuData = UserData & { copyOut(bytes: Uint8Array): void };

/** Starts a driver for a new vIOMMU; throws Errno. */
export type ViommuMaker = (viommu: Viommu, data: ViommuData | undefined) => ViommuDriver;

export class Viommu extends IommufdObject {
  override readonly type = 'VIOMMU';
  readonly context: Context;
  /** IOMMU_VIOMMU_TYPE_* */
  readonly kind: number;
  /** the nesting parent */
  readonly hwpt: HwptPaging;
  /** the IOMMU that devices must be behind */
  readonly instance: object;
  /** by the id that the guest gave */
  readonly vdevices = new Map<bigint, Vdevice>();
  readonly veventqs: Veventq[] = [];
  #driver: ViommuDriver | undefined;

  constructor(device: IommufdDevice, kind: number, hwpt: HwptPaging) {
    super();
    this.context = device.context;
    this.kind = kind;
    this.hwpt = hwpt;
    this.instance = device.iommu.instance;
    hwpt.users++;
  }

  get driver(): ViommuDriver {
    if (this.#driver === undefined) throw new Error(`${String(this)} has no driver yet`);
    return this.#driver;
  }

  set driver(driver: ViommuDriver) {
    this.#driver = driver;
  }

  override destroy(): void {
    this.#driver?.destroy?.();
    this.hwpt.users--;
  }

  /** EINVAL for a device behind another IOMMU. */
  refuseForeign(device: IommufdDevice): void {
    if (device.iommu.instance === this.instance) return;
    throw new Errno('EINVAL', `${device.iommu.name} is behind another IOMMU than ${String(this)}`);
  }
}

export function viommuAlloc({ context, task, cmd, respond }: Ucmd<iommu_viommu_alloc>): undefined {
  if (cmd.flags !== 0) throw unknownFlags(iommu_viommu_alloc, cmd.flags);
  if (cmd.type === IOMMU_VIOMMU_TYPE_DEFAULT)
    throw new Errno('EOPNOTSUPP', 'type 0 is not a type of vIOMMU');
  const device = context.objects.get(IommufdDevice, cmd.dev_id);
  const make = context.environment.viommuDriver?.(device.iommu, cmd.type);
  if (make === undefined) {
    throw new Errno(
      'EOPNOTSUPP',
      `the IOMMU of ${device.iommu.name} has no vIOMMU of type ${hex(cmd.type)}`,
    );
  }
  const hwpt = context.objects.get(HwptPaging, cmd.hwpt_id);
  if (!hwpt.nestParent) throw new Errno('EINVAL', `${String(hwpt)} was not made with NEST_PARENT`);
  context.objects.create(new Viommu(device, cmd.type, hwpt), (viommu) => {
    const data = clientData(task, { type: cmd.type, address: cmd.data_uptr, length: cmd.data_len });
    viommu.driver = make(viommu, cmd.data_len === 0 ? undefined : data);
    cmd.out_viommu_id = viommu.id;
    respond();
  });
}
