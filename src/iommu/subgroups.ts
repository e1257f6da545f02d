/**
 * Subgroups: which members of a group can only have one page table together.
 *
 * Linux has one subgroup per group. In profile `subgroup` a member has a subgroup of its own when two things hold:
 * the IOMMU can *translate* by its source (no other member shares one of its requester IDs), and no other member can
 * *spoof* that source (every member's port validates the source, so that none can claim another's bus number). All
 * members that fail share one subgroup. A subgroup of one never takes in another member: should a device come later that
 * shares a requester ID with it, the newcomer is refused a place (EBUSY) while the group is owned, because its owner
 * built page tables on the promise; an unowned group is divided anew.
 *
 * No kernel has this; docs/profile-subgroup.md gives the rules in full.
 */
import { Errno } from '../base/errno.ts';
import type { IommuDevice } from './domain.ts';
import type { Subgroup, IommuGroup } from './group.ts';

/**
 * The subgroup that a new member belongs to, made if need be. The device is in `group.members` already, in no subgroup yet.
 * @throws Errno EBUSY: profile subgroup, and the newcomer would end the promise made to the owner
 */
export function subgroupFor(group: IommuGroup, device: IommuDevice): Subgroup {
  if (!group.table.profile.ownPageTables) return group.subgroups[0] ?? group.addSubgroup();
  if (group.owner !== undefined) return subgroupInUse(group, device);
  divideAnew(group, device);
  return isIdentifiable(group, device) ? addOnDomain(group) : restOf(group, addOnDomain);
}

/**
 * Divides the members of a group that user space does not own; all subgroups are on one domain then, and nobody relies on
 * the old division.
 * @param except a member that is being added and finds its subgroup itself
 */
export function divideAnew(group: IommuGroup, except?: IommuDevice): void {
  if (!group.table.profile.ownPageTables) return;
  const domain = group.subgroups[0]?.domain;
  group.subgroups.length = 0;
  let rest: Subgroup | undefined;
  for (const member of group.members) {
    if (member === except) continue;
    const subgroup = isIdentifiable(group, member)
      ? group.addSubgroup()
      : (rest ??= group.addSubgroup());
    subgroup.domain = domain;
    subgroup.members.push(member);
    if (member.blocked) subgroup.recoveryCount++;
  }
}

function addOnDomain(group: IommuGroup): Subgroup {
  const domain = group.subgroups[0]?.domain;
  const subgroup = group.addSubgroup();
  subgroup.domain = domain;
  return subgroup;
}

// The one subgroup of all members that cannot be told apart.
function restOf(group: IommuGroup, add: (group: IommuGroup) => Subgroup): Subgroup {
  const rest = group.subgroups.find(({ members }) =>
    members.some((member) => !isIdentifiable(group, member)),
  );
  return rest ?? add(group);
}

function subgroupInUse(group: IommuGroup, device: IommuDevice): Subgroup {
  const broken = group.subgroups
    .flatMap(({ members }) => members)
    .find((member) => hadOwn(group, member, device));
  if (broken !== undefined) {
    throw new Errno(
      'EBUSY',
      `${device.name} cannot be distinguished from ${broken.name}, to which` +
        ` ${String(group.owner?.name)} may have given a page table of its own`,
    );
  }
  // What nobody attached anything to yet starts where the core keeps an owned group.
  const addBlocked = (): Subgroup => {
    const subgroup = group.addSubgroup();
    subgroup.domain = group.blockingDomain;
    return subgroup;
  };
  return isIdentifiable(group, device) ? addBlocked() : restOf(group, addBlocked);
}

// Identifiable without the newcomer, not with it.
function hadOwn(group: IommuGroup, member: IommuDevice, newcomer: IommuDevice): boolean {
  const before = group.members.filter((other) => other !== newcomer);
  return identifiable(member, before) && !identifiable(member, group.members);
}

/** Both predicates, for one member of a group. */
export function isIdentifiable(group: IommuGroup, device: IommuDevice): boolean {
  if (!group.enforces('own-table-needs-own-source')) return true;
  return identifiable(device, group.members);
}

function identifiable(device: IommuDevice, members: readonly IommuDevice[]): boolean {
  const others = members.filter((member) => member !== device);
  return hasOwnRequesterIds(device, others) && isSpoofProof(device, others);
}

/** Predicate 1, translation: the IOMMU sees no request of another member under an ID of this one. */
export function hasOwnRequesterIds(device: IommuDevice, others: readonly IommuDevice[]): boolean {
  if (device.requesterIds.length === 0) return false;
  return !others.some(
    (other) =>
      other.requesterIds.length === 0 ||
      other.requesterIds.some((id) => device.requesterIds.includes(id)),
  );
}

/** Predicate 2, spoofing: every member's requests are checked where they enter, its own included. */
export function isSpoofProof(device: IommuDevice, others: readonly IommuDevice[]): boolean {
  return device.sourceValidated && others.every(({ sourceValidated }) => sourceValidated);
}
