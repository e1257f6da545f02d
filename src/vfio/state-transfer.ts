/**
 * The mutable fields of VFIO's state (state.ts), for whoever puts it down and takes it up again (`uiommu check`). A field that
 * is added there is listed here, or state-transfer.test.ts fails.
 *
 * Lists are not fields but rebuilt: which devices a table and a group have, which groups a container has. The order of
 * those lists and the index of a device are not kept; no rule asks for them.
 */
import type { Fields, Known } from '../base/transfer.ts';
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

export function vfioDeviceFields(
  fields: Fields<VfioDevice>,
  { whenIdle, bindings, pasids }: VfioDeviceNames,
): void {
  fields.count('users', 4);
  fields.count('openCount', 3);
  fields.flag('cdevOpened');
  fields.one('whenIdle', whenIdle);
  fields.one('binding', bindings);
  fields.flag('attached');
  for (const pasid of pasids) fields.member('pasids', pasid);
}

export type VfioGroupNames = {
  readonly iommuGroups: Known<IommuGroup>;
  readonly opens: Known<GroupOpen>;
  readonly containers: Known<Container>;
  readonly contexts: Known<IommufdContext>;
};

export function vfioGroupFields(fields: Fields<VfioGroup>, names: VfioGroupNames): void {
  fields.one('iommuGroup', names.iommuGroups);
  fields.count('drivers', 2);
  fields.count('cdevOpenCount', 2);
  fields.one('opened', names.opens);
  fields.one('container', names.containers);
  fields.count('containerUsers', 3);
  fields.one('iommufd', names.contexts);
}

export function groupOpenFields(fields: Fields<GroupOpen>): void {
  fields.count('references', 3);
}

export function containerFields(fields: Fields<Container>, drivers: Known<ContainerIommu>): void {
  fields.one('iommu', drivers);
}

/** @param contexts what the file can be bound to */
export function deviceOpenFields(
  fields: Fields<DeviceOpen>,
  contexts: Known<IommufdContext>,
): void {
  fields.flag('accessGranted');
  fields.one('iommufd', contexts);
}
