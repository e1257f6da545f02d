/**
 * An open container, and its ioctls. Closing it first is fine: the groups in it keep it.
 *
 * After the file operations of drivers/vfio/container.c.
 */
import type { OpenFile, Task } from '../base/task.ts';
import { nameCall, VFIO_IOCTLS as spec, type VfioCall } from '../uapi/vfio-ioctls.ts';
import { VFIO_API_VERSION } from '../uapi/vfio.ts';
import { checkExtension, driverIoctl, setIommu } from './container.ts';
import { newContainer, type Container, type VfioParameters } from './state.ts';
import { IoctlTable, op } from './vcmd.ts';

/** What a container answers before SET_IOMMU as well. */
export const CONTAINER_IOCTLS = new IoctlTable<Container>('container', [
  op(spec.VFIO_GET_API_VERSION, () => VFIO_API_VERSION),
  op(spec.VFIO_CHECK_EXTENSION, (container: Container, { argument }) =>
    checkExtension(container, Number(argument)),
  ),
  op(spec.VFIO_SET_IOMMU, (container: Container, { task, argument }) => {
    setIommu(container, Number(argument), task.capable('CAP_SYS_RAWIO'));
    return 0;
  }),
]);

export class ContainerFile implements OpenFile {
  readonly name = '/dev/vfio/vfio';
  readonly container: Container;

  constructor(parameters?: VfioParameters) {
    this.container = newContainer(parameters);
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    const call: VfioCall = { task, command, argument };
    nameCall('container', call);
    if (CONTAINER_IOCTLS.has(command)) return CONTAINER_IOCTLS.execute(this.container, call);
    return driverIoctl(this.container, call);
  }

  release(): void {
    // Groups hold the container itself; the file has nothing else.
  }
}
