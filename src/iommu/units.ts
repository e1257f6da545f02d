/**
 * Units: which members of a group can only have one page table together.
 *
 * Linux has one unit per group. In profile `subgroup` a member has a unit of its own when two things hold:
 * the IOMMU can *translate* by its source (no other member shares one of its requester IDs), and no other member can
 * *spoof* that source (every member's port validates the source, so that none can claim another's bus number). All
 * members that fail share one unit. A unit of one never takes in another member: should a device come later that
 * shares a requester ID with it, the newcomer is refused a place (EBUSY) while the group is owned, because its owner
 * built page tables on the promise; an unowned group is divided anew.
 *
 * No kernel has this; docs/profile-subgroup.md gives the rules in full.
 */
import { Errno } from '../base/errno.ts';
import type { IommuDevice } from './domain.ts';
import type { AttachUnit, IommuGroup } from './group.ts';

/**
 * The unit that a new member belongs to, made if need be. The device is in `group.members` already, in no unit yet.
 * @throws Errno EBUSY: profile subgroup, and the newcomer would end the promise made to the owner
 */
export function unitFor(group: IommuGroup, device: IommuDevice): AttachUnit {
  if (!group.table.profile.ownPageTables) return group.units[0] ?? group.addUnit();
  if (group.owner !== undefined) return unitInUse(group, device);
  divideAnew(group, device);
  return isIdentifiable(group, device) ? addOnDomain(group) : restOf(group, addOnDomain);
}

/**
 * Divides the members of a group that user space does not own; all units are on one domain then, and nobody relies on
 * the old division.
 * @param except a member that is being added and finds its unit itself
 */
export function divideAnew(group: IommuGroup, except?: IommuDevice): void {
  if (!group.table.profile.ownPageTables) return;
  const domain = group.units[0]?.domain;
  group.units.length = 0;
  let rest: AttachUnit | undefined;
  for (const member of group.members) {
    if (member === except) continue;
    const unit = isIdentifiable(group, member) ? group.addUnit() : (rest ??= group.addUnit());
    unit.domain = domain;
    unit.members.push(member);
    if (member.blocked) unit.recoveryCount++;
  }
}

function addOnDomain(group: IommuGroup): AttachUnit {
  const domain = group.units[0]?.domain;
  const unit = group.addUnit();
  unit.domain = domain;
  return unit;
}

// The one unit of all members that cannot be told apart.
function restOf(group: IommuGroup, add: (group: IommuGroup) => AttachUnit): AttachUnit {
  const rest = group.units.find(({ members }) =>
    members.some((member) => !isIdentifiable(group, member)),
  );
  return rest ?? add(group);
}

function unitInUse(group: IommuGroup, device: IommuDevice): AttachUnit {
  const broken = group.units
    .flatMap(({ members }) => members)
    .find((member) => hadOwn(group, member, device));
  if (broken !== undefined) {
    throw new Errno(
      'EBUSY',
      `${device.name} cannot be told apart from ${broken.name}, to which` +
        ` ${String(group.owner?.name)} may have given a page table of its own`,
    );
  }
  // What nobody attached anything to yet starts where the core keeps an owned group.
  const addBlocked = (): AttachUnit => {
    const unit = group.addUnit();
    unit.domain = group.blockingDomain;
    return unit;
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
