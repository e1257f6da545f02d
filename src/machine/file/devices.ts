/**
 * The devices of a machine file: from checked YAML to descriptions that a machine can be built from. Here are the rules
 * that a shape cannot say: every bus exists and is led to once, no circles, one device an address, configuration space that
 * is whole, keys that do not contradict each other.
 */
import { nearestWord } from '../../base/nearest.ts';
import {
  formatAddress,
  formatBus,
  parseAddress,
  parseBus,
  parseDevfn,
  slotOf,
  type BusAddress,
  type PciAddress,
} from '../pci/address.ts';
import { ACS_BITS, PORT_TYPES, type AcsBit, type PortType } from '../pci/capabilities.ts';
import { buildConfig, type ConfigDescription } from '../pci/config-builder.ts';
import { ConfigSpace, HEADER_BRIDGE, HEADER_CARDBUS, REGISTER } from '../pci/config-space.ts';
import type { Bar } from '../pci/bar.ts';
import type { DeviceFacts, DeviceNotes } from '../pci/device.ts';
import type { DeviceDescription } from '../machine.ts';
import { parseConfigText } from './config-text.ts';
import { resolveTypes } from './device-types.ts';
import { readRegions, readSize } from './regions.ts';
import {
  fieldOf,
  flagOf,
  mapOf,
  mapsOf,
  numberOf,
  textOf,
  textsOf,
  type MapValue,
  type Place,
  type Problems,
} from './reader.ts';

export type RootBus = { readonly address: BusAddress; readonly dmaDevice: PciAddress | undefined };

/** A device of the file, before its bytes are made. */
export type Entry = {
  readonly value: MapValue;
  readonly at: Place;
  readonly address: PciAddress;
  readonly name: string;
  /** as written; where the file does not say it, as device-types.ts finds it */
  type: string;
  /** as written; undefined for a described device */
  readonly raw: ConfigSpace | undefined;
  /** name of the bus behind it */
  readonly secondary: string | undefined;
  readonly physfn: PciAddress | undefined;
  /** the bridge above; undefined on a root bus */
  parent: Entry | undefined;
};

/** Keys that say what configuration space says as well. */
const DESCRIBING_KEYS = [
  'type',
  'ids',
  'subsystem',
  'class',
  'revision',
  'multifunction',
  'secondary',
  'acs',
  'ari',
  'sriov',
  'msi',
  'msix',
] as const;

const BRIDGE_TYPES: readonly string[] = [
  'root-port',
  'upstream-port',
  'downstream-port',
  'pcie-pci-bridge',
  'pci-pcie-bridge',
  'pci-bridge',
];

// What a port, bridge or device is called when the file does not say: ids of QEMU's models, which no quirk knows.
const DEFAULT_IDS: Readonly<Record<string, readonly [vendor: number, device: number]>> = {
  'root-port': [0x1b36, 0x000c],
  'upstream-port': [0x104c, 0x8232],
  'downstream-port': [0x104c, 0x8233],
  'pcie-pci-bridge': [0x1b36, 0x000e],
  'pci-pcie-bridge': [0x1b36, 0x000f],
  'pci-bridge': [0x1b36, 0x0001],
  'host-bridge': [0x1b36, 0x0008],
};
const DEFAULT_DEVICE_IDS: readonly [vendor: number, device: number] = [0x1234, 0x11e8];
const CLASS_BRIDGE = 0x060400;
const CLASS_HOST = 0x060000;
const CLASS_OTHER = 0xff0000;
const ISOLATION = ACS_BITS.SV | ACS_BITS.RR | ACS_BITS.CR | ACS_BITS.UF;

