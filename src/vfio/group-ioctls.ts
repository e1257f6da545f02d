/** The ioctls of a group file. After drivers/vfio/group.c. */
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES } from '../base/position.ts';
import type { OpenFile, Task } from '../base/task.ts';
import {
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  vfio_group_status,
} from '../uapi/vfio.ts';
import { Argument } from './arguments.ts';
import { ContainerFile } from './container-file.ts';
import type { GroupFile } from './group-file.ts';

/** One ioctl on a group file. */
export function groupIoctl(open: GroupFile, task: Task, command: number, argument: bigint): number {
  switch (command) {
    case VFIO_GROUP_GET_STATUS:
      return getStatus(open, task, argument);
    case VFIO_GROUP_SET_CONTAINER:
      return setContainer(open, task, argument);
    case VFIO_GROUP_UNSET_CONTAINER:
      named(task, 'VFIO_GROUP_UNSET_CONTAINER');
      open.unsetContainer();
      return 0;
    case VFIO_GROUP_GET_DEVICE_FD:
      return getDeviceFd(open, task, argument);
    default:
      throw new Errno('ENOTTY', `a group file has no ioctl 0x${command.toString(16)}`);
  }
}

function named(task: Task, call: string): void {
  if (task.record !== undefined) task.record.call = call;
}

function getStatus(open: GroupFile, task: Task, address: bigint): number {
  named(task, 'VFIO_GROUP_GET_STATUS');
  const given = new Argument(task, address, vfio_group_status, 'flags');
  const { viable, containerSet } = open.status();
  given.writeBack(
    'flags',
    (viable ? VFIO_GROUP_FLAGS_VIABLE : 0) | (containerSet ? VFIO_GROUP_FLAGS_CONTAINER_SET : 0),
  );
  return 0;
}

function setContainer(open: GroupFile, task: Task, address: bigint): number {
  named(task, 'VFIO_GROUP_SET_CONTAINER');
  const bytes = new Uint8Array(4);
  task.memory.copyIn(address, bytes);
  const fd = new DataView(bytes.buffer).getInt32(0, true);
  const file = task.file(fd);
  if (file instanceof ContainerFile) {
    open.setContainer(file.container);
    return 0;
  }
  setIommufd(open, file, fd);
  return 0;
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

function getDeviceFd(open: GroupFile, task: Task, address: bigint): number {
  named(task, 'VFIO_GROUP_GET_DEVICE_FD');
  return task.install(open.getDevice(readString(task, address)), { cloexec: true });
}

// Byte by byte at a page's end would be the kernel's way; chunks up to the next page cannot fault where it would not.
function readString(task: Task, address: bigint): string {
  const bytes: number[] = [];
  while (bytes.length < PAGE_BYTES) {
    const at = address + BigInt(bytes.length);
    const chunk = new Uint8Array(Math.min(64, PAGE_BYTES - Number(at % BigInt(PAGE_BYTES))));
    task.memory.copyIn(at, chunk);
    const end = chunk.indexOf(0);
    bytes.push(...(end < 0 ? chunk : chunk.subarray(0, end)));
    if (end >= 0) return String.fromCharCode(...bytes);
  }
  throw new Errno('EINVAL', `the device name has no end within ${PAGE_BYTES} bytes`);
}
