/**
 * Why devices share a group, in words, and what would part them.
 *
 * Invariant: every sentence names the rule and the culprit; a remedy is only offered after it was tried on a copy of the
 * decision and did part the devices.
 */
import type { AcsCause } from '../machine/pci/acs.ts';
import { acsBitList, ACS_BIT_NAMES, portTypeName } from '../machine/pci/capabilities.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { Culprit, Merge } from './pci-groups.ts';

export type Explanation = {
  /** "01:00.0 shares its group with …, because …" */
  readonly sentence: string;
};

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
      return 'is conventional PCI, which cannot isolate';
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

function blame({ device, verdict }: Culprit): string {
  return `${named(device)} ${acsComplaint(verdict.cause)}`;
}

/** Why `device` joined the group of another one. */
export function explainMerge(device: PciDevice, merge: Merge): Explanation {
  return {
    sentence: `${device.name} shares its group with ${merge.with.name}, because ${reasonOf(device, merge)}`,
  };
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
      return merge.culprits.map(blame).join(' and ');
    case 'function-acs':
      return `functions of one slot can reach each other: ${merge.culprits.map(blame).join(' and ')}`;
    case 'switch-acs':
      return `ports of one switch can reach each other: ${merge.culprits.map(blame).join(' and ')}`;
  }
}
