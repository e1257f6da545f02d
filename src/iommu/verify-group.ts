/**
 * What must be true of a group between any two calls, for `uiommu check`, `uiommu run --check` and tests. A violation is a bug of
 * uiommu, never of a client.
 *
 * Not here: who may own a group (ownership.ts refuses), and whose domains its owner may attach (iommufd/invariants.ts).
 */
import type { IommuGroup, Subgroup } from './group.ts';

/**
 * Every member is in one subgroup and on its domain, but for members in a reset window, which the subgroup counts.
 * @returns what is wrong, or undefined
 */
export function verifyGroup(group: IommuGroup): string | undefined {
  let placed = 0;
  for (const subgroup of group.subgroups) {
    placed += subgroup.members.length;
    const wrong = verifySubgroup(subgroup);
    if (wrong !== undefined) return wrong;
  }
  if (placed === group.members.length) return undefined;
  return `group ${group.id} has ${group.members.length} members, ${placed} of them in subgroups`;
}

function verifySubgroup({ members, domain, recoveryCount }: Subgroup): string | undefined {
  let blocked = 0;
  for (const device of members) {
    if (device.blocked) blocked++;
    else if (device.attached !== domain) {
      return `${device.name} is on ${String(device.attached?.name)}, its group on ${String(domain?.name)}`;
    }
  }
  if (blocked === recoveryCount) return undefined;
  return `${blocked} members are being reset, their group counts ${recoveryCount}`;
}
