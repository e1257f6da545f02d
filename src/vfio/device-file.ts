/**
 * An open VFIO device: what a program's calls on it mean. The rules are device.ts and iommufd.ts.
 *
 * After drivers/vfio/device_cdev.c, and vfio_device_fops of drivers/vfio/vfio_main.c.
 */
import { Errno } from '../base/errno.ts';
import { REGION_OFFSET_SHIFT } from '../base/file-offsets.ts';
import type {
  DeviceMemory,
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
import {
  deviceName,
  type DeviceOpen,
  type RegionPlace,
  type VfioDevice,
  type VfioGroup,
} from './state.ts';
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

  get memory(): DeviceMemory | undefined {
    return this.device.ops.memory?.();
  }

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

  read(_task: Task, buffer: ReadBuffer, position: number): number {
    this.requireAccess();
    const { device } = this;
    const { ops } = device;
    if (ops.regionRead === undefined) throw new Errno('EINVAL', `${this.name} cannot be read`);
    return inChunks(buffer.length, position, (place, done, count) => {
      const bytes = new Uint8Array(count);
      const read = ops.regionRead?.(device, place, bytes) ?? 0;
      buffer.put(done, bytes.subarray(0, read));
      return read;
    });
  }

  write(_task: Task, buffer: WriteBuffer, position: number): number {
    this.requireAccess();
    const { device } = this;
    const { ops } = device;
    if (ops.regionWrite === undefined) throw new Errno('EINVAL', `${this.name} cannot be written`);
    return inChunks(
      buffer.length,
      position,
      (place, done, count) => ops.regionWrite?.(device, place, buffer.take(done, count)) ?? 0,
    );
  }

  mmap(_task: Task, request: MmapRequest): MmapGrant {
    this.requireAccess();
    const { device } = this;
    const grant = device.ops.mmap?.(device, request);
    if (grant === undefined) throw new Errno('EINVAL', `${this.name} cannot be mapped`);
    return grant;
  }
}

const REGION_BYTES = 2 ** REGION_OFFSET_SHIFT;
// Large accesses are made in parts, so that a length that a program made up costs no memory.
const CHUNK = 65536;

/**
 * Makes an access in parts, until one ends early.
 * @param access makes one part; `done` bytes were made before it
 * @returns how many bytes were made
 */
function inChunks(
  length: number,
  position: number,
  access: (place: RegionPlace, done: number, count: number) => number,
): number {
  const index = Math.floor(position / REGION_BYTES);
  const start = position % REGION_BYTES;
  let done = 0;
  while (done < length) {
    const count = Math.min(CHUNK, length - done);
    const place = { index, offset: start + done, end: start + length };
    const made = access(place, done, count);
    done += made;
    if (made < count) break;
  }
  return done;
}
