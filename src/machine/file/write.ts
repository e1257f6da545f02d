/**
 * A machine written as a machine file: JSON, configuration space as bytes, everything else under the keys of
 * machine-shape.ts. Reading it back gives the same machine.
 */
import { formatConfig } from './config-text.ts';
import { formatJson, type JsonMap } from './json-tree.ts';
import { RESERVED_TYPES } from './machine-shape.ts';
import type { DriverSpec } from '../drivers.ts';
import { sameRegion, usualRegions, type Iommu, type Machine } from '../machine.ts';
import { formatAddress, formatDevfn } from '../pci/address.ts';
import { REGISTER } from '../pci/config-space.ts';
import type { Bar } from '../pci/bar.ts';
import type { PciDevice, ReservedRegion } from '../pci/device.ts';

/** What a capture says of itself. */
export type CaptureNote = {
  readonly kernel: string;
  readonly readAs: 'root' | 'user';
  readonly unreadable: readonly string[];
};

/** true, or nothing at all. */
function flag(set: boolean | undefined): true | undefined {
  return set === true ? true : undefined;
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

/** undefined, which leaves the key out, for a list without elements. */
function filled<T>(items: readonly T[]): readonly T[] | undefined {
  return items.length === 0 ? undefined : items;
}

function regions(list: readonly ReservedRegion[]): JsonMap[] {
  return list.map(({ start, last, type }) => ({
    start: hex(start),
    last: hex(last),
    type: RESERVED_TYPES.includes(type) ? type : 'reserved',
  }));
}

/**
 * @param capture given for a capture: groups are then taken as its kernel's
 * @returns JSON, a line for each device, ends with a newline
 */
export function formatMachine(machine: Machine, capture?: CaptureNote): string {
  const roots = [...machine.buses].filter((bus) => bus.isRoot);
  return formatJson({
    kind: machine.kind,
    name: machine.name,
    capture: capture && captureNote(machine, capture),
    boot: boot(machine),
    iommu: machine.iommus.length === 0 ? 'none' : machine.iommus.map(iommu),
    'root-buses': filled(
      roots.map(({ name, dmaDevice }) =>
        dmaDevice === undefined ? name : { bus: name, 'dma-device': dmaDevice.name },
      ),
    ),
    drivers: filled(machine.drivers.map(driver)),
    devices: [...machine.devices].map((each) => device(machine, each)),
    groups: filled(groups(machine)),
  });
}

function boot({
  acs,
  unsafeInterrupts: { type1, iommufd },
  noIommu,
}: Machine): JsonMap | undefined {
  const modules = [...(type1 ? ['vfio_iommu_type1'] : []), ...(iommufd ? ['iommufd'] : [])];
  if (acs !== 'as-is' && modules.length === 0 && !noIommu) return undefined;
  return {
    acs: acs === 'as-is' ? acs : undefined,
    'unsafe-interrupts': filled(modules),
    noiommu: noIommu ? true : undefined,
  };
}

function captureNote({ firmwareTables }: Machine, note: CaptureNote): JsonMap {
  return {
    kernel: note.kernel,
    'read-as': note.readAs,
    firmware: filled(firmwareTables),
    unreadable: filled(note.unreadable),
  };
}

function iommu({ name, kind, mode, interruptRemapping, reserved }: Iommu): JsonMap {
  const usual = usualRegions(kind);
  const implied =
    reserved.length === usual.length &&
    reserved.every((region, index) => usual[index] && sameRegion(region, usual[index]));
  return {
    name,
    kind,
    mode,
    'interrupt-remapping': interruptRemapping === false ? false : undefined,
    reserved: implied ? undefined : regions(reserved),
  };
}

function driver(spec: DriverSpec): JsonMap {
  const part = (value: number | undefined): string => value?.toString(16).padStart(4, '0') ?? '*';
  return {
    name: spec.name,
    'user-dma': flag(spec.managedDma),
    ids: filled(spec.ids.map(({ vendor, device: id }) => `${part(vendor)}:${part(id)}`)),
    'override-only': flag(spec.overrideOnly),
    bridges: flag(spec.bridges),
    'fail-probe': spec.failProbe,
    dma: flag(spec.dma),
  };
}

function device(machine: Machine, pci: PciDevice): JsonMap {
  const { facts, notes } = pci;
  const { parent, physfn } = machine.describe(pci);
  const behind = physfn !== undefined || leadsHere(pci) ? undefined : parent;
  const { reserved = [], bars = [], iommu: under } = facts;
  return {
    address: pci.name,
    label: facts.label,
    physfn: physfn && formatAddress(physfn),
    behind: behind && formatAddress(behind),
    driver: facts.driver,
    'driver-override': facts.driverOverride,
    rom: facts.romSize === undefined ? undefined : hex(facts.romSize),
    group: facts.recordedGroup,
    iommu: under === false ? 'none' : under,
    aliases: filled((notes.aliases ?? []).map((devfn) => formatDevfn(devfn))),
    'translation-root': flag(notes.translationRoot),
    'no-alias': flag(notes.noAlias),
    'express-bridge-alias': flag(notes.expressBridgeAlias),
    untrusted: flag(notes.untrusted),
    'external-facing': flag(notes.externalFacing),
    reserved: filled(regions(reserved)),
    bars: filled(bars.map(bar)),
    config: formatConfig(pci.config).join('\n'),
  };
}

function bar({ index, size, kind, prefetchable }: Bar): JsonMap {
  return { index, size: hex(size), kind, prefetchable: flag(prefetchable) };
}

/** The bytes of the bridge above say already that this bus is behind it. */
function leadsHere({ bus: { self, domain, number } }: PciDevice): boolean {
  return (
    self?.bus.domain === domain &&
    self.isBridge &&
    self.config.u8(REGISTER.SECONDARY_BUS) === number
  );
}

function groups(machine: Machine): JsonMap[] {
  return [...machine.recordedGroups.values()].map(({ id, type, reserved, name, others = [] }) => ({
    id,
    type: type === '' ? undefined : type,
    name,
    others: filled(others),
    reserved: filled(regions(reserved)),
  }));
}
