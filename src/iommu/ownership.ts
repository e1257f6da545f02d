/**
 * Who owns the DMA of a group: the one place that decides, for device nodes, group files, containers and the driver core.
 *
 * State of a group: `owner` and `ownerCount`. Count 0: free. Count > 0 without owner: that many drivers do kernel DMA. Count > 0
 * with owner: user space holds that many claims. The two never mix, and both directions are asked here: a driver that
 * comes while user space owns the group is refused EBUSY before its probe, a claim while a driver does kernel DMA is
 * refused EPERM. Members without driver, and drivers that manage DMA themselves, are not counted.
 *
 * From claim to release every member is on the blocking domain or on a domain of the owner. Releasing cannot fail.
 *
 * Two paths use two kinds of owner: IOMMUFD claims per device with its context as owner, so that one context may claim
 * several members; a container claims the whole group once with VFIO's group as owner.
 *
 * After drivers/iommu/iommu.c: iommu_device_use_default_domain … iommu_group_dma_owner_claimed.
 */
import { Errno } from '../base/errno.ts';
import type { IommuDevice } from './domain.ts';
import {
  needBlockingDomain,
  ownerName,
  switchDomain,
  switchDomainForced,
  type Subgroup,
  type DmaOwner,
  type IommuGroup,
} from './group.ts';

/**
 * A driver is about to be probed and will do DMA through the kernel's API.
 * @param driver its name, for those who are refused because of it
 * @throws Errno EBUSY while user space owns the group, EPROBE_DEFER before the group has a default domain. Without group
 *   nothing is refused, unless the profile guards devices that could not join theirs (EBUSY)
 */
export function useDefaultDomain(device: IommuDevice, driver: string): void {
  const { group } = device;
  if (group === undefined) {
    refuseOrphan(device, driver);
    return;
  }
  if (group.defaultDomain === undefined) {
    throw new Errno('EPROBE_DEFER', `group ${group.id} has no default domain yet`);
  }
  if (group.ownerCount > 0 && isInUserHands(group) && group.enforces('probe-needs-unowned-group')) {
    throw new Errno(
      'EBUSY',
      `${driver} would do kernel DMA through ${device.name}, but group ${group.id} is owned by` +
        ` ${ownerName(group)}`,
    );
  }
  group.ownerCount++;
  device.kernelDriver = driver;
}

function refuseOrphan(device: IommuDevice, driver: string): void {
  const { orphanOf } = device;
  if (orphanOf?.table.profile.guardsOrphans !== true) return;
  if (!orphanOf.enforces('orphan-gets-no-driver')) return;
  throw new Errno(
    'EBUSY',
    `${driver} would do kernel DMA through ${device.name}, which belongs to group ${orphanOf.id} but could not join it`,
  );
}

/** The driver has let go of the device, or its probe failed. */
export function unuseDefaultDomain(device: IommuDevice): void {
  const { group } = device;
  device.kernelDriver = undefined;
  if (group !== undefined && group.ownerCount > 0) group.ownerCount--;
}

function isInUserHands(group: IommuGroup): boolean {
  return group.owner !== undefined || group.domain !== group.defaultDomain || group.hasAttachments;
}

/**
 * Claims a whole group for one owner, once (container path).
 * @throws Errno EPERM if anybody, the same owner included, uses it; EBUSY, EINVAL and the driver's errors from blocking
 */
export function claimGroup(group: IommuGroup, owner: DmaOwner): void {
  refuseKernelDma(group, owner);
  if (group.owner !== undefined && group.enforces('one-owner')) throw ownedError(group, owner);
  take(group, owner);
}

/**
 * Claims a device for an owner that may claim more members of the group (IOMMUFD path).
 * @throws Errno ENODEV without group; EPERM if another owner or a kernel driver uses the group, or profile singleton
 *   forbids company; EBUSY, EINVAL and the driver's errors from blocking
 */
