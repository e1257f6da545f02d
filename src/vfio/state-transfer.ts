/**
 * The mutable fields of VFIO's state (state.ts), for whoever puts it down and takes it up again (`uiommu check`). A field that
 * is added there is transferred here, or state-transfer.test.ts fails.
 *
 * Lists are not transferred but rebuilt: which devices a table and a group have, which groups a container has. The order of
 * those lists and the index of a device are not kept; no rule asks for them.
 */
import type { Known, Transfer } from '../base/transfer.ts';
import type { IommuGroup } from '../iommu/group.ts';
import type { IommufdBinding, IommufdContext } from './iommufd.ts';
import type {
  Container,
  ContainerIommu,
  DeviceOpen,
  GroupOpen,
  VfioDevice,
  VfioGroup,
} from './state.ts';

export type VfioDeviceNames = {
  /** the one thing to do when a device that is being unregistered has no user any more */
  readonly whenIdle: Known<() => void>;
  /** one for each IOMMUFD */
  readonly bindings: Known<IommufdBinding>;
  readonly pasids: readonly number[];
};

export function transferVfioDevice(
  device: VfioDevice,
  io: Transfer,
  { whenIdle, bindings, pasids }: VfioDeviceNames,
): void {
  device.users = io.count('users', device.users, 4);
  device.openCount = io.count('opens', device.openCount, 3);
  device.cdevOpened = io.flag('opened by node', device.cdevOpened);
  device.whenIdle = io.one('unregistering', device.whenIdle, whenIdle);
  device.binding = io.one('binding', device.binding, bindings);
  device.attached = io.flag('attached', device.attached);
  for (const pasid of pasids) {
    if (io.flag('PASID attached', device.pasids.has(pasid))) device.pasids.add(pasid);
    else device.pasids.delete(pasid);
  }
}

export type VfioGroupNames = {
  readonly iommuGroups: Known<IommuGroup>;
  readonly opens: Known<GroupOpen>;
  readonly containers: Known<Container>;
  readonly contexts: Known<IommufdContext>;
};

export function transferVfioGroup(group: VfioGroup, io: Transfer, names: VfioGroupNames): void {
  group.iommuGroup = io.one('IOMMU group', group.iommuGroup, names.iommuGroups);
  group.drivers = io.count('drivers', group.drivers, 2);
  group.cdevOpenCount = io.count('opens by node', group.cdevOpenCount, 2);
  group.opened = io.one('group file', group.opened, names.opens);
  group.container = io.one('container', group.container, names.containers);
  group.containerUsers = io.count('container users', group.containerUsers, 3);
  group.iommufd = io.one('IOMMUFD', group.iommufd, names.contexts);
}

export function transferGroupOpen(open: GroupOpen, io: Transfer): void {
  open.references = io.count('references of the group file', open.references, 3);
}

export function transferContainer(
  container: Container,
  io: Transfer,
  drivers: Known<ContainerIommu>,
): void {
  container.iommu = io.one('IOMMU driver', container.iommu, drivers);
}

/** @param contexts what the file can be bound to */
export function transferDeviceOpen(
  open: DeviceOpen,
  io: Transfer,
  contexts: Known<IommufdContext>,
): void {
  open.accessGranted = io.flag('access', open.accessGranted);
  open.iommufd = io.one('IOMMUFD of the file', open.iommufd, contexts);
}
