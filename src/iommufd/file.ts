/**
 * IommufdFile: one open of /dev/iommu as the calling program sees it.
 *
 * After iommufd_fops of drivers/iommu/iommufd/main.c.
 */
import { Errno } from '../base/errno.ts';
import { hex } from '../base/position.ts';
import type { MmapGrant, MmapRequest, OpenFile, Task } from '../base/task.ts';
import { IOMMUFD_CMD_BASE } from '../uapi/iommufd.ts';
import type { Context } from './context.ts';
import { OPS_BY_NUMBER, commandNumber } from './ioctls.ts';
import { vfioIoctl } from './vfio-compat.ts';

export class IommufdFile implements OpenFile {
  readonly name = '/dev/iommu';
  readonly context: Context;
  readonly #afterCall: (() => void) | undefined;

  /** @param afterCall runs after every ioctl, also a refused one (`--check`) */
  constructor(context: Context, afterCall?: () => void) {
    this.context = context;
    this.#afterCall = afterCall;
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    // A refusal that is caught and thrown again on its way costs half as much again.
    if (this.#afterCall === undefined) return this.#dispatch(task, command, argument);
    try {
      return this.#dispatch(task, command, argument);
    } finally {
      this.#afterCall();
    }
  }

  mmap(_task: Task, request: MmapRequest): MmapGrant {
    return this.context.windows.map(request);
  }

  release(): void {
    this.context.put();
  }

  #dispatch(task: Task, command: number, argument: bigint): number {
    const index = commandNumber(command) - IOMMUFD_CMD_BASE;
    if (index < 0 || index >= OPS_BY_NUMBER.length) {
      return vfioIoctl(this.context, task, { command, argument });
    }
    const op = OPS_BY_NUMBER[index];
    if (op?.spec.number !== command) {
      // The size is read before the number is judged, so a bad pointer is noticed first.
      task.memory.copyIn(argument, new Uint8Array(4));
      throw new Errno('ENOTTY', `${hex(command >>> 0)} is not an ioctl of /dev/iommu`);
    }
    return op.execute(this.context, task, argument);
  }
}
