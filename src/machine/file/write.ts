/**
 * A machine written as a machine file: configuration space as bytes, everything else under the keys of
 * file/machine-shape.ts. Reading it back gives the same machine.
 */
import { formatConfig } from './config-text.ts';
import { RESERVED_TYPES } from './machine-shape.ts';
import type { DriverSpec } from '../drivers.ts';
import { MSI_WINDOW, type Iommu, type Machine } from '../machine.ts';
import { formatAddress, formatDevfn } from '../pci/address.ts';
import { REGISTER } from '../pci/config-space.ts';
import type { Bar, PciDevice, ReservedRegion } from '../pci/device.ts';

/** What a capture says of itself. */
export type CaptureNote = {
  readonly kernel: string;
  readonly readAs: 'root' | 'user';
  readonly unreadable: readonly string[];
};

const WORDS_OF_YAML = new Set(['true', 'false', 'null', 'yes', 'no', 'on', 'off']);

/** Plain where YAML cannot mistake it, quoted otherwise. */
function scalar(text: string): string {
  const plain = /^[A-Za-z][\w./-]*$/.test(text) && !WORDS_OF_YAML.has(text.toLowerCase());
  return plain ? text : JSON.stringify(text);
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

function regionLines(regions: readonly ReservedRegion[], indent: string): string[] {
  return regions.map(({ start, last, type }) => {
    const known = RESERVED_TYPES.includes(type) ? type : 'reserved';
    return `${indent}- { start: ${hex(start)}, last: ${hex(last)}, type: ${known} }`;
  });
}

/**
 * @param capture given for a capture: groups are then taken as its kernel's
 * @returns YAML, ends with a newline
 */
export function formatMachine(machine: Machine, capture?: CaptureNote): string {
  const lines = [
    ...head(machine, capture),
    ...iommuLines(machine.iommus),
    ...rootLines(machine),
    ...driverLines(machine.drivers),
  ];
  lines.push('devices:');
  for (const device of machine.devices) lines.push(...deviceLines(machine, device));
  if (machine.deviceCount === 0) lines[lines.length - 1] = 'devices: []';
  lines.push(...groupLines(machine));
  return `${lines.join('\n')}\n`;
}

function head(machine: Machine, capture: CaptureNote | undefined): string[] {
  const lines = [`kind: ${machine.kind}`, `name: ${scalar(machine.name)}`];
  if (capture !== undefined) {
    lines.push('capture:', `  kernel: ${scalar(capture.kernel)}`, `  read-as: ${capture.readAs}`);
    if (machine.firmwareTables.length > 0) {
      lines.push(`  firmware: [${machine.firmwareTables.map(scalar).join(', ')}]`);
    }
    if (capture.unreadable.length > 0) {
      lines.push(
        '  unreadable:',
        ...capture.unreadable.map((text) => `    - ${JSON.stringify(text)}`),
      );
    }
  }
  if (machine.acs === 'as-is') lines.push('boot:', '  acs: as-is');
  return lines;
}

function iommuLines(iommus: readonly Iommu[]): string[] {
  if (iommus.length === 0) return ['iommu: none'];
  const lines = ['iommu:'];
  for (const { name, kind, mode, reserved } of iommus) {
    lines.push(`  - name: ${scalar(name)}`, `    kind: ${kind}`, `    mode: ${mode}`);
    const usual = reserved.length === 1 && sameRegion(reserved[0], MSI_WINDOW);
    if (usual && (kind === 'intel' || kind === 'amd')) continue;
    if (reserved.length === 0) lines.push('    reserved: []');
    else lines.push('    reserved:', ...regionLines(reserved, '      '));
  }
  return lines;
}

function sameRegion(a: ReservedRegion | undefined, b: ReservedRegion): boolean {
  return a?.start === b.start && a.last === b.last && a.type === b.type;
}

function rootLines(machine: Machine): string[] {
  const roots = [...machine.buses].filter((bus) => bus.isRoot);
  if (roots.length === 0) return [];
  return [
    'root-buses:',
    ...roots.map((bus) =>
      bus.dmaDevice === undefined
        ? `  - ${bus.name}`
        : `  - { bus: ${bus.name}, dma-device: ${bus.dmaDevice.name} }`,
    ),
  ];
}

function driverLines(drivers: readonly DriverSpec[]): string[] {
  if (drivers.length === 0) return [];
  const part = (value: number | undefined): string => value?.toString(16).padStart(4, '0') ?? '*';
  return [
    'drivers:',
    ...drivers.flatMap((driver) => [
      `  - name: ${scalar(driver.name)}`,
      ...(driver.managedDma ? ['    user-dma: true'] : []),
      ...(driver.ids.length > 0
        ? [
            `    ids: [${driver.ids.map((id) => `"${part(id.vendor)}:${part(id.device)}"`).join(', ')}]`,
          ]
        : []),
      ...(driver.overrideOnly ? ['    override-only: true'] : []),
      ...(driver.bridges ? ['    bridges: true'] : []),
      ...(driver.failProbe === undefined ? [] : [`    fail-probe: ${driver.failProbe}`]),
      ...(driver.dma === true ? ['    dma: true'] : []),
    ]),
  ];
}

function deviceLines(machine: Machine, device: PciDevice): string[] {
  const lines = [`  - address: ${device.name}`];
  for (const [key, value] of simpleKeys(machine, device)) {
    if (value !== undefined && value !== false) lines.push(`    ${key}: ${String(value)}`);
  }
  const { reserved = [], bars = [] } = device.facts;
  if (reserved.length > 0) lines.push('    reserved:', ...regionLines(reserved, '      '));
  if (bars.length > 0) lines.push('    bars:', ...bars.map(barLine));
  lines.push('    config: |', ...formatConfig(device.config).map((line) => `      ${line}`));
  return lines;
}

function barLine({ index, size, kind, prefetchable }: Bar): string {
  const flag = prefetchable ? ', prefetchable: true' : '';
  return `      - { index: ${index}, size: ${hex(size)}, kind: ${kind}${flag} }`;
}

type Simple = string | number | boolean | undefined;

/** Keys with one value, in the order in which they are written; undefined and false are left out. */
function simpleKeys(machine: Machine, device: PciDevice): [string, Simple][] {
  const { facts, notes } = device;
  const { parent, physfn } = machine.describe(device);
  const behind = physfn !== undefined || leadsHere(device) ? undefined : parent;
  const aliases = (notes.aliases ?? []).map((devfn) => `"${formatDevfn(devfn)}"`);
  return [
    ['label', optional(facts.label)],
    ['physfn', physfn && formatAddress(physfn)],
    ['behind', behind && formatAddress(behind)],
    ['driver', optional(facts.driver)],
    ['driver-override', optional(facts.driverOverride)],
    ['model', optional(facts.model)],
    ['group', facts.recordedGroup],
    ['iommu', facts.iommu === false ? 'none' : optional(facts.iommu)],
    ['aliases', aliases.length === 0 ? undefined : `[${aliases.join(', ')}]`],
    ['translation-root', notes.translationRoot],
    ['no-alias', notes.noAlias],
    ['express-bridge-alias', notes.expressBridgeAlias],
    ['untrusted', notes.untrusted],
    ['external-facing', notes.externalFacing],
  ];
}

function optional(text: string | undefined): string | undefined {
  return text === undefined ? undefined : scalar(text);
}

/** The bytes of the bridge above say already that this bus is behind it. */
function leadsHere(device: PciDevice): boolean {
  const { self, domain, number } = device.bus;
  return (
    self?.bus.domain === domain &&
    self.isBridge &&
    self.config.u8(REGISTER.SECONDARY_BUS) === number
  );
}

function groupLines(machine: Machine): string[] {
  if (machine.recordedGroups.size === 0) return [];
  const lines = ['groups:'];
  for (const { id, type, reserved, name, others = [] } of machine.recordedGroups.values()) {
    lines.push(`  - id: ${id}`);
    if (type !== '') lines.push(`    type: ${scalar(type)}`);
    if (name !== undefined) lines.push(`    name: ${scalar(name)}`);
    if (others.length > 0) lines.push(`    others: [${others.map(scalar).join(', ')}]`);
    if (reserved.length > 0) lines.push('    reserved:', ...regionLines(reserved, '      '));
  }
  return lines;
}
