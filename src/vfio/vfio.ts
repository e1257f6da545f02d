/**
 * The VFIO core of one machine: devices that a driver registered, their numbers, and the groups they came from.
 *
 * References: a registration is held by the driver and by each open file of the device. Unregistering takes the nodes away
 * at once, asks the users to go, and completes when the last file is closed: that is why unbinding a driver that user
 * space works through waits. A VFIO group lives while it has devices and pins its IOMMU group as long.
 *
 * After drivers/vfio/vfio_main.c and the group objects of drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import { remove } from '../base/list.ts';
import type { OpenFile, Task } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { IommuGroup } from '../iommu/group.ts';
import { DeviceFile } from './device-file.ts';
import { VfioGroup } from './group.ts';
import { contextOfIommufdFile, IommufdState, type ContextOfFile } from './iommufd.ts';

/** What a VFIO driver does with its devices; vfio-pci is one. */
export type VfioDeviceOps = {
  /** Enables and resets the device: after the claim, before the first access. Throws Errno. */
  openDevice?(device: VfioDevice): void;
  /** Quiesces the device: after the last access, before the release. */
  closeDevice?(device: VfioDevice): void;
  /** Somebody wants the device back: called once at unregistration. */
  request?(device: VfioDevice): void;
  /** The device is the one that GET_DEVICE_FD names. Throws Errno for a bad option. Default: same name. */
  match?(device: VfioDevice, name: string): boolean;
  /** Checks the token of BIND_IOMMUFD; undefined when none was given. Throws EACCES, EINVAL. */
  matchToken?(device: VfioDevice, token: Uint8Array | undefined): void;
  /** What GET_INFO reports: VFIO_DEVICE_FLAGS_*. */
  flags?(): number;
  /** PASIDs can be attached. */
  readonly pasids?: boolean;
  ioctl?(device: VfioDevice, task: Task, command: number, argument: bigint): number;
  read?: OpenFile['read'];
  write?: OpenFile['write'];
  mmap?: OpenFile['mmap'];
};

/** A device that can be opened by user space. */
export class VfioDevice {
  readonly index: number;
  readonly iommu: IommuDevice;
  readonly group: VfioGroup;
  readonly ops: VfioDeviceOps;
  readonly iommufd = new IommufdState();
  /** opens that the driver's open_device covers */
  openCount = 0;
  /** bound through its own node, not through the group */
  cdevOpened = false;
  /** driver plus open files */
  users = 1;
  /** set while unregistering: what to do when the last user has gone */
  whenIdle: (() => void) | undefined;

  constructor(
    index: number,
    place: { readonly iommu: IommuDevice; readonly group: VfioGroup },
    ops: VfioDeviceOps,
  ) {
    this.index = index;
    this.iommu = place.iommu;
    this.group = place.group;
    this.ops = ops;
  }

  /** "vfio3": the node is /dev/vfio/devices/vfio3 */
  get name(): string {
    return `vfio${this.index}`;
  }

  get registered(): boolean {
    return this.whenIdle === undefined;
  }

  /** One more file; ENODEV once the driver is going. */
  getRegistration(): void {
    if (!this.registered) {
      throw new Errno('ENODEV', `the driver of ${this.iommu.name} is being unbound`);
    }
    this.users++;
  }

  putRegistration(): void {
    this.users--;
    if (this.users === 0) this.whenIdle?.();
  }

  matches(name: string): boolean {
    return this.ops.match?.(this, name) ?? this.iommu.name === name;
  }
}

export type VfioOptions = {
  /** allow_unsafe_interrupts of vfio_iommu_type1 */
  readonly unsafeInterrupts?: boolean;
  /** Default: the engine's /dev/iommu. */
  readonly contextOfFile?: ContextOfFile;
};

export class Vfio {
  readonly unsafeInterrupts: boolean;
  readonly contextOfFile: ContextOfFile;
  readonly #devices: (VfioDevice | undefined)[] = [];
  readonly #groups: VfioGroup[] = [];

  constructor(options: VfioOptions = {}) {
    this.unsafeInterrupts = options.unsafeInterrupts ?? false;
    this.contextOfFile = options.contextOfFile ?? contextOfIommufdFile;
  }

  /**
   * A driver offers its device to user space.
   * @throws Errno EINVAL without IOMMU group, or behind an IOMMU that does not keep caches coherent
   */
  register(iommu: IommuDevice, ops: VfioDeviceOps): VfioDevice {
    if (iommu.group === undefined) {
      throw new Errno('EINVAL', `${iommu.name} has no IOMMU group, so user space cannot have it`);
    }
    if (!iommu.ops.capable(iommu, 'cache-coherency')) {
      throw new Errno('EINVAL', `DMA of ${iommu.name} is not coherent with caches`);
    }
    const free = this.#devices.indexOf(undefined);
    const index = free < 0 ? this.#devices.length : free;
    const group = this.#groupOf(iommu.group);
    const device = new VfioDevice(index, { iommu, group }, ops);
    this.#devices[index] = device;
    group.devices.unshift(device);
    group.drivers++;
    return device;
  }

  #groupOf(iommuGroup: IommuGroup): VfioGroup {
    const found = this.#groups.find((group) => group.iommuGroup === iommuGroup);
    if (found !== undefined) return found;
    const group = new VfioGroup(this, iommuGroup.ref());
    this.#groups.push(group);
    return group;
  }

  /**
   * The driver takes the device back. Its nodes are gone on return.
   * @param whenIdle called once the last open file is closed, at once if there is none
   */
  unregister(device: VfioDevice, whenIdle: () => void): void {
    const { group } = device;
    remove(group.devices, device);
    device.whenIdle = (): void => {
      device.whenIdle = undefined;
      this.#devices[device.index] = undefined;
      group.drivers--;
      if (group.drivers === 0) this.#dropGroup(group);
      whenIdle();
    };
    device.users--;
    if (device.users === 0) device.whenIdle();
    else device.ops.request?.(device);
  }

  #dropGroup(group: VfioGroup): void {
    remove(this.#groups, group);
    group.abandon();
  }

  /** Nodes below /dev/vfio right now: "vfio", "7", "devices/vfio0". */
  nodes(): string[] {
    const devices = this.#devices.filter((device) => device?.registered).filter(hasNode);
    return [
      'vfio',
      ...this.#groups.map(({ nodeName }) => nodeName),
      ...devices.map((device) => `devices/${String(device?.name)}`),
    ];
  }

  /** The group behind /dev/vfio/NAME. */
  group(name: string): VfioGroup | undefined {
    return this.#groups.find((group) => group.nodeName === name);
  }

  /** The device behind /dev/vfio/devices/NAME, as far as there is such a node. */
  device(name: string): VfioDevice | undefined {
    return this.#devices.find(
      (device) => device?.registered && device.name === name && hasNode(device),
    );
  }

  /** The registered device of an IOMMU's device. */
  deviceOf(iommu: IommuDevice): VfioDevice | undefined {
    return this.#devices.find((device) => device?.iommu === iommu);
  }

  /** open of a device node: no access yet, and any number of them. ENODEV while unregistering. */
  openDevice(device: VfioDevice): DeviceFile {
    device.getRegistration();
    return new DeviceFile(device, undefined);
  }
}

/** Profile singleton gives a node to devices that are alone in their group, at every moment. */
function hasNode(device: VfioDevice | undefined): boolean {
  const group = device?.iommu.group;
  if (group === undefined) return false;
  return !group.table.profile.singletonNodes || group.members.length === 1;
}
