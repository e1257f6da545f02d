/**
 * Why the members of one group are together, each reason once: merges of the same rule at the same place are told as one,
 * with everyone who lacks isolation.
 */
import { blame, listed, named, reasonOf } from '../iommu/group-reasons.ts';
import type { GroupView } from '../iommu/group-view.ts';
import type { Culprit, Merge } from '../iommu/pci-groups.ts';
import { slotOf } from '../machine/pci/address.ts';
import type { PciDevice } from '../machine/pci/device.ts';

export type Reason = {
  readonly sentence: string;
  /** members that are in the group because of it */
  readonly members: readonly PciDevice[];
};

type Draft = { readonly merge: Merge; readonly members: PciDevice[]; readonly culprits: Culprit[] };

/** @returns the reasons, in the order in which members joined; none where they are not known */
export function groupReasons(view: GroupView, members: readonly PciDevice[]): Reason[] {
  const drafts = new Map<string, Draft>();
  for (const member of members) {
    const merge = view.mergeOf(member);
    if (merge === undefined) continue;
    const key = placeOf(member, merge);
    const draft = drafts.get(key) ?? { merge, members: [], culprits: [] };
    drafts.set(key, draft);
    draft.members.push(member);
    draft.culprits.push(...merge.culprits);
  }
  return [...drafts.values()].map((draft) => ({
    sentence: sentenceOf(draft),
    members: draft.members,
  }));
}

/** What makes two merges the same reason. */
function placeOf(member: PciDevice, merge: Merge): string {
  switch (merge.rule) {
    case 'function-acs':
      return `slot ${member.bus.name}:${slotOf(merge.via.devfn)}`;
    case 'switch-acs':
      return `switch ${merge.via.bus.name}`;
    case 'upstream-acs':
      return `above ${merge.culprits.map(({ device }) => device.name).join(' ')}`;
    case 'bridge-alias':
    case 'dma-device':
      return `${merge.rule} ${merge.with.name}`;
    case 'shared-requester-id':
      return `id ${merge.via.name} ${merge.with.name}`;
  }
}

function sentenceOf({ merge, members, culprits }: Draft): string {
  const [first] = members;
  const names = listed(members.map(({ name }) => name));
  const together = blame(culprits);
  switch (merge.rule) {
    case 'function-acs':
      return `functions of one slot can reach each other: ${together}`;
    case 'switch-acs':
      return `ports of one switch can reach each other: ${together}`;
    case 'upstream-acs':
      return together;
    case 'bridge-alias':
      return `the DMA of ${names} reaches the IOMMU under the requester ID of ${named(merge.with)}`;
    case 'dma-device':
    case 'shared-requester-id':
      return first === undefined ? '' : reasonOf(first, merge);
  }
}
