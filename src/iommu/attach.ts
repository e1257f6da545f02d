/**
 * Attaching the domains of an owner: by RID with a handle, by PASID, and the reset window that suspends both.
 *
 * Everything acts on a subgroup (group.ts): in Linux that is the whole group, so one member's attach, replace or detach moves
 * all. Refusals leave the subgroup as it was; detaching cannot fail. A reset parks one device on the blocking domain without
 * touching what its subgroup is attached to; attaching is refused until it ends, detaching takes effect when it ends.
 *
 * After drivers/iommu/iommu.c: iommu_attach_group_handle, iommu_replace_group_handle, iommu_detach_group_handle,
 * iommu_attach_device_pasid, iommu_replace_device_pasid, iommu_detach_device_pasid, iommu_attach_handle_get,
 * pci_dev_reset_iommu_prepare, pci_dev_reset_iommu_done.
 */
import { Errno } from '../base/errno.ts';
import { domainFits, type Domain, type DomainKind, type IommuDevice } from './domain.ts';
import {
  attachDevice,
  needBlockingDomain,
  setCoreDomain,
  switchDomain,
  type AttachHandle,
  type Subgroup,
} from './group.ts';

/** The key of the RID among the handles of a subgroup (IOMMU_NO_PASID). */
export const NO_PASID = 0;

function ops(subgroup: Subgroup): IommuDevice['ops'] {
  const [first] = subgroup.members;
  if (first === undefined)
    throw new Error(`a subgroup of group ${subgroup.group.id} has no member`);
  return first.ops;
}

/**
 * Attaches without a handle, as kernel users and type 1 containers do.
 * @throws Errno EBUSY over a domain that is not the core's own, EINVAL for a domain of another IOMMU driver (try another
 *   one), the driver's errors
 */
export function attachSubgroup(subgroup: Subgroup, domain: Domain): void {
  const { group, domain: current } = subgroup;
  const core: readonly unknown[] = [undefined, group.defaultDomain, group.blockingDomain];
  if (!core.includes(current)) {
    throw new Errno('EBUSY', `group ${group.id} is attached to ${String(current?.name)} already`);
  }
  if (!domainFits(ops(subgroup), domain)) {
    throw new Errno(
      'EINVAL',
      `${domain.name} was made for ${domain.owner?.name ?? 'another IOMMU'}, group ${group.id} is behind ${ops(subgroup).name}`,
    );
  }
  switchDomain(subgroup, domain);
}

/** Undoes {@link attachSubgroup}: back to blocking while owned, to the default domain otherwise. */
export function detachSubgroup(subgroup: Subgroup): void {
  setCoreDomain(subgroup);
}

/** {@link attachSubgroup} for the RID, with a handle. EBUSY if the RID has one. */
export function attachGroupHandle(subgroup: Subgroup, domain: Domain, handle: AttachHandle): void {
  if (subgroup.pasidArray.has(NO_PASID)) {
    throw new Errno(
      'EBUSY',
      `group ${subgroup.group.id} is attached to ${String(subgroup.domain?.name)}`,
    );
  }
  attachSubgroup(subgroup, domain);
  store(subgroup, NO_PASID, domain, handle);
}

/** Moves the RID to another domain without a stop on the blocking domain. Over a core domain: as attach. */
export function replaceGroupHandle(subgroup: Subgroup, domain: Domain, handle: AttachHandle): void {
  switchDomain(subgroup, domain);
  store(subgroup, NO_PASID, domain, handle);
}

export function detachGroupHandle(subgroup: Subgroup): void {
  setCoreDomain(subgroup);
  subgroup.pasidArray.delete(NO_PASID);
}

function store(subgroup: Subgroup, pasid: number, domain: Domain, handle?: AttachHandle): void {
  if (handle !== undefined) handle.domain = domain;
  subgroup.pasidArray.set(pasid, { domain, handle });
}

/**
 * The handle under a key.
 * @param kind the kind that its domain must have; undefined for any
 * @throws Errno ENOENT without handle, EBUSY for another kind
 */
export function attachHandleGet(
  subgroup: Subgroup,
  pasid: number,
  kind?: DomainKind,
): AttachHandle {
  const handle = subgroup.pasidArray.get(pasid)?.handle;
  if (handle === undefined) {
    throw new Errno('ENOENT', `nothing with a handle is attached to PASID ${pasid}`);
  }
  if (kind !== undefined && handle.domain?.kind !== kind) {
    throw new Errno(
      'EBUSY',
      `PASID ${pasid} is attached to a ${String(handle.domain?.kind)} domain`,
    );
  }
  return handle;
}

/**
 * Attaches a PASID of every member that has PASIDs.
 * @throws Errno ENODEV, EOPNOTSUPP, EINVAL, EBUSY (reset window, or the PASID is attached), the driver's errors
 */
export function attachDevicePasid(
  device: IommuDevice,
  pasid: number,
  domain: Domain,
  handle?: AttachHandle,
): void {
  const subgroup = device.requireGroup().subgroupOf(device);
  if (device.ops.blockedDomain?.setDevicePasid === undefined) throw noPasid(device);
  refusePasid(device, pasid, domain);
  refuseInReset(subgroup);
  for (const member of subgroup.members) {
    if (member.maxPasids > 0 && pasid >= member.maxPasids) {
      throw new Errno(
        'EINVAL',
        `${member.name} has PASIDs below ${member.maxPasids}, not ${pasid}`,
      );
    }
  }
  const current = subgroup.pasidArray.get(pasid);
  if (current !== undefined) {
    throw new Errno('EBUSY', `PASID ${pasid} is attached to ${current.domain.name} already`);
  }
  setSubgroupPasid(subgroup, pasid, domain, undefined);
  store(subgroup, pasid, domain, handle);
}

