/** The ioctls of a group file. After drivers/vfio/group.c. */
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES } from '../base/position.ts';
import type { OpenFile, Task } from '../base/task.ts';
import { nameCall, VFIO_IOCTLS as spec, type VfioCall } from '../uapi/vfio-ioctls.ts';
import { VFIO_GROUP_FLAGS_CONTAINER_SET, VFIO_GROUP_FLAGS_VIABLE } from '../uapi/vfio.ts';
import { ContainerFile } from './container-file.ts';
import type { GroupFile } from './group-file.ts';
import { IoctlTable, op } from './vcmd.ts';

export const GROUP_IOCTLS = new IoctlTable<GroupFile>('group', [
  op(spec.VFIO_GROUP_GET_STATUS, (open: GroupFile, vcmd) => {
    const given = vcmd.read();
    const { viable, containerSet } = open.status();
    given.writeBack(
      'flags',
      (viable ? VFIO_GROUP_FLAGS_VIABLE : 0) | (containerSet ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0),
    );
    return 0;
  }),
  op(spec.VFIO_GROUP_SET_CONTAINER, (open: GroupFile, vcmd) => {
    setContainer(open, vcmd.task, vcmd.read().value.container);
    return 0;
  }),
  op(spec.VFIO_GROUP_UNSET_CONTAINER, (open: GroupFile) => {
    open.unsetContainer();
    return 0;
  }),
  op(spec.VFIO_GROUP_GET_DEVICE_FD, (open: GroupFile, { task, argument }) => {
    const file = open.getDevice(readName(task, argument), task.capable('CAP_SYS_RAWIO'));
    const fd = task.install(file, { cloexec: true });
    if (open.group.noIommu && task.record !== undefined) {
      task.record.warning = `no IOMMU: ${file.device.iommu.name} can read and write all memory`;
    }
    return fd;
  }),
]);

/** One ioctl on a group file. */
export function groupIoctl(open: GroupFile, call: VfioCall): number {
  nameCall('group', call);
  return GROUP_IOCTLS.execute(open, call);
}

function setContainer(open: GroupFile, task: Task, fd: number): void {
  const file = task.file(fd);
  if (file instanceof ContainerFile) {
    open.setContainer(file.container, task.capable('CAP_SYS_RAWIO'));
    return;
  }
  setIommufd(open, file, fd);
}

// What is set already, and a dead group, come before the kind of the file.
function setIommufd(open: GroupFile, file: OpenFile | undefined, fd: number): void {
  open.refuseSecondIommu();
  const context = file && open.vfio.contextOfFile(file);
  if (context === undefined) {
    throw new Errno(
      'EBADFD',
      `descriptor ${fd} is ${file?.name ?? 'a file of the host'}, neither container nor /dev/iommu`,
    );
  }
  open.setIommufd(context);
}

// Byte by byte at a page's end would be the kernel's way; chunks up to the next page cannot fault where it would not.
function readName(task: Task, address: bigint): string {
  const bytes: number[] = [];
  while (bytes.length < PAGE_BYTES) {
    const at = address + BigInt(bytes.length);
    const chunk = new Uint8Array(Math.min(64, PAGE_BYTES - Number(at % BigInt(PAGE_BYTES))));
    task.memory.copyIn(at, chunk);
    const end = chunk.indexOf(0);
    bytes.push(...(end < 0 ? chunk : chunk.subarray(0, end)));
    if (end >= 0) {
      noteName(task, bytes);
      return String.fromCharCode(...bytes);
    }
  }
  throw new Errno('EINVAL', `the device name has no end within ${PAGE_BYTES} bytes`);
}

function noteName({ record }: Task, bytes: readonly number[]): void {
  if (record === undefined) return;
  const { struct } = spec.VFIO_GROUP_GET_DEVICE_FD;
  record.struct = struct;
  record.input = new Uint8Array(bytes.slice(0, struct.size));
}
