/**
 * Turning ACS on: what Linux writes into the control register of a device before it forms groups, and the boot options
 * that change it. Applied when a device is found and again whenever a driver is bound; the second time changes nothing.
 *
 * After drivers/pci/pci.c: pci_enable_acs, __pci_config_acs, pci_dev_str_match; drivers/pci/quirks.c: pci_dev_acs_ops.
 */
import { acsRegisters, isIntelPch, type AcsRegisters } from './acs.ts';
import { parseDevfn } from './address.ts';
import { ACS_BITS } from './capabilities.ts';
import { REGISTER } from './config-space.ts';
import type { PciDevice } from './device.ts';

const { SV, TB, RR, CR, UF, EC, DT } = ACS_BITS;
const REDIRECT_BITS = RR | CR | EC;
const ALL_BITS = SV | TB | RR | CR | UF | EC | DT;

/** Chooses devices: a path of addresses, or ids where 0 stands for any. */
export type DeviceMatch =
  | {
      readonly kind: 'path';
      readonly domain: number;
      readonly bus: number;
      readonly devfns: readonly number[];
    }
  | {
      readonly kind: 'ids';
      readonly vendor: number;
      readonly device: number;
      readonly subsystemVendor: number;
      readonly subsystem: number;
    };

/** One entry of config_acs= or disable_acs_redir=: bits in `mask` become those of `flags`, for the first match. */
export type AcsOption = {
  readonly mask: number;
  readonly flags: number;
  readonly match: DeviceMatch;
};

/** The boot options that matter here, in the order in which Linux applies them. */
export type AcsOptions = {
  readonly disableRedirect: readonly AcsOption[];
  readonly configure: readonly AcsOption[];
};

export const NO_ACS_OPTIONS: AcsOptions = { disableRedirect: [], configure: [] };

const PATH = /^(?:([0-9a-f]+):)?([0-9a-f]+):([0-9a-f]+\.[0-7])((?:\/[0-9a-f]+\.[0-7])*)$/i;
const IDS = /^pci:([0-9a-f]{1,4}):([0-9a-f]{1,4})(?::([0-9a-f]{1,4}):([0-9a-f]{1,4}))?$/i;

/** `[DOMAIN:]BUS:SLOT.FN[/SLOT.FN]…` or `pci:VENDOR:DEVICE[:SUBVENDOR:SUBDEVICE]`; undefined if it is neither. */
export function parseDeviceMatch(text: string): DeviceMatch | undefined {
  const ids = IDS.exec(text);
  if (ids !== null) {
    const [vendor, device, subsystemVendor, subsystem] = ids
      .slice(1)
      .map((part: string | undefined) => Number.parseInt(part ?? '0', 16));
    return {
      kind: 'ids',
      vendor: vendor ?? 0,
      device: device ?? 0,
      subsystemVendor: subsystemVendor ?? 0,
      subsystem: subsystem ?? 0,
    };
  }
  const path = PATH.exec(text);
  if (path === null) return undefined;
  const devfns = [path[3] ?? '', ...(path[4] ?? '').split('/').slice(1)].map(parseDevfn);
  if (!devfns.every((devfn) => devfn !== undefined)) return undefined;
  return {
    kind: 'path',
    domain: Number.parseInt(path[1] ?? '0', 16),
    bus: Number.parseInt(path[2] ?? '', 16),
    devfns,
  };
}

/** The value of disable_acs_redir=; undefined if Linux could not parse it. */
export function parseDisableRedirect(text: string): AcsOption[] | undefined {
  const options: AcsOption[] = [];
  for (const entry of text.split(/[;,]/)) {
    const match = parseDeviceMatch(entry);
    if (match === undefined) return undefined;
    options.push({ mask: REDIRECT_BITS, flags: 0, match });
  }
  return options;
}

/** The value of config_acs=, entries like `10x0xx1@DEVICE`, lowest bit last; undefined if Linux could not parse it. */
export function parseConfigAcs(text: string): AcsOption[] | undefined {
  const options: AcsOption[] = [];
  for (const entry of text.split(/[;,]/)) {
    const [bits = '', device] = entry.split('@', 2);
    const match = device === undefined ? undefined : parseDeviceMatch(device);
    if (match === undefined || !/^[01x]+$/i.test(bits)) return undefined;
    const digits = Array.from(bits).reverse();
    const mask = sum(digits.map((digit, bit) => (/x/i.test(digit) ? 0 : 2 ** bit)));
    const flags = sum(digits.map((digit, bit) => (digit === '1' ? 2 ** bit : 0)));
    if (mask > ALL_BITS) return undefined;
    options.push({ mask, flags, match });
  }
  return options;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function matches(match: DeviceMatch, device: PciDevice): boolean {
  if (match.kind === 'ids') {
    const { config } = device;
    return (
      sameOrAny(match.vendor, device.vendor) &&
      sameOrAny(match.device, device.device) &&
      sameOrAny(match.subsystemVendor, config.u16(REGISTER.SUBSYSTEM_VENDOR)) &&
      sameOrAny(match.subsystem, config.u16(REGISTER.SUBSYSTEM))
    );
  }
  let at: PciDevice | undefined = device;
  for (const devfn of [...match.devfns.slice(1)].reverse()) {
    if (at?.devfn !== devfn) return false;
    at = at.upstreamBridge;
  }
  return (
    at?.bus.domain === match.domain && at.bus.number === match.bus && at.devfn === match.devfns[0]
  );
}

function sameOrAny(wanted: number, value: number): boolean {
  return wanted === 0 || wanted === value;
}

/** Writes the ACS control register of `device` as Linux would before the device gets its group. */
export function enableAcs(device: PciDevice, options: AcsOptions): void {
  const registers = acsRegisters(device);
  if (registers === undefined) return;
  let control = registers.control;
  if (device.bus.platform.acsRequested && !isIntelPch(device)) {
    control |= registers.offered & (SV | RR | CR | UF);
    const { externalFacing } = device.notes;
    if (device.bus.platform.atsDisabled || externalFacing === true || device.untrusted) {
      control |= registers.offered & TB;
    }
  }
  for (const list of [options.disableRedirect, options.configure]) {
    control = configured(device, registers, { control, list });
  }
  writeControl(device, registers, control);
}

function configured(
  device: PciDevice,
  registers: AcsRegisters,
  { control, list }: { control: number; list: readonly AcsOption[] },
): number {
  const option = list.find(({ match }) => matches(match, device));
  if (option === undefined) return control;
  // Only the redirects of these ports can be changed, whichever option asked (pci_dev_specific_disable_acs_redir).
  if (registers.wide) return control & ~REDIRECT_BITS;
  return (registers.control & ~option.mask) | (option.flags & option.mask);
}

function writeControl(device: PciDevice, registers: AcsRegisters, control: number): void {
  if (registers.wide) device.config.setU32(registers.controlOffset, control >>> 0);
  else device.config.setU16(registers.controlOffset, control);
}
