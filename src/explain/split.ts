/**
 * What would part devices that share a group: tried before it is said. The groups are formed again as if the named devices
 * were isolated, until the devices are apart or nothing is left to try.
 *
 * Only missing isolation can be mended (ACS turned on, or a port that has it); a shared requester ID cannot, there the
 * device has to sit somewhere else.
 */
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { formGroups, type GroupBuilder } from '../iommu/group-builder.ts';
import type { Culprit } from '../iommu/pci-groups.ts';
import { PROFILES, type ProfileName } from '../iommu/profile.ts';
import { acsComplaint, mergesBetween, named, reasonOf, type Tie } from '../iommu/group-reasons.ts';

export type Change = {
  readonly device: PciDevice;
  /** the capability is there and only turned off: a boot option can turn it on */
  readonly switchable: boolean;
  /** "turn on ACS at root port 00:1c.0 (it has ACS with request redirect turned off)" */
  readonly sentence: string;
};

export type SplitPlan = {
  /** together they part the device from everything in `parted` */
  readonly changes: readonly Change[];
  readonly parted: readonly PciDevice[];
  /** members that stay with the device whatever is changed, with the reason */
  readonly inseparable: readonly { readonly device: PciDevice; readonly because: string }[];
};

/** The machine formed again with `isolated` counting as isolated. */
function formWith(
  machine: Machine,
  profile: ProfileName,
  isolated: ReadonlySet<PciDevice>,
): GroupBuilder {
  const { strictAcs } = PROFILES[profile];
  return formGroups(machine, { strictAcs, assumeIsolated: isolated });
}

function mendable({ verdict }: Culprit): boolean {
  const { cause } = verdict;
  if (cause.kind === 'quirk') return cause.quirk.rule === 'intel-spt';
  return cause.kind === 'control' || cause.kind === 'no-capability';
}

/** Devices that have to become isolated for this merge not to happen; undefined if that cannot help. */
function cureOf({ merge }: Tie): readonly Culprit[] | undefined {
  const { culprits } = merge;
  switch (merge.rule) {
    case 'bridge-alias':
    case 'dma-device':
    case 'shared-requester-id':
      return undefined;
    case 'upstream-acs':
      return culprits.every(mendable) ? culprits : undefined;
    case 'function-acs':
    case 'switch-acs': {
      // Either of the two suffices.
      const one = culprits.find(mendable);
      return one === undefined ? undefined : [one];
    }
  }
}

function changeOf({ device, verdict }: Culprit): Change {
  const complaint = acsComplaint(verdict.cause).replace(/^has ACS/, 'it has it');
  const { kind } = verdict.cause;
  const switchable = kind === 'control' || kind === 'quirk';
  const sentence = switchable
    ? `turn on ACS at ${named(device)} (${complaint}; boot option pci=config_acs=, or firmware)`
    : `${named(device)} would have to be one with ACS (this one ${acsComplaint(verdict.cause)})`;
  return { device, switchable, sentence };
}

/**
 * Finds what would leave `device` alone in its group, or as alone as it can be.
 * @param profile the profile under which the groups were formed
 */
export function planSplit(
  machine: Machine,
  device: PciDevice,
  profile: ProfileName = 'linux',
): SplitPlan {
  const isolated = new Set<PciDevice>();
  const changes: Change[] = [];
  const inseparable = new Map<PciDevice, string>();
  let builder = formWith(machine, profile, isolated);
  const before = membersWith(builder, device);
  for (;;) {
    const other = membersWith(builder, device).find((member) => !inseparable.has(member));
    if (other === undefined) break;
    const current = builder;
    const ties = mergesBetween(device, other, (member) => current.mergeOf(member));
    const cure = ties.map(cureOf).find((candidate) => candidate !== undefined);
    if (cure === undefined) {
      inseparable.set(other, ties.map((tie) => reasonOf(tie.device, tie.merge)).join(', and '));
      continue;
    }
    for (const culprit of cure) {
      if (isolated.has(culprit.device)) continue;
      isolated.add(culprit.device);
      changes.push(changeOf(culprit));
    }
    builder = formWith(machine, profile, isolated);
  }
  return {
    changes,
    parted: before.filter((member) => !inseparable.has(member)),
    inseparable: [...inseparable].map(([member, because]) => ({ device: member, because })),
  };
}

function membersWith(builder: GroupBuilder, device: PciDevice): PciDevice[] {
  return (builder.groupOf(device)?.members ?? []).filter((member) => member !== device);
}
