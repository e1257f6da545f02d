/**
 * A machine from the sysfs of the running Linux: what is there, what drives it, how its kernel grouped it. Works as any
 * user; what only root may read is left out and said.
 *
 * The IOMMU is judged by what it does (IOMMUs registered, groups and the type of their default domain), never by the
 * kernel's command line.
 *
 * After Documentation/ABI/testing/sysfs-bus-pci, sysfs-kernel-iommu_groups, sysfs-class-iommu.
 */
import { join, relative } from 'node:path';
import {
  isNoiommuGroup,
  Machine,
  type DeviceDescription,
  type Iommu,
  type IommuKind,
  type RecordedGroup,
} from '../machine/machine.ts';
import { compareAddresses, formatAddress, parseAddress } from '../machine/pci/address.ts';
import {
  ConfigSpace,
  CONVENTIONAL_BYTES,
  EXPRESS_BYTES,
  HEADER_BYTES,
} from '../machine/pci/config-space.ts';
import { BAR_COUNT, barOfResource, parseResource, type Bar } from '../machine/pci/bar.ts';
import type { DeviceFacts, ReservedRegion } from '../machine/pci/device.ts';
import { inFindingOrder } from '../machine/file/recording.ts';
import { parsePath } from '../machine/sysfs-path.ts';
import {
  HOST_ROOTS,
  linkName,
  names,
  readBytes,
  readText,
  realPath,
  type HostRoots,
} from './files.ts';
import { startProgress } from './progress.ts';

/** ACPI tables that describe an IOMMU. */
const IOMMU_TABLES = ['DMAR', 'IVRS', 'IORT', 'VIOT', 'RIMT'];

/** Reads the running system. `remarks` of the machine say what could not be read. */
export function readHost(roots: HostRoots = HOST_ROOTS): Machine {
  const devicesAt = join(roots.sys, 'bus/pci/devices');
  const progress = startProgress('reading devices');
  const found = names(devicesAt);
  const unreadable: string[] = [];
  const descriptions: DeviceDescription[] = [];
  for (const [index, name] of found.entries()) {
    progress.step(index, found.length);
    const description = readDevice(roots, name);
    if (description === undefined) unreadable.push(name);
    else descriptions.push(description);
  }
  progress.end();
  const groups = readGroups(roots);
  const machine = new Machine({
    kind: 'pc',
    name: hostName(readText(roots.proc, 'sys/kernel/hostname')),
    source: 'host',
    acs: 'as-is',
    iommus: readIommus(roots, groups, descriptions),
    unsafeInterrupts: {
      type1: isOn(roots, 'vfio_iommu_type1', 'allow_unsafe_interrupts'),
      iommufd: isOn(roots, 'iommufd', 'allow_unsafe_interrupts'),
    },
    noIommu: isOn(roots, 'vfio', 'enable_unsafe_noiommu_mode'),
    firmwareTables: names(roots.sys, 'firmware/acpi/tables').filter((table) =>
      IOMMU_TABLES.includes(table),
    ),
  });
  for (const group of groups) machine.recordedGroups.set(group.id, group);
  addDevices(machine, descriptions, unreadable);
  machine.remarks.push(...remarksOf(machine, unreadable));
  return machine;
}

/** A kernel without a name of its own says "(none)". */
function hostName(text: string | undefined): string {
  return text === undefined || text === '' || text === '(none)' ? 'host' : text;
}

/** Adds what has its surroundings; the rest is unreadable. */
function addDevices(
  machine: Machine,
  descriptions: readonly DeviceDescription[],
  unreadable: string[],
): void {
  const sorted = [...descriptions].sort((a, b) => compareAddresses(a.address, b.address));
  for (const description of inFindingOrder(sorted)) {
    const needed = [description.parent, description.physfn, description.dmaDevice];
    const missing = needed.some(
      (address) => address !== undefined && machine.get(formatAddress(address)) === undefined,
    );
    if (missing) unreadable.push(formatAddress(description.address));
    else machine.add(description);
  }
}

function remarksOf(machine: Machine, unreadable: readonly string[]): string[] {
  const remarks: string[] = [];
  const headers = [...machine.devices].filter(({ config }) => !config.complete).length;
  if (headers > 0) {
    remarks.push(
      `capabilities of ${headers} of ${machine.deviceCount} devices: only root may read past the first ` +
        `${HEADER_BYTES} bytes of configuration space; groups are shown as the kernel formed them, without reasons`,
    );
  }
  if (unreadable.length > 0) {
    remarks.push(
      `devices that went away or sit behind one that could not be read: ${unreadable.join(', ')}`,
    );
  }
  return remarks;
}

function readDevice(roots: HostRoots, name: string): DeviceDescription | undefined {
  const at = join(roots.sys, 'bus/pci/devices', name);
  const address = parseAddress(name);
  const real = realPath(at);
  const path =
    real === undefined ? undefined : parsePath(relative(join(roots.sys, 'devices'), real));
  const bytes = readBytes(at, 'config');
  if (address === undefined || path === undefined || bytes === undefined) return undefined;
  if (bytes.length < HEADER_BYTES) return undefined;
  return {
    address,
    parent: path.parent,
    dmaDevice: path.dmaDevice,
    config: new ConfigSpace(wholeConfig(bytes)),
    physfn: parseAddress(linkName(at, 'physfn') ?? ''),
    facts: readFacts(at),
  };
}