/** Reads the devices in the order in which they have to be added: bridges first, physical before virtual functions. */
export function readDevices(
  values: readonly MapValue[],
  roots: readonly RootBus[],
  problems: Problems,
): { entry: Entry; description: DeviceDescription }[] {
  const entries = values
    .map((value) => readEntry(value, problems))
    .filter((entry) => entry !== undefined);
  refuseDoubles(entries, problems);
  linkParents(entries, roots, problems);
  refuseCircles(entries, problems);
  if (problems.any) return [];
  resolveTypes(entries, problems);
  const slots = slotCounts(entries);
  const buses = new BusNumbers(entries);
  const byBus = new Map(roots.map((root) => [formatBus(root.address), root]));
  const ordered = inOrder(entries, roots);
  return ordered.map((entry) => ({
    entry,
    description: describe(entry, { slots, buses, roots: byBus }, problems),
  }));
}

function readEntry(value: MapValue, problems: Problems): Entry | undefined {
  const address = parseAddress(textOf(value, 'address') ?? '');
  if (address === undefined) return undefined;
  const raw = readRaw(value, problems);
  const type = textOf(value, 'type') ?? '';
  const written = textOf(value, 'secondary');
  if (raw === undefined) checkSecondary(value, type, problems);
  const bus = written === undefined ? undefined : parseBus(written);
  return {
    value,
    at: value.at,
    address,
    name: formatAddress(address),
    type,
    raw,
    secondary:
      bus === undefined
        ? secondaryOf(raw, address)
        : formatBus({ domain: withDomain(written, address), bus: bus.bus }),
    physfn: parseAddress(textOf(value, 'physfn') ?? ''),
    parent: undefined,
  };
}

/** Bridges lead to a bus, nothing else does. */
function checkSecondary(value: MapValue, type: string, problems: Problems): void {
  const bridges = BRIDGE_TYPES.join(', ');
  const isBridge = BRIDGE_TYPES.includes(type);
  const at = placeOf(value, 'secondary');
  if (!value.fields.has('secondary')) {
    if (isBridge)
      problems.add(at, `type ${type} leads to a bus; expected "secondary" with its number`);
    return;
  }
  if (isBridge || type === '') return;
  problems.add(
    at,
    `this leads to a bus, but type ${type} has no bus behind it; expected a type of ${bridges}`,
  );
}

/** A bus without a domain is in the domain of its bridge. */
function withDomain(written: string | undefined, address: PciAddress): number {
  return written?.includes(':') === true ? (parseBus(written)?.domain ?? 0) : address.domain;
}

function secondaryOf(
  raw: ConfigSpace | undefined,
  { domain, bus }: PciAddress,
): string | undefined {
  if (raw === undefined) return undefined;
  if (raw.headerType !== HEADER_BRIDGE && raw.headerType !== HEADER_CARDBUS) return undefined;
  const number = raw.u8(REGISTER.SECONDARY_BUS);
  return number <= bus ? undefined : formatBus({ domain, bus: number });
}

function placeOf(value: MapValue, key: string): Place {
  return value.fields.get(key)?.value.at ?? value.at;
}

function readRaw(value: MapValue, problems: Problems): ConfigSpace | undefined {
  const written = textOf(value, 'config');
  if (written === undefined) return undefined;
  const at = placeOf(value, 'config');
  for (const key of DESCRIBING_KEYS) {
    const field = value.fields.get(key);
    if (field !== undefined) {
      problems.add(field.at, `"${key}" says what "config" says already; expected one of the two`);
    }
  }
  const bytes = parseConfigText(written);
  if (!(bytes instanceof Uint8Array)) {
    problems.add(at, bytes.problem);
    return undefined;
  }
  return new ConfigSpace(bytes);
}

