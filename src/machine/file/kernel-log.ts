/**
 * A kernel log (dmesg) taken as a machine: the functions that Linux reported while it scanned the buses, the buses behind bridges,
 * and the groups that it formed. Time stamps and prefixes of syslog or journal do not matter.
 *
 * After drivers/pci/probe.c (pci_setup_device, pci_read_bridge_windows) and drivers/iommu/iommu.c (iommu_group_add_device).
 */
import { formatAddress, formatBus, parseAddress } from '../pci/address.ts';
import { fileOf, type FoundDevice } from './found-devices.ts';

const FUNCTION =
  /\bpci ([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]): \[([0-9a-f]{4}:[0-9a-f]{4})\] type ([0-9a-f]{2}) class (?:0x)?([0-9a-f]{6})(.*)/i;
const ABOUT =
  /(?:^|[\s\]:])([\w-]+) ([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?: [\w-]+)?: (.*)/i;

export function isKernelLog(text: string): boolean {
  return FUNCTION.test(text);
}

/** @returns the same as a machine file */
export function kernelLogAsFile(text: string, name: string): string {
  const devices = new Map<string, FoundDevice>();
  const change = (written: string, more: Partial<FoundDevice>): void => {
    const address = parseAddress(written);
    const known = address && devices.get(formatAddress(address));
    if (known !== undefined) devices.set(known.address, { ...known, ...more });
  };
  for (const line of text.split('\n')) {
    const found = FUNCTION.exec(line);
    if (found !== null) add(devices, found);
    else note(line, change);
  }
  const passthrough = text.includes('Default domain type: Passthrough');
  return fileOf([...devices.values()], {
    name,
    acs: 'enable',
    kernel: /Linux version (\S+)/.exec(text)?.[1] ?? 'as its log showed it',
    iommu: {
      ...(/\bAMD-Vi: /.test(text) ? { kind: 'amd' } : {}),
      ...(passthrough ? { mode: 'passthrough' } : {}),
    },
  });
}

// What a function is, in the words of pci_type_str and of kernels that only name conventional ones.
const TYPES: readonly (readonly [string, string])[] = [
  ['PCIe Root Complex Integrated Endpoint', 'rc-endpoint'],
  ['PCIe Root Complex Event Collector', 'rc-event-collector'],
  ['PCIe Root Port', 'root-port'],
  ['PCIe Switch Upstream Port', 'upstream-port'],
  ['PCIe Switch Downstream Port', 'downstream-port'],
  ['PCIe to PCI/PCI-X bridge', 'pcie-pci-bridge'],
  ['PCI/PCI-X to PCIe bridge', 'pci-pcie-bridge'],
  ['PCIe Legacy Endpoint', 'legacy-endpoint'],
  ['PCIe Endpoint', 'endpoint'],
  ['conventional PCI', 'pci'],
];
const HEADER_ENDPOINT = '00';

function add(devices: Map<string, FoundDevice>, found: RegExpExecArray): void {
  const [, written = '', ids = '', header = '', classDigits = '', rest = ''] = found;
  const address = parseAddress(written);
  if (address === undefined) return;
  const name = formatAddress(address);
  const word = TYPES.find(([text]) => rest.includes(text))?.[1];
  const type = word === 'pci' && header !== HEADER_ENDPOINT ? 'pci-bridge' : word;
  // A device that came back is the same again.
  if (!devices.has(name)) devices.set(name, { address: name, ids, class: classDigits, type });
}

function note(line: string, change: (written: string, more: Partial<FoundDevice>) => void): void {
  const about = ABOUT.exec(line);
  if (about === null) return;
  const [, driver = '', written = '', said = ''] = about;
  const group = /^Adding to iommu group (\d+)/.exec(said)?.[1];
  if (group !== undefined) change(written, { group: Number(group) });
  const bus = /^PCI bridge to \[bus ([0-9a-f]{2})/i.exec(said)?.[1];
  const domain = parseAddress(written)?.domain;
  if (bus !== undefined && domain !== undefined) {
    change(written, { secondary: formatBus({ domain, bus: Number.parseInt(bus, 16) }) });
  }
  if (driver !== 'pci') change(written, { driver });
}
