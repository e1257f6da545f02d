/**
 * An open group file. It stays open past its last descriptor while devices are open through a container.
 *
 * After the file operations of drivers/vfio/group.c.
 */
import type { OpenFile, Task } from '../base/task.ts';
import { groupIoctl } from './group-ioctls.ts';
import type { VfioGroup } from './group.ts';

export class GroupFile implements OpenFile {
  readonly group: VfioGroup;
  #references = 1;

  constructor(group: VfioGroup) {
    this.group = group;
  }

  get name(): string {
    return `/dev/vfio/${this.group.nodeName}`;
  }

  /** A device that is open through the container holds the file. */
  ref(): void {
    this.#references++;
  }

  put(): void {
    this.#references--;
    if (this.#references === 0) this.group.closed();
  }

  /** The last descriptor is gone. */
  release(): void {
    this.put();
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    return groupIoctl(this.group, task, command, argument);
  }
}
