/**
 * PCI addresses: domain, bus, device (slot) and function, written 0000:01:00.0.
 *
 * Words: *devfn* is slot and function in eight bits; the *requester ID* (RID) is bus and devfn in sixteen bits, what a
 * transaction carries and an IOMMU looks up. Domains above 0xffff exist (Intel VMD numbers its own from 0x10000).
 */

export type PciAddress = {
  readonly domain: number;
  readonly bus: number;
  /** slot << 3 | function */
  readonly devfn: number;
};

export type BusAddress = { readonly domain: number; readonly bus: number };

const DEVICE = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i;
const BUS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{1,2})$/i;
const SLOT_FUNCTION = /^([0-9a-f]{1,2})\.([0-7])$/i;
const LAST_SLOT = 0x1f;

export function slotOf(devfn: number): number {
  return devfn >> 3;
}

export function functionOf(devfn: number): number {
  return devfn & 7;
}

/** Accepts "0000:01:00.0" and, for domain 0, "01:00.0". */
export function parseAddress(text: string): PciAddress | undefined {
  const match = DEVICE.exec(text);
  if (match === null) return undefined;
  const slot = Number.parseInt(match[3] ?? '', 16);
  if (slot > LAST_SLOT) return undefined;
  return {
    domain: Number.parseInt(match[1] ?? '0', 16),
    bus: Number.parseInt(match[2] ?? '', 16),
    devfn: (slot << 3) | Number(match[4]),
  };
}

/** Accepts "0000:01" and, for domain 0, "01". */
export function parseBus(text: string): BusAddress | undefined {
  const match = BUS.exec(text);
  if (match === null) return undefined;
  return {
    domain: Number.parseInt(match[1] ?? '0', 16),
    bus: Number.parseInt(match[2] ?? '', 16),
  };
}

/** Accepts "00.1": slot and function on a bus that is known already. */
export function parseDevfn(text: string): number | undefined {
  const match = SLOT_FUNCTION.exec(text);
  if (match === null) return undefined;
  const slot = Number.parseInt(match[1] ?? '', 16);
  return slot > LAST_SLOT ? undefined : (slot << 3) | Number(match[2]);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}

export function formatBus({ domain, bus }: BusAddress): string {
  return `${hex(domain, 4)}:${hex(bus, 2)}`;
}

export function formatDevfn(devfn: number): string {
  return `${hex(slotOf(devfn), 2)}.${functionOf(devfn)}`;
}

export function formatAddress(address: PciAddress): string {
  return `${formatBus(address)}:${formatDevfn(address.devfn)}`;
}

/** Order of addresses: domain, bus, slot, function. */
export function compareAddresses(a: PciAddress, b: PciAddress): number {
  return a.domain - b.domain || a.bus - b.bus || a.devfn - b.devfn;
}
