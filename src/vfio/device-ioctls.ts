/**
 * The ioctls of a VFIO device that decide who owns its DMA: BIND_IOMMUFD, ATTACH and DETACH, with their order of checks.
 * All others go to the driver once there is access.
 *
 * After drivers/vfio/device_cdev.c.
 */
import { Errno } from '../base/errno.ts';
import type { Task } from '../base/task.ts';
import { unknownFlags } from '../uapi/refusals.ts';
import { nameCall, VFIO_IOCTLS as spec, type VfioCall } from '../uapi/vfio-ioctls.ts';
import {
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_PASID,
  vfio_device_attach_iommufd_pt,
  vfio_device_bind_iommufd,
  vfio_device_detach_iommufd_pt,
} from '../uapi/vfio.ts';
import type { DeviceFile } from './device-file.ts';
import type { IommufdContext } from './iommufd.ts';
import { IoctlTable, op, unknownIoctl, type Vcmd } from './vcmd.ts';

const UUID_BYTES = 16;

/** What a device node takes, and a file from a group does not. */
export const OWNERSHIP_IOCTLS = new IoctlTable<DeviceFile>('device', [
  op(spec.VFIO_DEVICE_BIND_IOMMUFD, (file: DeviceFile, vcmd) => bind(file, vcmd)),
  op(spec.VFIO_DEVICE_ATTACH_IOMMUFD_PT, attach),
  op(spec.VFIO_DEVICE_DETACH_IOMMUFD_PT, detach),
]);

/** One ioctl on a device file. */
export function deviceIoctl(file: DeviceFile, call: VfioCall): number {
  const { command } = call;
  nameCall('device', call);
  // BIND is what grants access, and tells itself which files cannot be bound.
  if (command === VFIO_DEVICE_BIND_IOMMUFD) return OWNERSHIP_IOCTLS.execute(file, call);
  file.requireAccess();
  const { device } = file;
  const { ops } = device;
  const make = (): number => {
    if (file.group === undefined && OWNERSHIP_IOCTLS.has(command)) {
      return OWNERSHIP_IOCTLS.execute(file, call);
    }
    if (ops.ioctl === undefined) throw unknownIoctl('device', command);
    return ops.ioctl(device, call);
  };
  return ops.awake === undefined ? make() : ops.awake(device, make);
}

function bind(
  file: DeviceFile,
  { task, argument: address }: { readonly task: Task; readonly argument: bigint },
): number {
  const given = copyExtensible(task, address);
  if (given.iommufd < 0) throw new Errno('EINVAL', `${given.iommufd} is not a file descriptor`);
  if ((given.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) !== 0) {
    const known = VFIO_DEVICE_BIND_FLAG_TOKEN;
    throw unknownFlags(vfio_device_bind_iommufd, given.flags, known, 'EINVAL');
  }
  const id = file.bind(
    () => contextOf(file, task, given.iommufd),
    () => readToken(file, task, given),
  );
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, id, true);
  try {
    task.memory.copyOut(address + BigInt(vfio_device_bind_iommufd.offsetOf('out_devid')), bytes);
  } catch (error) {
    file.unbind();
    throw error;
  }
  if (task.record !== undefined) {
    const output = new Uint8Array(vfio_device_bind_iommufd.size);
    vfio_device_bind_iommufd.encode({ ...given, out_devid: id }, output);
    task.record.output = output;
  }
  return 0;
}

// The one struct of VFIO that follows IOMMUFD's rule: a longer one is fine as long as its tail is zero.
function copyExtensible(task: Task, address: bigint): vfio_device_bind_iommufd {
  const head = new Uint8Array(4);
  task.memory.copyIn(address, head);
  const size = new DataView(head.buffer).getUint32(0, true);
  const minimum = vfio_device_bind_iommufd.endOf('out_devid');
  if (size < minimum) throw new Errno('EINVAL', `argsz is ${size}, it takes ${minimum}`);
  const known = vfio_device_bind_iommufd.size;
  const bytes = new Uint8Array(known);
  task.memory.copyIn(address, bytes.subarray(0, Math.min(size, known)));
  refuseTail(task, address + BigInt(known), size - known);
  const value = vfio_device_bind_iommufd.decode(bytes);
  if (task.record !== undefined) {
    task.record.struct = vfio_device_bind_iommufd;
    task.record.input = bytes;
  }
  return value;
}

function refuseTail(task: Task, address: bigint, length: number): void {
  if (length <= 0 || task.memory.isZero(address, length)) return;
  throw new Errno('E2BIG', 'the struct has non-zero bytes that this version does not know');
}

function contextOf(file: DeviceFile, task: Task, fd: number): IommufdContext {
  const open = task.file(fd);
  const context = open && file.vfio.contextOfFile(open);
  if (context === undefined) {
    throw new Errno(
      'EBADFD',
      `descriptor ${fd} is ${open?.name ?? 'a file of the host'}, not /dev/iommu`,
    );
  }
  return context;
}

function readToken(
  file: DeviceFile,
  task: Task,
  given: vfio_device_bind_iommufd,
): Uint8Array | undefined {
  if ((given.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) === 0) return undefined;
  if (file.device.ops.matchToken === undefined) {
    throw new Errno('EINVAL', `${file.device.iommu.name} takes no token`);
  }
  const token = new Uint8Array(UUID_BYTES);
  task.memory.copyIn(given.token_uuid_ptr, token);
  return token;
}

function attach(file: DeviceFile, vcmd: Vcmd<typeof vfio_device_attach_iommufd_pt.fields>): number {
  const given = vcmd.read();
  const { flags } = given.value;
  if ((flags & ~VFIO_DEVICE_ATTACH_PASID) !== 0) {
    throw unknownFlags(vfio_device_attach_iommufd_pt, flags, VFIO_DEVICE_ATTACH_PASID, 'EINVAL');
  }
  const byPasid = flags !== 0;
  if (byPasid) requirePasids(file);
  if (byPasid) given.extendTo('pasid');
  const { pt_id: ptId, pasid } = given.value;
  const id = file.attach(ptId, byPasid ? pasid : undefined);
  try {
    given.writeBack('pt_id', id);
  } catch (error) {
    // Linux undoes the RID's attachment here even where a PASID was attached.
    file.detach();
    throw error;
  }
  return 0;
}

function detach(file: DeviceFile, vcmd: Vcmd<typeof vfio_device_detach_iommufd_pt.fields>): number {
  const given = vcmd.read();
  const { flags } = given.value;
  if ((flags & ~VFIO_DEVICE_DETACH_PASID) !== 0) {
    throw unknownFlags(vfio_device_detach_iommufd_pt, flags, VFIO_DEVICE_DETACH_PASID, 'EINVAL');
  }
  const byPasid = flags !== 0;
  if (byPasid) requirePasids(file);
  if (byPasid) given.extendTo('pasid');
  file.detach(byPasid ? given.value.pasid : undefined);
  return 0;
}

function requirePasids({ device }: DeviceFile): void {
  if (device.ops.pasids === true) return;
  throw new Errno('EOPNOTSUPP', `the driver of ${device.iommu.name} attaches no PASIDs`);
}