/** A copy of one of the lengths that configuration space has; Linux hands out odd lengths for a few odd devices. */
function wholeConfig(bytes: Buffer): Uint8Array {
  const lengths = [EXPRESS_BYTES, CONVENTIONAL_BYTES, HEADER_BYTES];
  return new Uint8Array(
    bytes.subarray(
      0,
      lengths.find((length) => bytes.length >= length),
    ),
  );
}

function readFacts(at: string): DeviceFacts {
  const group = linkName(at, 'iommu_group');
  const override = readText(at, 'driver_override');
  return {
    driver: linkName(at, 'driver'),
    driverOverride: override === '(null)' || override === '' ? undefined : override,
    recordedGroup: group === undefined ? undefined : Number(group),
    bars: readBars(readText(at, 'resource') ?? ''),
    iommu: linkName(at, 'iommu') ?? (group === undefined ? false : undefined),
  };
}

/** The first lines of `resource`: START LAST FLAGS of each BAR. */
function readBars(text: string): Bar[] {
  return text
    .split('\n')
    .slice(0, BAR_COUNT)
    .flatMap((line, index) => {
      const resource = parseResource(line);
      const bar = resource && barOfResource(index, resource);
      return bar === undefined ? [] : [bar];
    });
}

function readGroups(roots: HostRoots): RecordedGroup[] {
  const at = join(roots.sys, 'kernel/iommu_groups');
  return names(at)
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({
      id: Number(name),
      type: readText(at, name, 'type') ?? '',
      name: readText(at, name, 'name'),
      reserved: parseReserved(readText(at, name, 'reserved_regions') ?? ''),
      others: names(at, name, 'devices').filter((member) => parseAddress(member) === undefined),
    }))
    .sort((a, b) => a.id - b.id);
}

function parseReserved(text: string): ReservedRegion[] {
  return text.split('\n').flatMap((line) => {
    const [start = '', last = '', type = ''] = line.trim().split(/\s+/);
    if (!/^0x[0-9a-f]+$/i.test(start) || !/^0x[0-9a-f]+$/i.test(last)) return [];
    const known = ['direct', 'direct-relaxable', 'msi'].includes(type) ? type : 'reserved';
    return [{ start: BigInt(start), last: BigInt(last), type: known as ReservedRegion['type'] }];
  });
}

const KIND_BY_NAME: readonly (readonly [RegExp, IommuKind])[] = [
  [/^dmar/, 'intel'],
  [/^ivhd/, 'amd'],
  [/^smmu3|^arm-smmu-v3/, 'smmuv3'],
  [/virtio/, 'virtio'],
];

/** Instances that a device is linked to: a driver may register one that translates for nothing (the selftest's mock). */
function readIommus(
  roots: HostRoots,
  groups: readonly RecordedGroup[],
  devices: readonly DeviceDescription[],
): Iommu[] {
  const real = groups.filter((group) => !isNoiommuGroup(group));
  const known = real.filter(({ type }) => type !== '');
  const mode: Iommu['mode'] =
    known.length > 0 && known.every(({ type }) => type === 'identity')
      ? 'passthrough'
      : 'translated';
  const interruptRemapping = remapsInterrupts(readText(roots.proc, 'interrupts') ?? '');
  const linked = new Set(devices.map(({ facts }) => facts?.iommu));
  const found = names(roots.sys, 'class/iommu')
    .filter((name) => linked.has(name))
    .map((name) => ({
      name,
      kind: KIND_BY_NAME.find(([pattern]) => pattern.test(name))?.[1] ?? 'other',
      mode,
      interruptRemapping,
      reserved: [],
    }));
  // Some drivers register no instance; that devices have groups shows that something translates.
  return found.length === 0 && real.length > 0
    ? [{ name: 'iommu', kind: 'other', mode, interruptRemapping, reserved: [] }]
    : found;
}

/**
 * Interrupts of PCI devices pass a remapping table, as far as the chips of x86 show it: "IR-PCI-MSIX-…" where they do. Chips of other
 * platforms (ITS) isolate by themselves; where no PCI device has an interrupt nothing is known, and nothing is refused.
 * @param text /proc/interrupts
 */
export function remapsInterrupts(text: string): boolean {
  const chips = [...text.matchAll(/^\s*\d+:(?:\s+\d+)*\s+(\S*PCI-MSI\S*)/gm)].map(
    ([, chip = '']) => chip,
  );
  return chips.every((chip) => !chip.startsWith('PCI-MSI'));
}

function isOn(roots: HostRoots, module: string, parameter: string): boolean {
  const value = readText(roots.sys, 'module', module, 'parameters', parameter);
  return value === 'Y' || value === '1';
}