/** Moves an attached PASID to another domain. EINVAL if it is not attached, else as {@link attachDevicePasid}. */
export function replaceDevicePasid(
  device: IommuDevice,
  pasid: number,
  domain: Domain,
  handle: AttachHandle,
): void {
  const subgroup = device.requireGroup().subgroupOf(device);
  refusePasid(device, pasid, domain);
  refuseInReset(subgroup);
  const current = subgroup.pasidArray.get(pasid);
  if (current === undefined) {
    throw new Errno('EINVAL', `PASID ${pasid} of ${device.name} is not attached`);
  }
  if (current.domain !== domain) setSubgroupPasid(subgroup, pasid, domain, current.domain);
  store(subgroup, pasid, domain, handle);
}

/** Members in a reset window lost the PASID when it began. */
export function detachDevicePasid(device: IommuDevice, pasid: number): void {
  const subgroup = device.requireGroup().subgroupOf(device);
  for (const member of subgroup.members) {
    if (!member.blocked && member.maxPasids > 0) removePasid(member, pasid);
  }
  subgroup.pasidArray.delete(pasid);
}

function noPasid(device: IommuDevice): Errno {
  return new Errno('EOPNOTSUPP', `the IOMMU of ${device.name} cannot attach PASIDs`);
}

function refusePasid(device: IommuDevice, pasid: number, domain: Domain): void {
  if (domain.setDevicePasid === undefined) throw noPasid(device);
  if (!domainFits(device.ops, domain)) {
    throw new Errno('EINVAL', `${domain.name} was not made for the IOMMU of ${device.name}`);
  }
  if (pasid === NO_PASID) throw new Errno('EINVAL', 'PASID 0 stands for requests without PASID');
}

function refuseInReset(subgroup: Subgroup): void {
  if (subgroup.recoveryCount === 0 || !subgroup.group.enforces('reset-fences-attach')) return;
  const names = subgroup.members.filter(({ blocked }) => blocked).map(({ name }) => name);
  throw new Errno('EBUSY', `${names.join(', ')} of group ${subgroup.group.id} is being reset`);
}

function setSubgroupPasid(
  subgroup: Subgroup,
  pasid: number,
  domain: Domain,
  old: Domain | undefined,
): void {
  const moved: IommuDevice[] = [];
  for (const member of subgroup.members) {
    if (member.maxPasids === 0) continue;
    try {
      setPasid(member, pasid, domain, old);
    } catch (error) {
      for (const earlier of moved) revertPasid(earlier, pasid, old);
      throw error;
    }
    moved.push(member);
  }
}

function setPasid(
  device: IommuDevice,
  pasid: number,
  domain: Domain,
  old: Domain | undefined,
): void {
  if (domain.setDevicePasid === undefined) throw noPasid(device);
  domain.setDevicePasid(device, pasid, old);
  device.pasids.set(pasid, domain);
}

function revertPasid(device: IommuDevice, pasid: number, old: Domain | undefined): void {
  if (old === undefined) {
    removePasid(device, pasid);
    return;
  }
  try {
    setPasid(device, pasid, old, device.pasids.get(pasid));
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    removePasid(device, pasid);
  }
}

// The blocking domain takes any PASID back; a driver that refuses is broken, and the PASID counts as gone.
function removePasid(device: IommuDevice, pasid: number): void {
  tolerate(() => {
    device.ops.blockedDomain?.setDevicePasid?.(device, pasid, device.pasids.get(pasid));
  });
  device.pasids.delete(pasid);
}

/**
 * Opens the reset window of a device: its RID and PASIDs stop, what its subgroup is attached to stays. Nests.
 * Only devices with ATS need it; for others nothing happens.
 * @throws Errno the driver's, with the window not open
 */
export function prepareReset(device: IommuDevice): void {
  const { group } = device;
  if (!device.atsSupported || group === undefined) return;
  if (device.resetDepth > 0) {
    device.resetDepth++;
    return;
  }
  const subgroup = group.subgroupOf(device);
  const blocking = needBlockingDomain(group);
  if (subgroup.domain !== blocking) attachDevice(device, blocking);
  device.resetDepth = 1;
  device.blocked = true;
  for (const pasid of [...device.pasids.keys()]) removePasid(device, pasid);
  subgroup.recoveryCount++;
}

/** Closes the window: the device is on its subgroup's domain and PASIDs of this moment. Pairs with {@link prepareReset}. */
export function finishReset(device: IommuDevice): void {
  const { group } = device;
  if (!device.atsSupported || group === undefined) return;
  if (device.resetDepth === 0) throw new Error(`${device.name} is not in a reset window`);
  if (--device.resetDepth > 0) return;
  const subgroup = group.subgroupOf(device);
  device.blocked = false;
  subgroup.recoveryCount--;
  const { domain: target } = subgroup;
  if (target !== undefined && target !== device.attached) {
    tolerate(() => {
      attachDevice(device, target);
    });
  }
  if (device.maxPasids === 0) return;
  for (const [pasid, { domain }] of subgroup.pasidArray) {
    if (pasid !== NO_PASID) {
      tolerate(() => {
        setPasid(device, pasid, domain, undefined);
      });
    }
  }
}

// Should the driver refuse, the device or PASID stays blocked: nothing better is safe.
function tolerate(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
  }
}