function refuseDoubles(entries: readonly Entry[], problems: Problems): void {
  const byName = new Map<string, Entry>();
  const bySecondary = new Map<string, Entry>();
  for (const entry of entries) {
    const same = byName.get(entry.name);
    if (same !== undefined) {
      problems.add(
        placeOf(entry.value, 'address'),
        `two devices at ${entry.name}, the other one is in line ${same.at.line}; expected another address, ` +
          `${freeAddress(entry, entries)} is free`,
      );
    }
    byName.set(entry.name, entry);
    if (entry.secondary === undefined) continue;
    const other = bySecondary.get(entry.secondary);
    if (other !== undefined && other !== same) {
      problems.add(
        placeOf(entry.value, 'secondary'),
        `bus ${entry.secondary} is behind ${other.name} already (line ${other.at.line}); expected a bus of its own`,
      );
    }
    bySecondary.set(entry.secondary, entry);
  }
}

function freeAddress({ address }: Entry, entries: readonly Entry[]): string {
  const taken = new Set(entries.map(({ name }) => name));
  for (let devfn = address.devfn + 1; devfn < 0x100; devfn += 1) {
    const name = formatAddress({ ...address, devfn });
    if (!taken.has(name)) return name;
  }
  return 'none on this bus';
}

function linkParents(
  entries: readonly Entry[],
  roots: readonly RootBus[],
  problems: Problems,
): void {
  const rootNames = new Set(roots.map(({ address }) => formatBus(address)));
  const leading = new Map<string, Entry>();
  const byName = new Map<string, Entry>();
  for (const entry of entries) {
    byName.set(entry.name, entry);
    if (entry.secondary !== undefined) leading.set(entry.secondary, entry);
  }
  for (const entry of entries) {
    const written = parseAddress(textOf(entry.value, 'behind') ?? '');
    const known = (address: PciAddress, key: string): Entry | undefined => {
      const found = byName.get(formatAddress(address));
      if (found === undefined) unknownDevice(entry, { address, key }, [byName.keys(), problems]);
      return found;
    };
    if (entry.physfn !== undefined) {
      known(entry.physfn, 'physfn');
      continue;
    }
    const bus = formatBus(entry.address);
    entry.parent = written === undefined ? leading.get(bus) : known(written, 'behind');
    if (entry.parent !== undefined || written !== undefined || rootNames.has(bus)) continue;
    const names = [...rootNames, ...leading.keys()];
    const close = nearestWord(bus, names) ?? names[0];
    problems.add(
      placeOf(entry.value, 'address'),
      `there is no bus ${bus}: no bridge has it as "secondary" and it is not in "root-buses"; ` +
        `expected one of ${names.slice(0, 12).join(', ')}${close === undefined ? '' : `, the nearest is ${close}`}`,
    );
  }
}

function unknownDevice(
  entry: Entry,
  { address, key }: { address: PciAddress; key: string },
  [names, problems]: [Iterable<string>, Problems],
): void {
  const name = formatAddress(address);
  const close = nearestWord(name, names);
  problems.add(
    placeOf(entry.value, key),
    `there is no device ${name}; expected the address of a device of this file` +
      (close === undefined ? '' : `, did you mean ${close}?`),
  );
}

function refuseCircles(entries: readonly Entry[], problems: Problems): void {
  for (const entry of entries) {
    const path = [entry];
    for (let at = entry.parent; at !== undefined; at = at.parent) {
      if (at === entry) {
        const names = [...path, entry].map(({ name }) => name).join(' behind ');
        problems.add(
          placeOf(entry.value, 'secondary'),
          `a circle: ${names}; expected every bridge to lead away from a root bus`,
        );
      }
      if (path.includes(at)) break;
      path.push(at);
    }
  }
}

/** Stable: as listed, but nothing before what it depends on. */
function inOrder(entries: readonly Entry[], roots: readonly RootBus[]): Entry[] {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const controllers = new Map(
    roots.map(({ address, dmaDevice }) => [formatBus(address), dmaDevice]),
  );
  const done = new Set<Entry>();
  const ordered: Entry[] = [];
  const putAddress = (address: PciAddress | undefined): void => {
    const entry = address === undefined ? undefined : byName.get(formatAddress(address));
    if (entry !== undefined) put(entry);
  };
  const put = (entry: Entry): void => {
    if (done.has(entry)) return;
    done.add(entry);
    if (entry.parent === undefined) putAddress(controllers.get(formatBus(entry.address)));
    else put(entry.parent);
    putAddress(entry.physfn);
    ordered.push(entry);
  };
  for (const entry of entries) put(entry);
  return ordered;
}

