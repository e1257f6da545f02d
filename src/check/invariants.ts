/**
 * What must hold in every state, whatever happened before. Each is one function with a name; the first that fails ends the
 * exploration, and its text ends the story.
 *
 * Where it says "the group" it means the devices that cannot be isolated from one another, whether or not Linux got them all
 * into one group object: a device that failed to join is as dangerous as one that did.
 */
import { NO_PASID } from '../iommu/attach.ts';
import type { IommuGroup } from '../iommu/group.ts';
import { hasOwnRequesterIds, isSpoofProof } from '../iommu/subgroups.ts';
import { verifyGroup } from '../iommu/verify-group.ts';
import type { DeviceOpen } from '../vfio/state.ts';
import { DOMAIN, userOfDomain } from './cells.ts';
import type { CheckedIommufd } from './iommufd.ts';
import type { World } from './world.ts';

export type Invariant = {
  readonly name: string;
  /** what it demands, for documentation */
  readonly demands: string;
  /** @returns what is wrong, or undefined */
  broken(world: World): string | undefined;
};

function nameOf(world: World, d: number): string {
  return world.machine.devices[d]?.name ?? '';
}

function* devicesOf(world: World, g: number): Generator<number> {
  for (let d = 0; d < world.devices.length; d++) {
    if (world.groupIndex(d) === g && world.isPresent(d)) yield d;
  }
}

function doesKernelDma(world: World, d: number): boolean {
  return world.bus[d]?.driver?.managedDma === false;
}

/** Open files of a device, of whatever kind. */
function usersOf(world: World, d: number): number {
  return countOpens(world, d, () => true);
}

/** Files with access to a device. */
function opensOf(world: World, d: number): number {
  return countOpens(world, d, ({ accessGranted }) => accessGranted);
}

function countOpens(world: World, d: number, counts: (open: DeviceOpen) => boolean): number {
  let count = 0;
  for (let u = 0; u < world.users.length; u++) {
    const slot = world.slot(u, d);
    const node = world.nodes[slot];
    const groupDevice = world.groupDevices[slot];
    if (node !== undefined && counts(node)) count++;
    if (groupDevice !== undefined && counts(groupDevice)) count++;
  }
  return count;
}

/** A user has the device through its own node. */
function hasBoundNode(world: World, d: number): boolean {
  return world.users.some((_, u) => world.nodes[world.slot(u, d)]?.accessGranted === true);
}

/** The group is in a container, whose claim counts once. */
function inContainer(world: World, g: number): boolean {
  const behind = world.behind(g);
  return behind === 'container' || behind === 'type1';
}

/** The user whose domains a group may be on; -1 while nobody, or only a container without file, owns it. */
function owningUser(world: World, g: number): number {
  const owner = world.groups[g]?.owner;
  if (owner === undefined) return -1;
  const user = world.inventory.userOf(owner);
  return user >= 0 ? user : (world.holder(g) ?? -1);
}

function kernelOrUser(world: World): string | undefined {
  for (const [g, group] of world.groups.entries()) {
    for (const d of devicesOf(world, g)) {
      if (!doesKernelDma(world, d)) continue;
      if (group.owner !== undefined) {
        return `${String(world.machine.devices[d]?.kernelDriver)} does kernel DMA through ${nameOf(world, d)} while ${group.owner.name} owns the group`;
      }
      for (const other of devicesOf(world, g)) {
        if (opensOf(world, other) > 0) {
          return `kernel DMA through ${nameOf(world, d)} while user space has access to ${nameOf(world, other)}`;
        }
      }
    }
  }
  return undefined;
}

function oneOwner(world: World): string | undefined {
  for (const g of world.groups.keys()) {
    let first: CheckedIommufd | undefined;
    for (const d of devicesOf(world, g)) {
      const context = world.boundTo(d);
      if (context === undefined) continue;
      if (first !== undefined && first !== context) {
        return 'two users have devices of one group bound';
      }
      first = context;
    }
    if (first !== undefined && inContainer(world, g)) {
      return 'an IOMMUFD and a container own one group';
    }
  }
  return undefined;
}

function ownMemoryOnly(world: World): string | undefined {
  for (const g of world.groups.keys()) {
    const owner = owningUser(world, g);
    for (const d of devicesOf(world, g)) {
      const device = world.devices[d];
      if (device?.group === undefined) continue;
      const domains = [device.attached, ...device.pasids.values()];
      for (const domain of domains) {
        const number = world.domainNumber(domain);
        const user = userOfDomain(number);
        if (user >= 0 && user !== owner) {
          return `${device.name} reaches ${String(domain?.name)}, which does not own the group`;
        }
        if (world.groups[g]?.owner !== undefined && number === DOMAIN.default) {
          return `${device.name} is on the default domain although the group is owned`;
        }
      }
    }
  }
  return undefined;
}

function blockedUntilAttached(world: World): string | undefined {
  for (const [g, group] of world.groups.entries()) {
    if (group.owner === undefined) continue;
    for (const subgroup of group.subgroups) {
      const attached = subgroup.pasidArray.has(NO_PASID) || world.behind(g) === 'type1';
      if (attached) continue;
      const reaching = subgroup.members.find(
        ({ attached: domain }) => world.domainNumber(domain) !== DOMAIN.blocked,
      );
      if (reaching !== undefined) {
        return `${reaching.name} reaches ${String(reaching.attached?.name)} although nothing is attached`;
      }
    }
  }
  return undefined;
}

