/**
 * An open group file. It stays open past its last descriptor while devices are open through a container.
 *
 * After the file operations of drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile, Task } from '../base/task.ts';
import { DeviceFile } from './device-file.ts';
import { openThroughGroup } from './device.ts';
import { groupIoctl } from './group-ioctls.ts';
import {
  groupStatus,
  putGroupFile,
  refuseSecondIommu,
  setContainer,
  setIommufd,
  unsetContainer,
} from './group.ts';
import type { IommufdContext } from './iommufd.ts';
import { matchesName } from './registration.ts';
import type { Container, GroupOpen, VfioGroup } from './state.ts';
import type { Vfio } from './vfio.ts';

export class GroupFile implements OpenFile {
  readonly vfio: Vfio;
  readonly open: GroupOpen;

  constructor(vfio: Vfio, open: GroupOpen) {
    this.vfio = vfio;
    this.open = open;
  }

  get group(): VfioGroup {
    return this.open.group;
  }

  get name(): string {
    return `/dev/vfio/${this.group.nodeName}`;
  }

  /** SET_CONTAINER with a container. */
  setContainer(container: Container, rawIo = true): void {
    setContainer(this.group, container, rawIo);
  }

  /** SET_CONTAINER with an IOMMUFD. */
  setIommufd(context: IommufdContext): void {
    setIommufd(this.group, context);
  }

  /** What SET_CONTAINER refuses whatever file it names. */
  refuseSecondIommu(): void {
    refuseSecondIommu(this.group);
  }

  unsetContainer(): void {
    unsetContainer(this.group);
  }

  status(): { readonly viable: boolean; readonly containerSet: boolean } {
    return groupStatus(this.group);
  }

  /** GET_DEVICE_FD. ENODEV for a name that is no member; EINVAL without IOMMU; the errors of the first open. */
  getDevice(name: string, rawIo = true): DeviceFile {
    const { group } = this;
    const device = group.devices.find((candidate) => matchesName(candidate, name));
    if (device === undefined) {
      throw new Errno('ENODEV', `"${name}" is no VFIO device of group ${group.nodeName}`);
    }
    return new DeviceFile(this.vfio, openThroughGroup(group, device, rawIo));
  }

  /** The last descriptor is gone. */
  release(): void {
    putGroupFile(this.open);
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    return groupIoctl(this, { task, command, argument });
  }
}
