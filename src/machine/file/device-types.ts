/**
 * What a device of a machine file is where the file does not say so: from its place, its class and its other keys. A file is often
 * written from `lspci -nn`, which shows no types.
 *
 * On a root bus a function is conventional PCI unless a key says what only PCI Express has: so are the functions of chipsets, and
 * Linux takes those that are integrated endpoints for isolated where it knows the vendor. A bridge that a person must name is
 * asked for, because a switch and a bridge to conventional PCI group differently.
 */
import { CAP_EXPRESS, EXPRESS, PORT_TYPES } from '../pci/capabilities.ts';
import type { ConfigSpace } from '../pci/config-space.ts';
import type { Entry } from './devices.ts';
import { textOf, type Problems } from './reader.ts';

const CONVENTIONAL_BRIDGES: readonly string[] = ['pci-bridge', 'pcie-pci-bridge'];
const LINKS_BELOW: readonly string[] = ['root-port', 'downstream-port', 'pci-pcie-bridge'];
const EXPRESS_KEYS = ['acs', 'ari', 'sriov'] as const;
// Subtractive decode: the bridge from a chipset to its conventional slots.
const CLASS_SUBTRACTIVE = /^(?:0x)?060401$/i;

/** Fills in the type of every entry that has none; reports those that have to be named. */
export function resolveTypes(entries: readonly Entry[], problems: Problems): void {
  const busesWithBridges = new Set<string>();
  for (const { secondary, parent } of entries) {
    if (secondary !== undefined && parent?.secondary !== undefined) {
      busesWithBridges.add(parent.secondary);
    }
  }
  for (const entry of entries) resolve(entry, busesWithBridges, problems);
}

function resolve(entry: Entry, busesWithBridges: ReadonlySet<string>, problems: Problems): string {
  if (entry.type !== '') return entry.type;
  const above = entry.parent && resolve(entry.parent, busesWithBridges, problems);
  if (entry.raw !== undefined) entry.type = typeOfRaw(entry.raw);
  else if (entry.physfn !== undefined) entry.type = 'endpoint';
  else if (entry.secondary === undefined) entry.type = functionType(entry, above);
  else entry.type = bridgeType(entry, above, busesWithBridges) ?? asked(entry, problems);
  return entry.type;
}

function functionType({ value }: Entry, above: string | undefined): string {
  if (above !== undefined) return CONVENTIONAL_BRIDGES.includes(above) ? 'pci' : 'endpoint';
  return EXPRESS_KEYS.some((key) => value.fields.has(key)) ? 'rc-endpoint' : 'pci';
}

/** undefined: the file has to say it. */
function bridgeType(
  { value, secondary = '' }: Entry,
  above: string | undefined,
  busesWithBridges: ReadonlySet<string>,
): string | undefined {
  if (above === undefined) {
    return CLASS_SUBTRACTIVE.test(textOf(value, 'class') ?? '') ? 'pci-bridge' : 'root-port';
  }
  if (CONVENTIONAL_BRIDGES.includes(above)) return 'pci-bridge';
  if (above === 'upstream-port') return 'downstream-port';
  if (LINKS_BELOW.includes(above) && busesWithBridges.has(secondary)) return 'upstream-port';
  return undefined;
}

function asked(entry: Entry, problems: Problems): string {
  problems.add(
    entry.value.fields.get('secondary')?.value.at ?? entry.at,
    `${entry.name} may be a switch or a bridge to conventional PCI, whose groups differ; expected "type" with ` +
      'upstream-port, pcie-pci-bridge or another bridge',
  );
  return 'upstream-port';
}

/** What configuration space says, as far as it decides on what is behind. */
function typeOfRaw(config: ConfigSpace): string {
  const express = config.findCapability(CAP_EXPRESS);
  if (express === 0) return 'pci-bridge';
  const type = (config.u16(express + EXPRESS.FLAGS) >> 4) & 0xf;
  const known = Object.entries(PORT_TYPES).find(([, number]) => number === type);
  return known?.[0] ?? 'endpoint';
}
