/**
 * VFIO's group: the old door. One file per group, /dev/vfio/GROUP, gives out the group's devices once a container, or an
 * IOMMUFD in its place, stands behind it.
 *
 * Exclusion: a group file and the device nodes of its members do not go together, whoever is first (EBUSY). A container
 * claims the group when it is set, with this object as owner; an IOMMUFD claims per device when the device is opened, so
 * VIABLE may be reported although GET_DEVICE_FD then fails.
 *
 * References: in container mode every first open of a device holds the group file, which therefore outlives its last
 * descriptor; in IOMMUFD mode nothing does, and the file can be opened anew while devices stay open.
 *
 * After drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import type { IommuGroup } from '../iommu/group.ts';
import { isClaimed } from '../iommu/ownership.ts';
import type { Container } from './container.ts';
import { DeviceFile } from './device-file.ts';
import { GroupFile } from './group-file.ts';
import type { IommufdContext } from './iommufd.ts';
import type { Vfio, VfioDevice } from './vfio.ts';

export class VfioGroup {
  readonly vfio: Vfio;
  /** undefined once the last device has left: files that are still open are dead */
  iommuGroup: IommuGroup | undefined;
  /** "7": the node is /dev/vfio/7 */
  readonly nodeName: string;
  /** registered devices, newest first */
  readonly devices: VfioDevice[] = [];
  /** devices that are registered or waiting for their last file */
  drivers = 0;
  openedFile: GroupFile | undefined;
  container: Container | undefined;
  /** 1 for the container being set, 1 for each device that is open through it */
  containerUsers = 0;
  iommufd: IommufdContext | undefined;
  /** devices that are bound through their own node */
  cdevOpenCount = 0;

  constructor(vfio: Vfio, iommuGroup: IommuGroup) {
    this.vfio = vfio;
    this.iommuGroup = iommuGroup;
    this.nodeName = String(iommuGroup.id);
  }

  /** As owner of the IOMMU group, in refusals. */
  get name(): string {
    return `the container of group ${this.nodeName}`;
  }

  #hasIommu(): boolean {
    return this.container !== undefined || this.iommufd !== undefined;
  }

  #alive(): IommuGroup {
    if (this.iommuGroup === undefined) {
      throw new Errno('ENODEV', `the last VFIO device of group ${this.nodeName} is gone`);
    }
    return this.iommuGroup;
  }

  /** open of the node. ENODEV without devices; EBUSY with a device node bound or the file open. */
  open(): GroupFile {
    if (this.drivers === 0) {
      throw new Errno('ENODEV', `group ${this.nodeName} has no VFIO device any more`);
    }
    if (this.cdevOpenCount > 0 && this.#alive().enforces('paths-exclude')) {
      const bound = this.devices.filter(({ cdevOpened }) => cdevOpened);
      const names = bound.map((device) => `${device.iommu.name} (${device.name})`).join(', ');
      throw new Errno('EBUSY', `${names} of group ${this.nodeName} is bound by its device node`);
    }
    if (this.openedFile !== undefined) {
      throw new Errno('EBUSY', `group ${this.nodeName} is open already`);
    }
    this.openedFile = new GroupFile(this);
    return this.openedFile;
  }

  /** For a device node that is being bound: EBUSY while the group file is open. */
  block(): void {
    if (this.openedFile !== undefined && this.iommuGroup?.enforces('paths-exclude') !== false) {
      throw new Errno('EBUSY', `the group file /dev/vfio/${this.nodeName} is open`);
    }
    this.cdevOpenCount++;
  }

  unblock(): void {
    this.cdevOpenCount--;
  }

  /** SET_CONTAINER with a container. EINVAL if something is set, ENODEV for a dead group, EPERM and more from the claim. */
  setContainer(container: Container): void {
    this.refuseSecondIommu();
    container.attachGroup(this);
  }

  /** SET_CONTAINER with an IOMMUFD. Nothing is claimed yet. */
  setIommufd(context: IommufdContext): void {
    this.refuseSecondIommu();
    context.createCompatIoas();
    context.get();
    this.iommufd = context;
  }

  refuseSecondIommu(): void {
    if (this.#hasIommu()) {
      throw new Errno('EINVAL', `group ${this.nodeName} has a container already`);
    }
    this.#alive();
  }

  /** UNSET_CONTAINER. EINVAL if nothing is set, EBUSY while devices are open through the container. */
  unsetContainer(): void {
    if (!this.#hasIommu()) throw new Errno('EINVAL', `group ${this.nodeName} has no container`);
    if (this.container !== undefined) {
      if (this.containerUsers !== 1) {
        throw new Errno(
          'EBUSY',
          `${this.containerUsers - 1} device(s) are open through group ${this.nodeName}`,
        );
      }
      this.container.detachGroup(this);
    }
    this.#dropIommufd();
  }

  #dropIommufd(): void {
    this.iommufd?.put();
    this.iommufd = undefined;
  }

  /** GET_STATUS. */
  status(): { readonly viable: boolean; readonly containerSet: boolean } {
    const group = this.#alive();
    const containerSet = this.#hasIommu();
    return { viable: containerSet || !isClaimed(group), containerSet };
  }

  /** GET_DEVICE_FD. ENODEV for a name that is no member; EINVAL without IOMMU; the errors of the first open. */
  getDevice(name: string): DeviceFile {
    const device = this.devices.find((candidate) => candidate.matches(name));
    if (device === undefined) {
      throw new Errno('ENODEV', `"${name}" is no VFIO device of group ${this.nodeName}`);
    }
    device.getRegistration();
    const file = new DeviceFile(device, this);
    try {
      this.#openThroughGroup(file);
    } catch (error) {
      device.putRegistration();
      throw error;
    }
    return file;
  }

  #openThroughGroup(file: DeviceFile): void {
    if (!this.#hasIommu()) {
      throw new Errno('EINVAL', `group ${this.nodeName} has neither container nor IOMMUFD`);
    }
    file.iommufd = this.iommufd;
    file.openShared();
    if (file.iommufd !== undefined && file.device.openCount === 1) {
      try {
        file.device.iommufd.attach(file.iommufd.compatIoasId());
      } catch (error) {
        file.closeShared();
        throw error;
      }
    }
    file.accessGranted = true;
  }

  /** A first open in container mode. EINVAL before SET_IOMMU. */
  useContainer(): void {
    const { container, openedFile } = this;
    if (container === undefined || openedFile === undefined) {
      throw new Error(`group ${this.nodeName} has no container to use`);
    }
    if (!container.hasIommu) {
      throw new Errno(
        'EINVAL',
        `SET_IOMMU has not been called on the container of group ${this.nodeName}`,
      );
    }
    openedFile.ref();
    this.containerUsers++;
  }

  unuseContainer(): void {
    this.containerUsers--;
    this.openedFile?.put();
  }

  /** The group file has no user any more. */
  closed(): void {
    this.container?.detachGroup(this);
    this.#dropIommufd();
    this.openedFile = undefined;
  }

  /** The last device has left. */
  abandon(): void {
    this.container?.detachGroup(this);
    this.iommuGroup?.put();
    this.iommuGroup = undefined;
  }
}
