/**
 * Two machines compared: what came, went, moved, changed its driver, and which groups are others now.
 *
 * A device is known again by what it is (vendor, device, subsystem, function) and by its slots on the way down from the
 * root, not by its address alone: bus numbers move when a card is added. Groups are compared by their members: a group that
 * only has another number is said to be renumbered.
 */
import type { Machine } from '../machine/machine.ts';
import { REGISTER } from '../machine/pci/config-space.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { acsRegisters } from '../machine/pci/acs.ts';
import { acsBitList } from '../machine/pci/capabilities.ts';
import { formatDevfn } from '../machine/pci/address.ts';
import type { GroupView } from '../iommu/group-view.ts';
import { reasonOf, roleOf } from '../iommu/group-reasons.ts';

export type Difference = {
  readonly kind: 'added' | 'removed' | 'moved' | 'driver' | 'acs' | 'group' | 'renumbered';
  /** name in the second machine, where it is there */
  readonly device: string;
  readonly sentence: string;
};

type Pair = { readonly before: PciDevice; readonly after: PciDevice };

function kindKey(device: PciDevice): string {
  const { config } = device;
  const subsystem = device.isBridge ? 0 : config.u32(REGISTER.SUBSYSTEM_VENDOR);
  return [device.vendor, device.device, subsystem, device.isVirtualFunction].join(':');
}

/** Slots and functions from the root down: stays when bus numbers move. */
function slotPath(device: PciDevice): string {
  const above = device.bus.self;
  const own = formatDevfn(device.devfn);
  return above === undefined ? `${device.bus.name}/${own}` : `${slotPath(above)}/${own}`;
}

/** Which device of `before` is which of `after`: by address, else by slots, else by kind alone. */
function matchDevices(before: Machine, after: Machine): Pair[] {
  const left = new Set(before.devices);
  const right = new Set(after.devices);
  const pairs: Pair[] = [];
  for (const key of [
    (device: PciDevice) => `${device.name} ${kindKey(device)}`,
    (device: PciDevice) => `${slotPath(device)} ${kindKey(device)}`,
    kindKey,
  ]) {
    const waiting = new Map<string, PciDevice[]>();
    for (const device of right)
      waiting.set(key(device), [...(waiting.get(key(device)) ?? []), device]);
    for (const device of left) {
      const match = waiting.get(key(device))?.shift();
      if (match === undefined) continue;
      left.delete(device);
      right.delete(match);
      pairs.push({ before: device, after: match });
    }
  }
  return pairs;
}

/** What is different in the second machine. */
export function diffMachines(before: GroupView, after: GroupView): Difference[] {
  const pairs = matchDevices(before.machine, after.machine);
  const old = new Set(pairs.map((pair) => pair.before));
  const now = new Map(pairs.map((pair) => [pair.after, pair.before]));
  const removed = [...before.machine.devices].filter((device) => !old.has(device));
  const added = [...after.machine.devices].filter((device) => !now.has(device));
  return [
    ...removed.map((device) => ({
      kind: 'removed' as const,
      device: device.name,
      sentence: `${roleOf(device)} ${device.name} is gone${ofGroup(before, device)}`,
    })),
    ...added.map((device) => ({
      kind: 'added' as const,
      device: device.name,
      sentence: `${roleOf(device)} ${device.name} is new${ofGroup(after, device)}`,
    })),
    ...pairs.flatMap(deviceDifferences),
    ...groupDifferences(pairs, before, after),
  ];
}

function ofGroup(view: GroupView, device: PciDevice): string {
  const id = view.idOf(device);
  if (id === undefined) return ' (no group)';
  const others = view.membersWith(device).length - 1;
  return others === 0 ? ` (alone in group ${id})` : ` (group ${id}, with ${others} more)`;
}

function deviceDifferences({ before, after }: Pair): Difference[] {
  const found: Difference[] = [];
  const add = (kind: Difference['kind'], sentence: string): void => {
    found.push({ kind, device: after.name, sentence });
  };
  if (before.name !== after.name)
    add('moved', `${roleOf(after)} ${before.name} is now ${after.name}`);
  const [was, is] = [before.facts.driver ?? 'no driver', after.facts.driver ?? 'no driver'];
  if (was !== is) add('driver', `${after.name}: ${was}, now ${is}`);
  if (!before.config.complete || !after.config.complete) return found;
  const [acsBefore, acsAfter] = [acsWords(before), acsWords(after)];
  if (acsBefore !== acsAfter)
    add('acs', `${roleOf(after)} ${after.name}: ACS ${acsBefore}, now ${acsAfter}`);
  return found;
}

function acsWords(device: PciDevice): string {
  const registers = acsRegisters(device);
  if (registers === undefined) return 'none';
  const on = acsBitList(registers.control & registers.offered);
  return on.length === 0 ? 'off' : on.join('+');
}

function groupDifferences(
  pairs: readonly Pair[],
  before: GroupView,
  after: GroupView,
): Difference[] {
  const nowOf = new Map(pairs.map((pair) => [pair.before, pair.after]));
  const found: Difference[] = [];
  const renumbered = new Set<number>();
  for (const pair of pairs) {
    const [was, is] = [before.idOf(pair.before), after.idOf(pair.after)];
    const membersBefore = before.membersWith(pair.before);
    const membersAfter = after.membersWith(pair.after);
    const expected = new Set(membersBefore.map((member) => nowOf.get(member)));
    const joined = membersAfter.filter((member) => !expected.has(member));
    const left = [...expected].filter(
      (member) => member === undefined || !membersAfter.includes(member),
    );
    if ((was === undefined) === (is === undefined) && joined.length === 0 && left.length === 0) {
      if (was === is || is === undefined || renumbered.has(is)) continue;
      renumbered.add(is);
      found.push({
        kind: 'renumbered',
        device: pair.after.name,
        sentence: `group ${was ?? '-'} is now group ${is}`,
      });
      continue;
    }
    found.push({
      kind: 'group',
      device: pair.after.name,
      sentence: `${pair.after.name}: ${groupWords(was, membersBefore)}, now ${groupWords(is, membersAfter)}${because(after, pair.after)}`,
    });
  }
  return found;
}

const MOST_NAMES = 6;

function groupWords(id: number | undefined, members: readonly PciDevice[]): string {
  if (id === undefined) return 'no group';
  if (members.length === 1) return `alone in group ${id}`;
  const names = members.slice(0, MOST_NAMES).map(({ name }) => name);
  const more = members.length > MOST_NAMES ? ' …' : '';
  return `group ${id} (${names.join(' ')}${more})`;
}

function because(view: GroupView, device: PciDevice): string {
  const merge = view.mergeOf(device);
  return merge === undefined ? '' : `, because ${reasonOf(device, merge)}`;
}
