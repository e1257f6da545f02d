/**
 * Which group a PCI device joins, and why: the search of Linux's pci_device_group, step by step, with a reason for each
 * merge. Who keeps the groups is no matter here: the caller says which group a device already has.
 *
 * The search only looks at devices that have a group, so a bridge must come before what is behind it (Linux always finds
 * parents first); then membership does not depend on the order, only the numbers do.
 *
 * Steps, first group found wins: (1) the requester IDs of the device on its way up; (2) the bridges above that ACS does
 * not protect; (3) devices on the bus of the last one looked at that share a requester ID with it; (4) functions of its slot
 * that are not isolated either. The profile `strict-acs` adds (5): ports of one switch that are not isolated.
 *
 * After drivers/iommu/iommu.c: pci_device_group, get_pci_alias_group, get_pci_function_alias_group.
 */
import { acsVerdict, type AcsVerdict } from '../machine/pci/acs.ts';
import { slotOf } from '../machine/pci/address.ts';
import { aliasWalk, areAliases, type AliasKind } from '../machine/pci/alias.ts';
import { PORT_TYPES } from '../machine/pci/capabilities.ts';
import type { PciBus, PciDevice } from '../machine/pci/device.ts';

/** The rule by which a device joined the group of another one. */
export type MergeRule =
  /** a bridge puts its own requester ID in place of the device's */
  | 'bridge-alias'
  /** another device does the DMA of this one (VMD) */
  | 'dma-device'
  /** a bridge above lets peers reach each other: no ACS somewhere between it and the root */
  | 'upstream-acs'
  /** two devices of one bus use one requester ID */
  | 'shared-requester-id'
  /** functions of one slot, neither isolated from its siblings */
  | 'function-acs'
  /** profile strict-acs: ports of one switch, neither isolated from its siblings */
  | 'switch-acs';

/** Someone whose missing isolation is the reason, with Linux's verdict. */
export type Culprit = { readonly device: PciDevice; readonly verdict: AcsVerdict };

export type Merge = {
  readonly rule: MergeRule;
  /** the device whose group was joined */
  readonly with: PciDevice;
  /** who speaks for the joining device in the step that found the group: itself or a bridge above it */
  readonly via: PciDevice;
  /** devices that lack isolation; empty for merges that come from requester IDs */
  readonly culprits: readonly Culprit[];
};

type Found<G> = { readonly group: G; readonly merge: Merge };

export type Selection<G> = Found<G> | { readonly group: undefined; readonly merge: undefined };

export type GroupRules = {
  /** profile strict-acs: step (5) is taken too */
  readonly strictAcs?: boolean;
  /** what-if: devices that count as isolated whatever they are */
  readonly assumeIsolated?: ReadonlySet<PciDevice>;
};

type GroupOf<G> = (device: PciDevice) => G | undefined;

class Search<G> {
  readonly #groupOf: GroupOf<G>;
  readonly #rules: GroupRules;
  // devfns on the bus of the last device looked at, as in the kernel: a guard against aliases that lead in circles
  readonly #visited = new Set<number>();

  constructor(groupOf: GroupOf<G>, rules: GroupRules) {
    this.#groupOf = groupOf;
    this.#rules = rules;
  }

  verdict(device: PciDevice): AcsVerdict {
    if (this.#rules.assumeIsolated?.has(device) === true) {
      return { isolated: true, cause: { kind: 'other-type' } };
    }
    return acsVerdict(device);
  }

