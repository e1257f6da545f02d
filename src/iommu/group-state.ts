/**
 * The mutable state of groups, subgroups and devices, field by field, for whoever puts it down and takes it up again (`uiommu
 * check`). A field that is added to IommuGroup, Subgroup or IommuDevice is listed here, or group-state.test.ts fails.
 *
 * Not kept, because no rule asks for it: the order of members, whose handle an attachment has, and whether the blocking domain
 * was made already (it is made when it is first needed).
 *
 * Order of loading: {@link emptyGroup} for all groups, then {@link placeMember} for each member, and the fields of each.
 */
import type { EntryView, Fields, Known } from '../base/transfer.ts';
import type { Domain, IommuDevice } from './domain.ts';
import type { AttachHandle, Attachment, DmaOwner, IommuGroup, Subgroup } from './group.ts';

/** What a group's state can refer to. */
export type GroupNames = {
  readonly domains: Known<Domain>;
  readonly defaultDomains: Known<Domain>;
  readonly blockingDomain: Domain;
  readonly owners: Known<DmaOwner>;
  /** by which something may be attached, the RID (0) included */
  readonly pasids: readonly number[];
  /** of every attachment */
  readonly handle: AttachHandle;
};

/** What the state of one of its devices can refer to. */
export type DeviceNames = {
  readonly domains: Known<Domain>;
  /** the group that the device belongs to */
  readonly groups: Known<IommuGroup>;
  readonly kernelDrivers: Known<string>;
  /** that the device may have attached, without the RID */
  readonly pasids: readonly number[];
};

/** Takes all members out of a group that is about to be loaded. */
export function emptyGroup(group: IommuGroup): void {
  if (group.members.length === 0) return;
  // One by one: setting the length gives back the memory, which the next push allocates again.
  while (group.members.length > 0) group.members.pop();
  while (group.subgroups.length > 0) group.subgroups.pop();
}

/** Puts a device into a group that is being loaded. @param subgroup emptied if this is its first member */
export function placeMember(device: IommuDevice, subgroup: Subgroup): void {
  const { group } = subgroup;
  if (!group.subgroups.includes(subgroup)) {
    while (subgroup.members.length > 0) subgroup.members.pop();
    group.subgroups.push(subgroup);
  }
  device.group = group;
  group.members.push(device);
  subgroup.members.push(device);
}

export function deviceFields(
  fields: Fields<IommuDevice>,
  device: IommuDevice,
  { domains, groups, kernelDrivers, pasids }: DeviceNames,
): void {
  fields.one('attached', domains);
  for (const pasid of pasids) fields.entry('pasids', pasid, domains);
  fields.one('orphanOf', groups);
  fields.one('kernelDriver', kernelDrivers);
  if (device.reservedRegions.length > 0) fields.flag('requireDirect');
  if (device.atsSupported) {
    fields.flag('blocked');
    fields.count('resetDepth', 1);
  }
}

export function subgroupFields(
  fields: Fields<Subgroup>,
  { domains, pasids, handle }: GroupNames,
): void {
  fields.one('domain', domains);
  const attachment: EntryView<Attachment, Domain> = {
    read: ({ domain }) => domain,
    make: (domain) => ({ domain, handle }),
  };
  for (const pasid of pasids) fields.entry('pasidArray', pasid, domains, attachment);
  fields.count('recoveryCount', 2);
}

export function groupFields(fields: Fields<IommuGroup>, names: GroupNames): void {
  fields.one('owner', names.owners);
  fields.count('ownerCount', 4);
  fields.count('references', 3);
  fields.one('defaultDomain', names.defaultDomains);
  fields.follows('blockingDomain', 'defaultDomain', names.blockingDomain);
}
