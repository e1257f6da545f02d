/**
 * What VFIO knows, as plain data: registered devices, their groups, containers, and what open files stand for. Rules over it
 * are in registration.ts, group.ts, container.ts, device.ts and iommufd.ts; the files that serve programs translate
 * calls into those functions and keep nothing of their own.
 *
 * Not here: what a device does (its driver's operations), and who owns a group's DMA (iommu/ownership.ts).
 *
 * After struct vfio_device, vfio_device_file (drivers/vfio/vfio.h), vfio_group (drivers/vfio/vfio.h) and vfio_container
 * (drivers/vfio/container.c).
 */
import type { DeviceMemory, MmapGrant, MmapRequest } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { GroupTable, IommuGroup } from '../iommu/group.ts';
import type { Pinning } from '../pinning/pages.ts';
import type { VfioCall } from '../uapi/vfio-ioctls.ts';
import type { IommufdBinding, IommufdContext } from './iommufd.ts';

/** What a VFIO driver does with its devices; vfio-pci is one. */
export type VfioDeviceOps = {
  /** Enables and resets the device: after the claim, before the first access. Throws Errno. */
  openDevice?(device: VfioDevice): void;
  /** Quiesces the device: after the last access, before the release. */
  closeDevice?(device: VfioDevice): void;
  /** The driver is being unbound and waits for the users of the device: called once at unregistration. */
  request?(device: VfioDevice): void;
  /** The device is the one that GET_DEVICE_FD names. Throws Errno for a bad option. Default: same name. */
  match?(device: VfioDevice, name: string): boolean;
  /** Checks the token of BIND_IOMMUFD; undefined when none was given. Throws EACCES, EINVAL. */
  matchToken?(device: VfioDevice, token: Uint8Array | undefined): void;
  /** What GET_INFO reports: VFIO_DEVICE_FLAGS_*. */
  flags?(): number;
  /** PASIDs can be attached. */
  readonly pasids?: boolean;
  /** Runs a call while the device is powered. Default: just runs it. */
  awake?<T>(device: VfioDevice, work: () => T): T;
  ioctl?(device: VfioDevice, call: VfioCall): number;
  /** Reads of a region, up to its end. @returns how many bytes were read */
  regionRead?(device: VfioDevice, place: RegionPlace, into: Uint8Array): number;
  /** @returns how many bytes were written */
  regionWrite?(device: VfioDevice, place: RegionPlace, bytes: Uint8Array): number;
  mmap?(device: VfioDevice, request: MmapRequest): MmapGrant;
  /** what its mappings show */
  memory?(): DeviceMemory;
};

/** A place in a region of a device. */
export type RegionPlace = {
  readonly index: number;
  readonly offset: number;
  /** where the whole access ends, of which this may be a part */
  readonly end: number;
};

/** Module parameters. Where programs can change them, these are as they are now. */
export type VfioParameters = {
  /** enable_unsafe_noiommu_mode of vfio */
  readonly noIommu: boolean;
  /** allow_unsafe_interrupts of vfio_iommu_type1 */
  readonly unsafeInterrupts: boolean;
  /** dma_entry_limit of vfio_iommu_type1: mappings that a container can have */
  readonly entryLimit: number;
  /** disable_hugepages of vfio_iommu_type1 */
  readonly smallPages: boolean;
};

/** As the modules have them when they are loaded without options. */
export const DEFAULT_PARAMETERS: VfioParameters = {
  noIommu: false,
  unsafeInterrupts: false,
  entryLimit: 65_535,
  smallPages: false,
};

/** An IOMMU driver at work in a container (struct vfio_iommu_driver_ops). */
export type ContainerIommu = {
  checkExtension(extension: number): number;
  /** Throws Errno; the group then is on the blocking domain. */
  attachGroup(group: IommuGroup): void;
  detachGroup(group: IommuGroup): void;
  /** What the container does not know itself. Throws ENOTTY, and more. */
  ioctl(call: VfioCall): number;
  release(): void;
};

/** All devices and groups of one machine. */
export type VfioTable = {
  readonly parameters: VfioParameters;
  /** what containers pin memory with */
  readonly pinning: Pinning;
  /** where no-iommu groups get their numbers; absent: this machine can have none */
  readonly iommuGroups: GroupTable | undefined;
  /** by index; a free index is undefined */
  readonly devices: (VfioDevice | undefined)[];
  readonly groups: VfioGroup[];
  /** called synchronously, in Linux's order */
  readonly listeners: VfioListener[];
};

