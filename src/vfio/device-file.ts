/**
 * An open VFIO device: from its own node, where it is blind until BIND_IOMMUFD, or from a group, where it is live at once.
 *
 * Ownership brackets access: claim, then the driver's open_device, then access; and back in the opposite order. A device node
 * may be opened by many and bound by one; through a group all files of a device share one open.
 *
 * After drivers/vfio/device_cdev.c, and vfio_df_open, vfio_df_close, vfio_device_fops_unl_ioctl of drivers/vfio/vfio_main.c.
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
import type { VfioGroup } from './group.ts';
import type { IommufdContext } from './iommufd.ts';
import type { VfioDevice } from './vfio.ts';

export class DeviceFile implements OpenFile {
  readonly positioned = true;
  readonly device: VfioDevice;
  /** the group that gave it out; undefined for a device node */
  readonly group: VfioGroup | undefined;
  accessGranted = false;
  iommufd: IommufdContext | undefined;

  constructor(device: VfioDevice, group: VfioGroup | undefined) {
    this.device = device;
    this.group = group;
  }

  // A device node has a path; this is for what VFIO_GROUP_GET_DEVICE_FD makes.
  readonly link = 'anon_inode:[vfio-device]';

  get name(): string {
    const { device } = this;
    return this.group === undefined
      ? `/dev/vfio/devices/${device.name} (${device.iommu.name})`
      : `VFIO device ${device.iommu.name}`;
  }

  /**
   * BIND_IOMMUFD: claims the device's group for the context and grants access.
   * @param context how the context is found, asked after the checks that come before it
   * @returns the device's ID in the context
   * @throws Errno EINVAL for a group's file, a bound file or a device that another file has open; EBUSY while the group
   *   file is open; the token's, the claim's and the driver's errors; the file can be bound again then
   */
  bind(context: () => IommufdContext, token?: () => Uint8Array | undefined): number {
    const { device } = this;
    if (this.group !== undefined) {
      throw new Errno('EINVAL', `${device.iommu.name} was opened through its group`);
    }
    device.group.block();
    try {
      this.#bindBlocked(context, token);
    } catch (error) {
      device.group.unblock();
      throw error;
    }
    device.cdevOpened = true;
    this.accessGranted = true;
    return device.iommufd.binding?.id ?? 0;
  }

  #bindBlocked(
    context: () => IommufdContext,
    token: (() => Uint8Array | undefined) | undefined,
  ): void {
    const { device } = this;
    if (this.accessGranted) {
      throw new Errno('EINVAL', `this file of ${device.iommu.name} is bound already`);
    }
    const given = token?.();
    device.ops.matchToken?.(device, given);
    this.iommufd = context();
    try {
      this.openShared();
    } catch (error) {
      this.iommufd = undefined;
      throw error;
    }
  }

  /** Undoes {@link bind}. */
  unbind(): void {
    const { device } = this;
    if (!this.accessGranted) return;
    this.accessGranted = false;
    this.closeShared();
    this.iommufd = undefined;
    device.cdevOpened = false;
    device.group.unblock();
  }

  /** EINVAL before access: what every call but BIND_IOMMUFD begins with. */
  requireAccess(): void {
    if (!this.accessGranted) {
      throw new Errno('EINVAL', `${this.device.iommu.name} is not bound to an IOMMUFD yet`);
    }
  }

  /** One more open of the device; the first one claims and enables it. */
  openShared(): void {
    const { device } = this;
    if (device.openCount !== 0 && this.group === undefined) {
      throw new Errno('EINVAL', `${device.iommu.name} is open through another file`);
    }
    if (device.openCount === 0) this.#firstOpen();
    device.openCount++;
  }

  #firstOpen(): void {
    const { device } = this;
    if (this.iommufd !== undefined) device.iommufd.bind(this.iommufd, device.iommu);
    else this.group?.useContainer();
    try {
      device.ops.openDevice?.(device);
    } catch (error) {
      this.#dropIommu();
      throw error;
    }
  }

  #dropIommu(): void {
    if (this.iommufd !== undefined) this.device.iommufd.unbind();
    else this.group?.unuseContainer();
  }

  /** The last close quiesces the device, then gives the claim back. */
  closeShared(): void {
    const { device } = this;
    if (device.openCount === 1) {
      device.ops.closeDevice?.(device);
      this.#dropIommu();
    }
    device.openCount--;
  }

  release(): void {
    if (this.group === undefined) this.unbind();
    else {
      this.closeShared();
      this.iommufd = undefined;
    }
    this.device.putRegistration();
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    return deviceIoctl(this, task, command, argument);
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