  /** Everything from `start` up to the root that does not pass, nearest first. */
  #leaks(start: PciDevice): Culprit[] {
    const culprits: Culprit[] = [];
    for (let at: PciDevice | undefined = start; at !== undefined; at = at.bus.self) {
      const verdict = this.verdict(at);
      if (!verdict.isolated) culprits.push({ device: at, verdict });
    }
    return culprits;
  }

  select(device: PciDevice): Selection<G> {
    let last = device;
    for (const step of aliasWalk(device)) {
      last = step.device;
      const group = this.#groupOf(last);
      if (group === undefined) continue;
      const rule = aliasRule(step.kind);
      return { group, merge: { rule, with: last, via: device, culprits: [] } };
    }
    const climbed = this.#climb(last);
    if ('group' in climbed) return climbed;
    const at = climbed.at;
    return (
      this.#aliasGroup(at, at) ??
      this.#functionGroup(at, at) ??
      this.#switchGroup(at) ?? { group: undefined, merge: undefined }
    );
  }

  /** Step 2: up to where ACS protects all the way to the root. */
  #climb(from: PciDevice): { at: PciDevice } | Found<G> {
    let at = from;
    for (let bus: PciBus = from.bus; bus.parent !== undefined; bus = bus.parent) {
      const bridge = bus.self;
      if (bridge === undefined) continue;
      const culprits = this.#leaks(bridge);
      if (culprits.length === 0) break;
      const group = this.#groupOf(bridge);
      if (group !== undefined) {
        return { group, merge: { rule: 'upstream-acs', with: bridge, via: at, culprits } };
      }
      at = bridge;
    }
    return { at };
  }

  /** Step 3: `device` itself, then whatever shares a requester ID with it. */
  #aliasGroup(device: PciDevice, via: PciDevice): Found<G> | undefined {
    if (this.#visited.has(device.devfn)) return undefined;
    this.#visited.add(device.devfn);
    const group = this.#groupOf(device);
    if (group !== undefined) {
      return { group, merge: { rule: 'shared-requester-id', with: device, via, culprits: [] } };
    }
    for (const other of device.bus.devices.values()) {
      if (other === device || !areAliases(device, other)) continue;
      const found = this.#aliasGroup(other, via) ?? this.#functionGroup(other, via);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Step 4: siblings of `device` in its slot, when neither is isolated. */
  #functionGroup(device: PciDevice, via: PciDevice): Found<G> | undefined {
    if (!device.multifunction) return undefined;
    const slot = slotOf(device.devfn);
    return this.#peerGroup(device, (other) => slotOf(other.devfn) === slot, {
      rule: 'function-acs',
      via,
    });
  }

  /** Step 5, strict-acs: other downstream ports of the same switch, when neither is isolated. */
  #switchGroup(port: PciDevice): Found<G> | undefined {
    if (this.#rules.strictAcs !== true || !isSwitchPort(port)) return undefined;
    return this.#peerGroup(port, isSwitchPort, { rule: 'switch-acs', via: port });
  }

  #peerGroup(
    device: PciDevice,
    isPeer: (other: PciDevice) => boolean,
    { rule, via }: { rule: MergeRule; via: PciDevice },
  ): Found<G> | undefined {
    const verdict = this.verdict(device);
    if (verdict.isolated) return undefined;
    for (const peer of device.bus.devices.values()) {
      if (peer === device || !isPeer(peer)) continue;
      const theirs = this.verdict(peer);
      if (theirs.isolated) continue;
      const found = this.#aliasGroup(peer, via);
      if (found === undefined) continue;
      const culprits = [
        { device, verdict },
        { device: peer, verdict: theirs },
      ];
      return { group: found.group, merge: { rule, with: found.merge.with, via, culprits } };
    }
    return undefined;
  }
}

function isSwitchPort(device: PciDevice): boolean {
  return device.portType === PORT_TYPES['downstream-port'];
}

function aliasRule(kind: AliasKind): MergeRule {
  switch (kind) {
    case 'own':
      return 'dma-device';
    case 'quirk':
      return 'shared-requester-id';
    case 'express-bridge':
    case 'conventional-bridge':
      return 'bridge-alias';
  }
}

/**
 * Finds the group that `device` belongs to.
 * @param groupOf the group that a device has by now; undefined for none. `device` itself must have none yet
 * @returns the group and the reason, or neither where the device needs a new group
 */
export function selectGroup<G>(
  device: PciDevice,
  groupOf: GroupOf<G>,
  rules: GroupRules = {},
): Selection<G> {
  return new Search(groupOf, rules).select(device);
}
