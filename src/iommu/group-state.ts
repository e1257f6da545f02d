/**
 * The mutable state of groups, subgroups and devices, field by field, for whoever puts it down and takes it up again (`uiommu
 * check`). A field that is added to IommuGroup, Subgroup or IommuDevice is transferred here, or group-state.test.ts fails.
 *
 * Not kept, because no rule asks for it: the order of members, whose handle an attachment has, and whether the blocking domain
 * was made already (it is made when it is first needed).
 *
 * Order of loading: {@link emptyGroup} for all groups, then for each device {@link placeMember} and {@link transferDevice},
 * then {@link transferSubgroup} and {@link transferGroup}.
 */
import type { Known, Transfer } from '../base/transfer.ts';
import { NO_PASID } from './attach.ts';
import type { Domain, IommuDevice } from './domain.ts';
import type { AttachHandle, DmaOwner, IommuGroup, Subgroup } from './group.ts';

/** What a group's state can refer to. */
export type GroupNames = {
  readonly domains: Known<Domain>;
  readonly defaultDomains: Known<Domain>;
  readonly blockingDomain: Domain;
  readonly owners: Known<DmaOwner>;
  /** by which something may be attached, {@link NO_PASID} included */
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
  /** that the device may have attached, without {@link NO_PASID} */
  readonly pasids: readonly number[];
};

/** Takes all members out of a group that is about to be loaded. */
export function emptyGroup(group: IommuGroup): void {
  if (group.members.length === 0) return;
  group.members.length = 0;
  group.subgroups.length = 0;
}

/** Puts a device into a group that is being loaded. @param subgroup emptied if this is its first member */
export function placeMember(device: IommuDevice, subgroup: Subgroup): void {
  const { group } = subgroup;
  if (!group.subgroups.includes(subgroup)) {
    subgroup.members.length = 0;
    group.subgroups.push(subgroup);
  }
  device.group = group;
  group.members.push(device);
  subgroup.members.push(device);
}

export function transferDevice(device: IommuDevice, io: Transfer, names: DeviceNames): void {
  const { domains, groups, kernelDrivers } = names;
  device.attached = io.one('attached domain', device.attached, domains);
  for (const pasid of names.pasids) {
    const domain = io.one('attached domain of a PASID', device.pasids.get(pasid), domains);
    if (domain === undefined) device.pasids.delete(pasid);
    else device.pasids.set(pasid, domain);
  }
  device.orphanOf = io.one('orphan of', device.orphanOf, groups);
  device.kernelDriver = io.one('kernel driver', device.kernelDriver, kernelDrivers);
  if (device.reservedRegions.length > 0) {
    device.requireDirect = io.flag('require direct', device.requireDirect);
  }
  if (device.atsSupported) {
    device.blocked = io.flag('blocked', device.blocked);
    device.resetDepth = io.count('reset depth', device.resetDepth, 1);
  }
}

/** @param subgroup one that has members, or a pristine one in its place */
export function transferSubgroup(subgroup: Subgroup, io: Transfer, names: GroupNames): void {
  const { domains, pasids, handle } = names;
  subgroup.domain = io.one('domain', subgroup.domain, domains);
  for (const pasid of pasids) {
    const before = subgroup.pasidArray.get(pasid)?.domain;
    const name = pasid === NO_PASID ? 'domain of the RID' : 'domain of a PASID';
    const domain = io.one(name, before, domains);
    if (domain === before) continue;
    if (domain === undefined) subgroup.pasidArray.delete(pasid);
    else subgroup.pasidArray.set(pasid, { domain, handle });
  }
  subgroup.recoveryCount = io.count('members in reset', subgroup.recoveryCount, 2);
}

export function transferGroup(group: IommuGroup, io: Transfer, names: GroupNames): void {
  group.owner = io.one('owner', group.owner, names.owners);
  group.ownerCount = io.count('owner count', group.ownerCount, 4);
  group.references = io.count('references', group.references, 3);
  group.defaultDomain = io.one('default domain', group.defaultDomain, names.defaultDomains);
  if (io.loads) {
    group.blockingDomain = group.defaultDomain === undefined ? undefined : names.blockingDomain;
  }
}
