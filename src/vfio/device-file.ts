/**
 * An open VFIO device: what a program's calls on it mean. The rules are device.ts and iommufd.ts.
 *
 * After drivers/vfio/device_cdev.c, and vfio_device_fops of drivers/vfio/vfio_main.c.
 */
import { Errno } from '../base/errno.ts';
import type {
  MmapGrant,
  MmapRequest,
  OpenFile,
  ReadBuffer,
  Task,
  WriteBuffer,
} from '../base/task.ts';
import { deviceIoctl } from './device-ioctls.ts';
import { bindNode, closeDevice, requireAccess, unbindNode } from './device.ts';
import { attachPasid, attachPt, detachPasid, detachPt, type IommufdContext } from './iommufd.ts';
import { deviceName, type DeviceOpen, type VfioDevice, type VfioGroup } from './state.ts';
import type { Vfio } from './vfio.ts';

export class DeviceFile implements OpenFile {
  readonly positioned = true;
  readonly vfio: Vfio;
  readonly open: DeviceOpen;

  constructor(vfio: Vfio, open: DeviceOpen) {
    this.vfio = vfio;
    this.open = open;
  }

  // A device node has a path; this is for what VFIO_GROUP_GET_DEVICE_FD makes.
  readonly link = 'anon_inode:[vfio-device]';

  get device(): VfioDevice {
    return this.open.device;
  }

  /** the group that gave it out; undefined for a device node */
  get group(): VfioGroup | undefined {
    return this.open.group;
  }

  get name(): string {
    const { device } = this;
    return this.group === undefined
      ? `/dev/vfio/devices/${deviceName(device)} (${device.iommu.name})`
      : `VFIO device ${device.iommu.name}`;
  }

  /** BIND_IOMMUFD: {@link bindNode}. */
  bind(context: () => IommufdContext, token?: () => Uint8Array | undefined): number {
    return bindNode(this.open, context, token);
  }

  /** Undoes {@link bind}. */
  unbind(): void {
    unbindNode(this.open);
  }

  /** ATTACH_IOMMUFD_PT, by RID or PASID. @returns the ID of the HWPT */
  attach(ptId: number, pasid?: number): number {
    const { device } = this;
    return pasid === undefined ? attachPt(device, ptId) : attachPasid(device, pasid, ptId);
  }

  detach(pasid?: number): void {
    if (pasid === undefined) detachPt(this.device);
    else detachPasid(this.device, pasid);
  }

  requireAccess(): void {
    requireAccess(this.open);
  }

  release(): void {
    closeDevice(this.open);
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    return deviceIoctl(this, { task, command, argument });
  }

  read(task: Task, buffer: ReadBuffer, offset: number): number {
    this.requireAccess();
    const { read } = this.device.ops;
    if (read === undefined) throw new Errno('EINVAL', `${this.name} cannot be read`);
    return read(task, buffer, offset);
  }

  write(task: Task, buffer: WriteBuffer, offset: number): number {
    this.requireAccess();
    const { write } = this.device.ops;
    if (write === undefined) throw new Errno('EINVAL', `${this.name} cannot be written`);
    return write(task, buffer, offset);
  }

  mmap(task: Task, request: MmapRequest): MmapGrant {
    this.requireAccess();
    const { mmap } = this.device.ops;
    if (mmap === undefined) throw new Errno('EINVAL', `${this.name} cannot be mapped`);
    return mmap(task, request);
  }
}