/** How many functions are listed in each slot. */
function slotCounts(entries: readonly Entry[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const entry of entries) {
    const key = slotName(entry.address);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

function slotName(address: PciAddress): string {
  return `${formatBus(address)}:${slotOf(address.devfn)}`;
}

/** The highest bus behind each bridge. */
class BusNumbers {
  readonly #highest = new Map<Entry, number>();

  constructor(entries: readonly Entry[]) {
    for (const entry of entries) {
      const own = entry.secondary === undefined ? entry.address.bus : busNumber(entry.secondary);
      for (let at: Entry | undefined = entry; at !== undefined; at = at.parent) {
        this.#highest.set(at, Math.max(this.#highest.get(at) ?? 0, own));
      }
    }
  }

  subordinate(entry: Entry): number {
    return this.#highest.get(entry) ?? entry.address.bus;
  }
}

function busNumber(name: string): number {
  return parseBus(name)?.bus ?? 0;
}

type Surroundings = {
  readonly slots: ReadonlyMap<string, number>;
  readonly buses: BusNumbers;
  /** by name of the bus */
  readonly roots: ReadonlyMap<string, RootBus>;
};

function describe(entry: Entry, around: Surroundings, problems: Problems): DeviceDescription {
  const { value, address } = entry;
  const facts = factsOf(value, problems);
  const root = around.roots.get(formatBus(address));
  return {
    address,
    parent: entry.parent?.address,
    dmaDevice: root?.dmaDevice,
    config: entry.raw ?? buildConfig(configOf(entry, around, facts)),
    physfn: entry.physfn,
    notes: notesOf(value),
    facts,
  };
}

function portTypeOf(type: string): number | undefined {
  return type in PORT_TYPES ? PORT_TYPES[type as PortType] : undefined;
}

function configOf(
  entry: Entry,
  around: Surroundings,
  { bars, vfBars }: DeviceFacts,
): ConfigDescription {
  const { value, address, type } = entry;
  const [vendor, device] = idsOf(textOf(value, 'ids')) ?? DEFAULT_IDS[type] ?? DEFAULT_DEVICE_IDS;
  const [subsystemVendor, subsystem] = idsOf(textOf(value, 'subsystem')) ?? [0, 0];
  const isBridge = BRIDGE_TYPES.includes(type);
  const many = (around.slots.get(slotName(address)) ?? 0) > 1 && entry.physfn === undefined;
  return {
    vendor: entry.physfn === undefined ? vendor : 0xffff,
    device: entry.physfn === undefined ? device : 0xffff,
    subsystemVendor,
    subsystem,
    classCode: classOf(textOf(value, 'class'), type),
    revision: numberOf(value, 'revision') ?? 0,
    multifunction: flagOf(value, 'multifunction') ?? many,
    portType: portTypeOf(type),
    bridge:
      isBridge && entry.secondary !== undefined
        ? {
            primary: address.bus,
            secondary: busNumber(entry.secondary),
            subordinate: around.buses.subordinate(entry),
          }
        : undefined,
    acs: acsOf(value, type),
    ari: flagOf(value, 'ari'),
    sriov: sriovOf(value, vfBars),
    bars,
    msi: numberOf(value, 'msi'),
    msix: numberOf(value, 'msix'),
  };
}

function idsOf(written: string | undefined): readonly [number, number] | undefined {
  if (written === undefined) return undefined;
  const [vendor = '', device = ''] = written.split(':');
  return [Number.parseInt(vendor, 16), Number.parseInt(device, 16)];
}

function classOf(written: string | undefined, type: string): number {
  if (written !== undefined) return Number.parseInt(written.replace(/^0x/i, ''), 16);
  if (type === 'host-bridge') return CLASS_HOST;
  return BRIDGE_TYPES.includes(type) ? CLASS_BRIDGE : CLASS_OTHER;
}

function acsOf(value: MapValue, type: string): ConfigDescription['acs'] {
  const field = fieldOf(value, 'acs');
  if (field?.kind === 'map')
    return { offered: bitsOf(field, 'offers'), control: bitsOf(field, 'on') };
  const isPort = type === 'root-port' || type === 'downstream-port';
  switch (field?.kind === 'scalar' ? field.text : isPort ? 'offered' : 'none') {
    case 'on':
      return { offered: ISOLATION, control: ISOLATION };
    case 'offered':
      return { offered: ISOLATION, control: 0 };
    default:
      return undefined;
  }
}

function bitsOf(value: MapValue, key: string): number {
  return textsOf(value, key).reduce((bits, { text }) => bits | ACS_BITS[text as AcsBit], 0);
}

function sriovOf(value: MapValue, bars: readonly Bar[] | undefined): ConfigDescription['sriov'] {
  const sriov = mapOf(value, 'sriov');
  if (sriov === undefined) return undefined;
  return {
    total: numberOf(sriov, 'total') ?? 0,
    // Whoever builds the machine switches them on: a machine file does not have to list virtual functions.
    enabled: 0,
    offset: numberOf(sriov, 'offset') ?? 1,
    stride: numberOf(sriov, 'stride') ?? 1,
    device: Number.parseInt(textOf(sriov, 'device') ?? '11e8', 16),
    bars,
  };
}

function barsOf(value: MapValue, problems: Problems): Bar[] {
  return mapsOf(value, 'bars').map((bar) => {
    const size = readSize(textOf(bar, 'size') ?? '0');
    const address = textOf(bar, 'address');
    if (size < 16n || (size & (size - 1n)) !== 0n) {
      problems.add(
        placeOf(bar, 'size'),
        `${size} is not the size of a BAR; expected a power of two, at least 16`,
      );
    }
    return {
      index: numberOf(bar, 'index') ?? 0,
      size,
      kind: (textOf(bar, 'kind') ?? 'memory64') as Bar['kind'],
      prefetchable: flagOf(bar, 'prefetchable') ?? false,
      address: address === undefined ? undefined : BigInt(address),
    };
  });
}

function notesOf(value: MapValue): DeviceNotes {
  const aliases = fieldOf(value, 'aliases');
  return {
    aliases:
      aliases?.kind === 'scalar'
        ? Array.from({ length: 256 }, (_, devfn) => devfn)
        : textsOf(value, 'aliases')
            .map(({ text }) => parseDevfn(text))
            .filter((devfn) => devfn !== undefined),
    translationRoot: flagOf(value, 'translation-root') ?? false,
    noAlias: flagOf(value, 'no-alias') ?? false,
    expressBridgeAlias: flagOf(value, 'express-bridge-alias') ?? false,
    untrusted: flagOf(value, 'untrusted') ?? false,
    externalFacing: flagOf(value, 'external-facing') ?? false,
  };
}

function factsOf(value: MapValue, problems: Problems): DeviceFacts {
  const iommu = textOf(value, 'iommu');
  const sriov = mapOf(value, 'sriov');
  const rom = textOf(value, 'rom');
  return {
    driver: textOf(value, 'driver'),
    driverOverride: textOf(value, 'driver-override'),
    recordedGroup: numberOf(value, 'group'),
    reserved: readRegions(value, 'reserved', problems),
    bars: barsOf(value, problems),
    vfBars: sriov === undefined ? undefined : barsOf(sriov, problems),
    romSize: rom === undefined ? undefined : readSize(rom),
    iommu: iommu === 'none' ? false : iommu,
    label: textOf(value, 'label'),
  };
}
