/**
 * Devices that were found in the text of a tool or a kernel, written down as a machine file: that reader knows how to fill in what
 * such texts leave out, and says what it cannot know.
 */
import { InputError } from '../../base/input-error.ts';
import type { AcsBit } from '../pci/capabilities.ts';
import { formatJson } from './json-tree.ts';

/** What is known of a device, under the keys of a machine file. */
export type FoundDevice = {
  /** "0000:01:00.0" */
  readonly address: string;
  readonly driver?: string | undefined;
  readonly group?: number | undefined;
  /** digits of configuration space; keys that describe are left out then */
  readonly config?: string | undefined;
  readonly ids?: string | undefined;
  /** a virtual function: its physical function */
  readonly physfn?: string | undefined;
  /** six digits */
  readonly class?: string | undefined;
  readonly type?: string | undefined;
  /** the bus behind a bridge: "0000:01" */
  readonly secondary?: string | undefined;
  /** undefined where the text does not show it */
  readonly acs?:
    'none' | { readonly offers: readonly AcsBit[]; readonly on: readonly AcsBit[] } | undefined;
  readonly sriov?:
    | {
        readonly total: number;
        readonly offset?: number;
        readonly stride?: number;
        readonly device?: string;
      }
    | undefined;
};

export type FoundMachine = {
  readonly name: string;
  /** what the groups come from */
  readonly kernel: string;
  /** `as-is`: registers are shown as Linux left them */
  readonly acs: 'as-is' | 'enable';
  readonly iommu?: { readonly kind?: string; readonly mode?: string };
};

/** A machine file. Where a group was found, groups are those of the kernel that formed them. */
export function fileOf(devices: readonly FoundDevice[], machine: FoundMachine): string {
  refuseUnknownTree(devices, machine.name);
  const behind = new Set(devices.map(({ secondary }) => secondary));
  const buses = new Set(devices.map(({ address }) => address.slice(0, address.lastIndexOf(':'))));
  const roots = [...buses].filter((bus) => !behind.has(bus));
  const grouped = devices.some(({ group }) => group !== undefined);
  const ids = new Set(devices.map(({ group }) => group).filter((id) => id !== undefined));
  return formatJson({
    kind: 'pc',
    name: machine.name,
    capture: grouped ? { kernel: machine.kernel, unreadable: unreadable(devices) } : undefined,
    boot: { acs: machine.acs },
    iommu: { kind: vendorOf(devices), ...machine.iommu },
    'root-buses': roots.length === 0 ? undefined : roots,
    devices: devices.map((device) => row(withAcs(device, devices), grouped)),
    groups: grouped ? [...ids].map((id) => ({ id })) : undefined,
  });
}

function row(device: FoundDevice, grouped: boolean): object {
  const { config, secondary } = device;
  const untranslated = grouped && device.group === undefined ? 'none' : undefined;
  const { address, driver, group, physfn } = device;
  const common = { address, driver, group, physfn, iommu: untranslated };
  return config === undefined ? { ...device, ...common, secondary } : { ...common, config };
}

const CLASS_PCI_BRIDGE = '0604';

/** A list that does not say which bus is behind which bridge says nothing about groups. */
function refuseUnknownTree(devices: readonly FoundDevice[], name: string): void {
  const lost = devices.find(
    ({ class: digits, config, secondary }) =>
      config === undefined && secondary === undefined && digits?.startsWith(CLASS_PCI_BRIDGE),
  );
  if (lost === undefined) return;
  throw new InputError(
    `${name}: nothing says which bus is behind bridge ${lost.address}; expected the output of lspci -vvv or -xxxx, run as root`,
  );
}

function isPort({ config, secondary }: FoundDevice): boolean {
  return config === undefined && secondary !== undefined;
}

/** A port that shares its group with what is behind it does not isolate; where ACS does not show, the groups tell. */
function withAcs(device: FoundDevice, devices: readonly FoundDevice[]): FoundDevice {
  const { acs, group, secondary } = device;
  if (!isPort(device) || acs !== undefined || group === undefined) return device;
  const merged = devices.some(
    (other) => other.group === group && other.address.startsWith(`${secondary ?? ''}:`),
  );
  return merged ? { ...device, acs: 'none' } : device;
}

function unreadable(devices: readonly FoundDevice[]): string[] | undefined {
  const unknown = devices.filter((device) => isPort(device) && device.acs === undefined).length;
  return unknown === 0
    ? undefined
    : [`ACS of ${unknown} ports: taken from the groups, the text does not show it`];
}

const AMD = '1022:';

/** The IOMMU goes with the processor, whose maker shows in the host bridge. */
function vendorOf(devices: readonly FoundDevice[]): string {
  const first = devices.find(({ address }) => address.endsWith(':00:00.0'));
  const vendor = first?.ids ?? vendorDigits(first?.config);
  return vendor.startsWith(AMD) ? 'amd' : 'intel';
}

/** The first two bytes, lowest first. */
function vendorDigits(config = ''): string {
  return `${config.slice(2, 4)}${config.slice(0, 2)}:`;
}
