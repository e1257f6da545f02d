/**
 * Names of vendors and devices, from the list that distributions install with pciutils. Read when the first name is asked for;
 * without the list there are no names.
 *
 * Format: "VVVV  NAME", indented by one tab "DDDD  NAME", by two "SSSS SSSS  NAME" (subsystems, which are skipped).
 */
import { readFileSync } from 'node:fs';

const PLACES = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids', '/usr/share/pci.ids'];

export type PciNames = {
  /** "Intel Corporation I210 Gigabit Network Connection"; undefined for an unknown device */
  nameOf(vendor: number, device: number): string | undefined;
};

type Vendor = { readonly name: string; readonly devices: Map<number, string> };

/** @param places where the list may be; the first that can be read counts */
export function pciNames(places: readonly string[] = PLACES): PciNames {
  let vendors: ReadonlyMap<number, Vendor> | undefined;
  return {
    nameOf(vendor, device) {
      vendors ??= parse(firstText(places));
      const found = vendors.get(vendor);
      const name = found?.devices.get(device);
      return found === undefined || name === undefined ? undefined : `${found.name} ${name}`;
    },
  };
}

function firstText(places: readonly string[]): string {
  for (const place of places) {
    try {
      return readFileSync(place, 'utf8');
    } catch {
      // Elsewhere, or nowhere.
    }
  }
  return '';
}

function parse(text: string): Map<number, Vendor> {
  const vendors = new Map<number, Vendor>();
  let vendor: Vendor | undefined;
  for (const line of text.split('\n')) {
    // Classes follow the vendors.
    if (line.startsWith('C ')) break;
    const match = /^(\t?)([0-9a-f]{4}) {2}(.+)$/.exec(line);
    if (match === null) continue;
    const [, indent, digits = '', name = ''] = match;
    const id = Number.parseInt(digits, 16);
    if (indent === '') {
      vendor = { name, devices: new Map() };
      vendors.set(id, vendor);
    } else {
      vendor?.devices.set(id, name);
    }
  }
  return vendors;
}
