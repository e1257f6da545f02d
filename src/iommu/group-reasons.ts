/**
 * Why devices share a group, in words: every sentence names the rule and the culprit. What would part them is in
 * explain/split.ts.
 */
import type { AcsCause } from '../machine/pci/acs.ts';
import { acsBitList, ACS_BIT_NAMES, portTypeName } from '../machine/pci/capabilities.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { Culprit, Merge } from './pci-groups.ts';

const PORT_WORDS: Readonly<Record<string, string>> = {
  'root-port': 'root port',
  'upstream-port': 'switch upstream port',
  'downstream-port': 'switch downstream port',
  'pcie-pci-bridge': 'PCIe-to-PCI bridge',
  'pci-pcie-bridge': 'PCI-to-PCIe bridge',
  'rc-endpoint': 'integrated endpoint',
  'rc-event-collector': 'event collector',
  'legacy-endpoint': 'endpoint',
  endpoint: 'endpoint',
};

const CLASS_HOST = 0x0600;

/** What a device is, for people: "root port", "virtual function", "conventional PCI bridge". */
export function roleOf(device: PciDevice): string {
  if (device.isVirtualFunction) return 'virtual function';
  if (device.classCode >> 8 === CLASS_HOST) return 'host bridge';
  const type = device.portType;
  if (type === undefined) {
    if (!device.config.complete) return device.isBridge ? 'bridge' : 'device';
    return device.isBridge ? 'conventional PCI bridge' : 'conventional PCI device';
  }
  return PORT_WORDS[portTypeName(type) ?? ''] ?? `PCI Express device of type ${type}`;
}

/** "root port 0000:00:1c.0" */
export function named(device: PciDevice): string {
  return `${roleOf(device)} ${device.name}`;
}

/** What is missing, to be put after the name of the device: "has no ACS". */
export function acsComplaint(cause: AcsCause): string {
  switch (cause.kind) {
    case 'no-capability':
      return 'has no ACS';
    case 'control': {
      const names = acsBitList(cause.missing).map((bit) => ACS_BIT_NAMES[bit]);
      return `has ACS with ${names.join(', ')} turned off`;
    }
    case 'conventional':
      return 'has no ACS (not PCI Express)';
    case 'excluded-type':
      return 'is of a kind that has no ACS';
    case 'unreadable':
      return 'does not show its capabilities to this user';
    case 'quirk':
      return `is known to Linux as not isolated (${cause.quirk.what}, ${cause.quirk.source})`;
    case 'single-function':
    case 'other-type':
      return 'needs no ACS';
  }
}

/** "root port 0000:00:1c.0 has no ACS"; devices of one kind with one complaint are named together. */
export function blame(culprits: readonly Culprit[]): string {
  const alike = new Map<string, Culprit[]>();
  for (const culprit of culprits) {
    const key = `${roleOf(culprit.device)} ${acsComplaint(culprit.verdict.cause)}`;
    const known = alike.get(key);
    if (known === undefined) alike.set(key, [culprit]);
    else if (!known.some(({ device }) => device === culprit.device)) known.push(culprit);
  }
  return listed([...alike.values()].map(blameAlike));
}

function blameAlike(culprits: readonly Culprit[]): string {
  const [first] = culprits;
  if (first === undefined) return '';
  const complaint = acsComplaint(first.verdict.cause);
  if (culprits.length === 1) return `${named(first.device)} ${complaint}`;
  const names = listed(culprits.map(({ device }) => device.name));
  return `${roleOf(first.device)}s ${names} ${inPlural(complaint)}`;
}

function inPlural(complaint: string): string {
  return complaint
    .replace(/^has /, 'have ')
    .replace(/^is /, 'are ')
    .replace(/^does /, 'do ')
    .replace(/^needs /, 'need ');
}

/** "A", "A and B", "A, B and C" */
export function listed(words: readonly string[]): string {
  const last = words.at(-1) ?? '';
  return words.length < 2 ? last : `${words.slice(0, -1).join(', ')} and ${last}`;
}

/** Why `device` joined the group of another one: "A shares its group with B, because …". */
export function explainMerge(device: PciDevice, merge: Merge): string {
  return `${device.name} shares its group with ${merge.with.name}, because ${reasonOf(device, merge)}`;
}

/** The part after "because". */
export function reasonOf(device: PciDevice, merge: Merge): string {
  switch (merge.rule) {
    case 'bridge-alias':
      return `the DMA of ${device.name} reaches the IOMMU under the requester ID of ${named(merge.with)}`;
    case 'dma-device':
      return `${named(merge.with)} does the DMA of everything on its bus`;
    case 'shared-requester-id':
      return `${merge.via.name} and ${merge.with.name} use the same requester ID`;
    case 'upstream-acs':
      return blame(merge.culprits);
    case 'function-acs':
      return `functions of one slot can reach each other: ${blame(merge.culprits)}`;
    case 'switch-acs':
      return `ports of one switch can reach each other: ${blame(merge.culprits)}`;
  }
}

/**
 * The reasons that tie two members of one group together, nearest to `device` first.
 * @param mergeOf why each member joined
 */
export function reasonsBetween(
  device: PciDevice,
  other: PciDevice,
  mergeOf: (device: PciDevice) => Merge | undefined,
): string[] {
  const ties = mergesBetween(device, other, mergeOf);
  return [...new Set(ties.map((tie) => reasonOf(tie.device, tie.merge)))];
}

/** A device with the reason why it joined. */
export type Tie = { readonly device: PciDevice; readonly merge: Merge };

/** The merges on the way from `device` to `other`: each member joined exactly one that was there before it. */
export function mergesBetween(
  device: PciDevice,
  other: PciDevice,
  mergeOf: (device: PciDevice) => Merge | undefined,
): Tie[] {
  const up = chain(device, mergeOf);
  const down = chain(other, mergeOf);
  const stops = [other, ...down.map((tie) => tie.merge.with)];
  const meets = [device, ...up.map((tie) => tie.merge.with)].find((at) => stops.includes(at));
  const before = (ties: readonly Tie[]): Tie[] => {
    const end = ties.findIndex((tie) => tie.device === meets);
    return end < 0 ? [...ties] : ties.slice(0, end);
  };
  return [...before(up), ...before(down).reverse()];
}

/** From `device` to the member that made the group. */
function chain(device: PciDevice, mergeOf: (device: PciDevice) => Merge | undefined): Tie[] {
  const ties: Tie[] = [];
  let at = device;
  for (let merge = mergeOf(at); merge !== undefined; merge = mergeOf(at)) {
    ties.push({ device: at, merge });
    at = merge.with;
  }
  return ties;
}
