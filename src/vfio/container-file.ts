/**
 * An open container, and its ioctls. Closing it first is fine: the groups in it keep it.
 *
 * After the file operations of drivers/vfio/container.c.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile, Task } from '../base/task.ts';
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_GET_API_VERSION,
  VFIO_SET_IOMMU,
} from '../uapi/vfio.ts';
import { checkExtension, setIommu } from './container.ts';
import { newContainer, type Container } from './state.ts';

export class ContainerFile implements OpenFile {
  readonly name = '/dev/vfio/vfio';
  readonly container: Container = newContainer();

  ioctl(_task: Task, command: number, argument: bigint): number {
    switch (command) {
      case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION;
      case VFIO_CHECK_EXTENSION:
        return checkExtension(this.container, Number(argument));
      case VFIO_SET_IOMMU:
        setIommu(this.container, Number(argument));
        return 0;
      default:
        if (this.container.iommu === undefined)
          throw new Errno('EINVAL', 'SET_IOMMU has not been called');
        throw new Errno('ENOTTY', `a container has no ioctl 0x${command.toString(16)}`);
    }
  }

  release(): void {
    // Groups hold the container itself; the file has nothing else.
  }
}