/** Something with a node came or went. */
export type VfioEvent =
  | { readonly action: 'add' | 'remove'; readonly group: VfioGroup }
  | { readonly action: 'add' | 'remove'; readonly device: VfioDevice };

export type VfioListener = (event: VfioEvent) => void;

/** A device that its driver registered, until the driver has it back. */
export type VfioDevice = {
  readonly index: number;
  readonly iommu: IommuDevice;
  readonly group: VfioGroup;
  readonly ops: VfioDeviceOps;
  /** opens that the driver's open_device covers */
  openCount: number;
  /** bound through its own node, not through the group */
  cdevOpened: boolean;
  /** driver plus open files */
  users: number;
  /** set while unregistering: what to do when the last user has gone */
  whenIdle: (() => void) | undefined;
  /** the IOMMUFD that the device is bound to */
  binding: IommufdBinding | undefined;
  /** the RID is attached through that IOMMUFD */
  attached: boolean;
  /** PASIDs that are attached through it */
  readonly pasids: Set<number>;
};

/** The VFIO side of an IOMMU group that has registered devices. */
export type VfioGroup = {
  readonly table: VfioTable;
  /** as owner of the IOMMU group, in refusals */
  readonly name: string;
  /** "7": the node is /dev/vfio/7; "noiommu-7" without IOMMU */
  readonly nodeName: string;
  /** made up for a device that no IOMMU translates */
  readonly noIommu: boolean;
  /** of the node: the lowest that was free */
  readonly minor: number;
  /** undefined once the last device has left: files that are still open are dead */
  iommuGroup: IommuGroup | undefined;
  /** registered devices, newest first */
  readonly devices: VfioDevice[];
  /** devices that are registered or waiting for their last file */
  drivers: number;
  /** the one open of the group file */
  opened: GroupOpen | undefined;
  container: Container | undefined;
  /** 1 for the container being set, 1 for each device that is open through it */
  containerUsers: number;
  iommufd: IommufdContext | undefined;
  /** devices that are bound through their own node */
  cdevOpenCount: number;
};

/** An open of a group file. */
export type GroupOpen = {
  readonly group: VfioGroup;
  /** 1 for the descriptor, 1 for each device that is open through a container */
  references: number;
};

/** /dev/vfio/vfio: groups that SET_IOMMU lets share a translation. */
export type Container = {
  /** newest first */
  readonly groups: VfioGroup[];
  /** set by SET_IOMMU */
  iommu: ContainerIommu | undefined;
  /** parameters of the modules; the defaults for a container that is opened by itself */
  readonly parameters: VfioParameters;
};

/** An open device: from its own node, where it is blind until BIND_IOMMUFD, or from a group, where it is live at once. */
export type DeviceOpen = {
  readonly device: VfioDevice;
  /** the group that gave it out; undefined for a device node */
  readonly group: VfioGroup | undefined;
  accessGranted: boolean;
  iommufd: IommufdContext | undefined;
};

export function newTable(
  parts: Pick<VfioTable, 'parameters' | 'pinning' | 'iommuGroups'>,
): VfioTable {
  return { ...parts, devices: [], groups: [], listeners: [] };
}

export function newDevice(
  index: number,
  place: { readonly iommu: IommuDevice; readonly group: VfioGroup },
  ops: VfioDeviceOps,
): VfioDevice {
  return {
    index,
    iommu: place.iommu,
    group: place.group,
    ops,
    openCount: 0,
    cdevOpened: false,
    users: 1,
    whenIdle: undefined,
    binding: undefined,
    attached: false,
    pasids: new Set(),
  };
}

/** @param iommuGroup with a reference for the VFIO group */
export function newGroup(table: VfioTable, iommuGroup: IommuGroup): VfioGroup {
  return {
    table,
    name: `the container of group ${iommuGroup.id}`,
    nodeName: `${iommuGroup.untranslated ? 'noiommu-' : ''}${iommuGroup.id}`,
    noIommu: iommuGroup.untranslated,
    minor: lowestFree(table.groups.map(({ minor }) => minor)),
    iommuGroup,
    devices: [],
    drivers: 0,
    opened: undefined,
    container: undefined,
    containerUsers: 0,
    iommufd: undefined,
    cdevOpenCount: 0,
  };
}

function lowestFree(used: readonly number[]): number {
  let free = 0;
  while (used.includes(free)) free++;
  return free;
}

export function newContainer(parameters = DEFAULT_PARAMETERS): Container {
  return { groups: [], iommu: undefined, parameters };
}

/** "vfio3": the node is /dev/vfio/devices/vfio3 */
export function deviceName({ index }: VfioDevice): string {
  return `vfio${index}`;
}