export function claimDevice(device: IommuDevice, owner: DmaOwner): void {
  const group = device.requireGroup();
  refuseCompany(group, device);
  refuseKernelDma(group, owner);
  if (group.owner !== undefined) {
    if (group.owner !== owner && group.enforces('one-owner')) throw ownedError(group, owner);
    group.ownerCount++;
    return;
  }
  take(group, owner);
}

/** Profile singleton: device nodes and IOMMUFD are for devices that are alone in their group. */
export function mustBeAlone(group: IommuGroup): boolean {
  return group.table.profile.singletonNodes && group.enforces('one-device-per-group');
}

// Profile singleton: several devices in a group are the group file's business.
function refuseCompany(group: IommuGroup, device: IommuDevice): void {
  if (!mustBeAlone(group)) return;
  const others = group.members.filter((member) => member !== device);
  if (others.length === 0) return;
  const names = others.map(({ name }) => name).join(', ');
  throw new Errno(
    'EPERM',
    `profile singleton: ${device.name} shares group ${group.id} with ${names}; use the group file and a container`,
  );
}

function refuseKernelDma(group: IommuGroup, owner: DmaOwner): void {
  if (group.ownerCount === 0 || group.owner !== undefined) return;
  if (!group.enforces('claim-needs-no-kernel-dma')) return;
  const drivers = group.members.flatMap(({ name, kernelDriver }) =>
    kernelDriver === undefined ? [] : [`${name} is bound to ${kernelDriver}`],
  );
  const culprits = drivers.length > 0 ? drivers.join(', ') : 'one of its members has a driver';
  throw new Errno(
    'EPERM',
    `${owner.name} cannot own group ${group.id}: ${culprits}, which ${drivers.length > 1 ? 'do' : 'does'} kernel DMA`,
  );
}

function ownedError(group: IommuGroup, owner: DmaOwner): Errno {
  const who = group.owner === owner ? 'itself already' : `${ownerName(group)} already`;
  return new Errno('EPERM', `${owner.name} cannot own group ${group.id}: ${who} owns it`);
}

function take(group: IommuGroup, owner: DmaOwner): void {
  if (group.domain !== group.defaultDomain || group.hasAttachments) {
    if (group.enforces('one-owner')) {
      throw new Errno(
        'EBUSY',
        `group ${group.id} is on ${group.domain?.name ?? 'no domain'}, not on its default domain`,
      );
    }
  }
  if (group.enforces('claim-blocks-dma')) blockAll(group);
  else needBlockingDomain(group);
  group.owner = owner;
  group.ownerCount++;
}

// All subgroups or none: a later subgroup's refusal puts the earlier ones back.
function blockAll(group: IommuGroup): void {
  const blocking = needBlockingDomain(group);
  const moved: [Subgroup, Subgroup['domain']][] = [];
  for (const subgroup of group.subgroups) {
    const old = subgroup.domain;
    try {
      switchDomain(subgroup, blocking);
    } catch (error) {
      for (const [earlier, domain] of moved) {
        if (domain !== undefined) switchDomainForced(earlier, domain);
      }
      throw error;
    }
    moved.push([subgroup, old]);
  }
}

/** Ends the claim of {@link claimGroup}: back to the default domain. Cannot fail. */
export function releaseGroup(group: IommuGroup): void {
  if (group.owner === undefined) throw new Error(`group ${group.id} is released but not owned`);
  group.ownerCount = 0;
  group.owner = undefined;
  if (group.defaultDomain === undefined || !group.enforces('release-restores-default')) return;
  for (const subgroup of group.subgroups) switchDomainForced(subgroup, group.defaultDomain);
}

/** Ends one claim of {@link claimDevice}; the last one releases the group. Cannot fail. */
export function releaseDeviceClaim(device: IommuDevice): void {
  const group = device.requireGroup();
  if (group.ownerCount > 1) group.ownerCount--;
  else releaseGroup(group);
}

/** Somebody uses the group's DMA, kernel drivers included. A hint: it may change with the next call. */
export function isClaimed(group: IommuGroup): boolean {
  return group.ownerCount > 0;
}
