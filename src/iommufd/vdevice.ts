/**
 * VDEVICE: a device as a guest's vIOMMU knows it, under the id that the guest gave it. One device has at most one.
 *
 * It holds its vIOMMU, but nothing holds it: it dies with its device, and its id then stays taken.
 * After the vDEVICE part of drivers/iommu/iommufd/viommu.c.
 */
import { Errno } from '../base/errno.ts';
import { hex } from '../base/position.ts';
import type { iommu_vdevice_alloc } from '../uapi/iommufd.ts';
import { IommufdDevice } from './device.ts';
import { IommufdObject } from './object.ts';
import type { Ucmd } from './ucmd.ts';
import { Viommu } from './viommu.ts';

export class Vdevice extends IommufdObject {
  override readonly type = 'VDEVICE';
  readonly viommu: Viommu;
  readonly device: IommufdDevice;
  readonly virtId: bigint;

  constructor(viommu: Viommu, device: IommufdDevice, virtId: bigint) {
    super();
    this.viommu = viommu;
    this.device = device;
    this.virtId = virtId;
    viommu.users++;
    device.vdevice = this;
  }

  override destroy(): void {
    if (this.viommu.vdevices.get(this.virtId) === this) this.viommu.vdevices.delete(this.virtId);
    this.viommu.users--;
    this.device.vdevice = undefined;
  }
}

export function vdeviceAlloc({ context, cmd, respond }: Ucmd<iommu_vdevice_alloc>): undefined {
  const viommu = context.objects.get(Viommu, cmd.viommu_id);
  const device = context.objects.get(IommufdDevice, cmd.dev_id);
  viommu.refuseForeign(device);
  if (device.vdevice !== undefined) {
    throw new Errno('EEXIST', `${device.iommu.name} has ${String(device.vdevice)} already`);
  }
  context.objects.create(new Vdevice(viommu, device, cmd.virt_id), (vdevice) => {
    const other = viommu.vdevices.get(cmd.virt_id);
    if (other !== undefined) {
      throw new Errno('EEXIST', `virtual id ${hex(cmd.virt_id)} belongs to ${String(other)}`);
    }
    context.environment.faults.alloc('virtual device slot');
    viommu.vdevices.set(cmd.virt_id, vdevice);
    cmd.out_vdevice_id = vdevice.id;
    respond();
  });
}
