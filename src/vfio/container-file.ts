/**
 * An open container, and its ioctls. Closing it first is fine: the groups in it keep it.
 *
 * After the file operations of drivers/vfio/container.c.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile, Task } from '../base/task.ts';
import { nameCall, VFIO_IOCTLS as spec, type VfioCall } from '../uapi/vfio-ioctls.ts';
import { VFIO_API_VERSION } from '../uapi/vfio.ts';
import { checkExtension, setIommu } from './container.ts';
import { newContainer, type Container } from './state.ts';
import { TYPE1_IOCTLS } from './type1/ioctls.ts';
import { IoctlTable, op } from './vcmd.ts';

/** What a container answers before SET_IOMMU as well. */
export const CONTAINER_IOCTLS = new IoctlTable<Container>('container', [
  op(spec.VFIO_GET_API_VERSION, () => VFIO_API_VERSION),
  op(spec.VFIO_CHECK_EXTENSION, (container: Container, { argument }) =>
    checkExtension(container, Number(argument)),
  ),
  op(spec.VFIO_SET_IOMMU, (container: Container, { argument }) => {
    setIommu(container, Number(argument));
    return 0;
  }),
]);

export class ContainerFile implements OpenFile {
  readonly name = '/dev/vfio/vfio';
  readonly container: Container = newContainer();

  ioctl(task: Task, command: number, argument: bigint): number {
    const call: VfioCall = { task, command, argument };
    nameCall('container', call);
    if (CONTAINER_IOCTLS.has(command)) return CONTAINER_IOCTLS.execute(this.container, call);
    const { iommu } = this.container;
    if (iommu === undefined) throw new Errno('EINVAL', 'SET_IOMMU has not been called');
    return TYPE1_IOCTLS.execute(iommu, call);
  }

  release(): void {
    // Groups hold the container itself; the file has nothing else.
  }
}