function nothingInReset(world: World): string | undefined {
  for (const g of world.groups.keys()) {
    for (const d of devicesOf(world, g)) {
      const device = world.devices[d];
      if (device?.blocked !== true) continue;
      if (world.domainNumber(device.attached) !== DOMAIN.blocked || device.pasids.size > 0) {
        return `${device.name} does DMA while it is being reset`;
      }
    }
  }
  return undefined;
}

function defaultWhenFree(world: World): string | undefined {
  for (const group of world.groups) {
    if (group.owner !== undefined) continue;
    const wrong = group.subgroups.find(({ domain }) => domain !== group.defaultDomain);
    if (wrong !== undefined) {
      return `the group has no owner, yet it is on ${String(wrong.domain?.name)}`;
    }
  }
  return undefined;
}

function claimsEnd(world: World): string | undefined {
  for (const [g, group] of world.groups.entries()) {
    const expected = expectedCount(world, g, group);
    if (group.ownerCount !== expected) {
      return `the group counts ${group.ownerCount} users, there are ${expected}`;
    }
  }
  return undefined;
}

function expectedCount(world: World, g: number, group: IommuGroup): number {
  let kernel = 0;
  let bound = 0;
  for (const d of devicesOf(world, g)) {
    if (!world.isMember(d)) continue;
    if (doesKernelDma(world, d)) kernel++;
    if (world.boundTo(d) !== undefined) bound++;
  }
  if (inContainer(world, g)) return 1 + kernel;
  return group.owner === undefined ? kernel : bound + kernel;
}

function oneDomain(world: World): string | undefined {
  for (const group of world.groups) {
    const wrong = verifyGroup(group);
    if (wrong !== undefined) return wrong;
  }
  return undefined;
}

function toldApart(world: World): string | undefined {
  for (const group of world.groups) {
    for (const device of group.members) {
      for (const other of group.members) {
        if (device.attached === other.attached || device.blocked || other.blocked) continue;
        if (!hasOwnRequesterIds(device, [other]) || !isSpoofProof(device, [other])) {
          return `${device.name} and ${other.name} are on different page tables, but the IOMMU cannot distinguish them`;
        }
      }
    }
  }
  return undefined;
}

function oneDoor(world: World): string | undefined {
  for (const g of world.groups.keys()) {
    if (world.vfioGroup(g)?.opened === undefined) continue;
    for (const d of devicesOf(world, g)) {
      if (hasBoundNode(world, d)) {
        return `the group file is open and ${nameOf(world, d)} is bound by its node`;
      }
    }
  }
  return undefined;
}

function driverOutlivesUsers(world: World): string | undefined {
  for (let d = 0; d < world.devices.length; d++) {
    if (world.bus[d]?.driver === world.inventory.vfioPci) continue;
    if (usersOf(world, d) > 0) return `${nameOf(world, d)} is open, but vfio-pci is gone`;
  }
  return undefined;
}

function mappedOneToOne(world: World): string | undefined {
  for (const group of world.groups) {
    const blocked = group.members.find(
      (device) => device.requireDirect && world.domainNumber(device.attached) !== DOMAIN.default,
    );
    if (blocked !== undefined) {
      return `firmware's mapping of ${blocked.name} is gone: it is on ${String(blocked.attached?.name)}`;
    }
  }
  return undefined;
}

function oneBoundNode(world: World): string | undefined {
  if (world.options.profile !== 'singleton') return undefined;
  for (const g of world.groups.keys()) {
    const bound = [...devicesOf(world, g)].filter((d) => world.boundTo(d) !== undefined);
    if (bound.length > 1) return 'two devices of one group are bound to an IOMMUFD';
  }
  return undefined;
}

export const INVARIANTS: readonly Invariant[] = [
  {
    name: 'kernel-or-user',
    demands: 'never one member under kernel DMA and another owned by user space',
    broken: kernelOrUser,
  },
  { name: 'one-owner', demands: 'a group has one owner', broken: oneOwner },
  {
    name: 'own-memory-only',
    demands: 'a device reaches nothing or memory of its owner',
    broken: ownMemoryOnly,
  },
  {
    name: 'blocked-until-attached',
    demands: 'a device whose group is claimed and not attached reaches nothing (R21)',
    broken: blockedUntilAttached,
  },
  {
    name: 'nothing-in-reset',
    demands: 'a device in its reset window does no DMA',
    broken: nothingInReset,
  },
  {
    name: 'default-when-free',
    demands: 'a group without owner is on its default domain',
    broken: defaultWhenFree,
  },
  {
    name: 'claims-end',
    demands: 'users are counted, and the last close frees',
    broken: claimsEnd,
  },
  {
    name: 'one-domain',
    demands: 'all members of a subgroup see one domain',
    broken: oneDomain,
  },
  {
    name: 'distinguishable',
    demands: 'different page tables only for devices that can be distinguished (R7)',
    broken: toldApart,
  },
  {
    name: 'one-interface',
    demands: 'group file and device nodes exclude each other',
    broken: oneDoor,
  },
  {
    name: 'driver-outlives-users',
    demands: 'the driver stays until the last file is closed',
    broken: driverOutlivesUsers,
  },
  {
    name: 'mapped-one-to-one',
    demands: 'what firmware wants mapped stays mapped',
    broken: mappedOneToOne,
  },
  {
    name: 'one-bound-node',
    demands: 'profile singleton: one device per group is bound (R5)',
    broken: oneBoundNode,
  },
];

/** The first invariant that does not hold, with what is wrong. */
export function brokenInvariant(world: World): { invariant: Invariant; what: string } | undefined {
  for (const invariant of INVARIANTS) {
    const what = invariant.broken(world);
    if (what !== undefined) return { invariant, what };
  }
  return undefined;
}
