/**
 * What lspci prints, taken as a machine: configuration space where it was dumped (-x to -xxxx), otherwise what its words say
 * (-v to -vvv, -nn). Groups that it shows ("IOMMU group: 7") are those of the kernel it ran on; registers stay as that kernel left
 * them.
 *
 * Damage is taken as it comes: bytes that are missing are zero, and of two bridges that claim one bus the first has it.
 *
 * After ls-caps.c, ls-ecaps.c and lspci.c of pciutils, as far as isolation depends on their words.
 */
import { hexOfBytes } from '../hex.ts';
import { formatAddress, formatBus, parseAddress } from '../pci/address.ts';
import { EXT_SRIOV, type AcsBit } from '../pci/capabilities.ts';
import {
  CONFIG_LENGTHS,
  ConfigSpace,
  EXPRESS_BYTES,
  HEADER_BRIDGE,
  HEADER_CARDBUS,
  REGISTER,
} from '../pci/config-space.ts';
import { sriovState, virtualFunctionAddress } from '../pci/sriov.ts';
import { fileOf, type FoundDevice } from './found-devices.ts';

const TITLE = /^((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]) (\S.*)$/i;
const HEX = /^([0-9a-f]{2,3}): ((?:[0-9a-f]{2}(?: |$)){1,16})\s*$/i;

/** The text is what lspci prints: a line "01:00.0 Class: Name" before anything else that is not a comment. */
export function isLspci(text: string): boolean {
  const first = text.split('\n').find((line) => line.trim() !== '' && !/^[#$>]/.test(line));
  return first !== undefined && TITLE.test(first);
}

/** @returns the same as a machine file */
export function lspciAsFile(text: string, name: string): string {
  const blocks: { title: RegExpExecArray; lines: string[] }[] = [];
  for (const line of text.split('\n')) {
    const title = TITLE.exec(line);
    if (title !== null) blocks.push({ title, lines: [] });
    else blocks.at(-1)?.lines.push(line);
  }
  const taken = new Map<string, FoundDevice>();
  const buses = new Set<string>();
  for (const { title, lines } of blocks) {
    const device = deviceOf(title, lines, buses);
    if (device !== undefined && !taken.has(device.address)) taken.set(device.address, device);
  }
  for (const { title, lines } of blocks) markFunctions(title[1] ?? '', dumpOf(lines), taken);
  return fileOf([...taken.values()], {
    name,
    kernel: 'as lspci showed it',
    acs: 'as-is',
  });
}

function deviceOf(
  [, written = '', words = '']: RegExpExecArray,
  lines: readonly string[],
  buses: Set<string>,
): FoundDevice | undefined {
  const address = parseAddress(written);
  if (address === undefined) return undefined;
  const body = lines.join('\n');
  const raw = dumpOf(lines);
  const common = {
    address: formatAddress(address),
    driver: /^\s*Kernel driver in use: (\S+)/m.exec(body)?.[1],
    group: numberIn(/^\s*IOMMU group: (\d+)/m, body),
  };
  if (raw !== undefined) {
    const secondary = claimBus(raw, formatBus(address), buses);
    return { ...common, config: hexOfBytes(raw.bytes), secondary };
  }
  return { ...common, ...describedBy(words, body, address.domain) };
}

/** Says of the virtual functions of a physical one whose they are. */
function markFunctions(
  written: string,
  config: ConfigSpace | undefined,
  taken: Map<string, FoundDevice>,
): void {
  const address = parseAddress(written);
  const sriovOffset = config?.findExtendedCapability(EXT_SRIOV) ?? 0;
  if (address === undefined || config === undefined || sriovOffset === 0) return;
  const physfn = { address, config, sriovOffset };
  for (let index = 0; index < sriovState(physfn).enabled; index++) {
    const name = formatAddress(virtualFunctionAddress(physfn, index));
    const known = taken.get(name);
    if (known !== undefined) taken.set(name, { ...known, physfn: formatAddress(address) });
  }
}

/** The bytes of a dump, in a length that configuration space has; undefined without one. */
function dumpOf(lines: readonly string[]): ConfigSpace | undefined {
  const bytes = new Uint8Array(EXPRESS_BYTES);
  let end = 0;
  for (const line of lines) {
    const match = HEX.exec(line.trim());
    if (match === null) continue;
    const offset = Number.parseInt(match[1] ?? '', 16);
    const values = (match[2] ?? '').trim().split(' ');
    for (const [index, digits] of values.entries()) {
      bytes[offset + index] = Number.parseInt(digits, 16);
    }
    end = Math.max(end, offset + values.length);
  }
  if (end === 0) return undefined;
  const length = CONFIG_LENGTHS.find((each) => end <= each) ?? EXPRESS_BYTES;
  return new ConfigSpace(bytes.slice(0, length));
}

/** The bus behind a bridge; its register is cleared where another bridge has that bus, or it leads nowhere. */
function claimBus(raw: ConfigSpace, own: string, buses: Set<string>): string | undefined {
  if (raw.headerType !== HEADER_BRIDGE && raw.headerType !== HEADER_CARDBUS) return undefined;
  const number = raw.u8(REGISTER.SECONDARY_BUS);
  const [domain = '', bus = ''] = own.split(':');
  const secondary = `${domain}:${number.toString(16).padStart(2, '0')}`;
  if (number <= Number.parseInt(bus, 16) || buses.has(secondary)) {
    raw.setU8(REGISTER.SECONDARY_BUS, 0);
    return undefined;
  }
  buses.add(secondary);
  return secondary;
}

/** What the words of -v and -nn say. */
function describedBy(words: string, body: string, domain: number): Partial<FoundDevice> {
  const secondary = /\bsecondary=([0-9a-f]{2})\b/i.exec(body)?.[1];
  const bus = secondary === undefined ? undefined : Number.parseInt(secondary, 16);
  return {
    ids:
      /\[([0-9a-f]{4}:[0-9a-f]{4})\]/i.exec(words)?.[1] ??
      /^\S+: ([0-9a-f]{4}:[0-9a-f]{4})/i.exec(words)?.[1],
    class: classIn(words),
    type: typeIn(body, secondary !== undefined),
    secondary: bus === undefined ? undefined : formatBus({ domain, bus }),
    acs: acsIn(body),
    sriov: sriovIn(body),
  };
}

/** "Ethernet controller [0200]: …", or with -n "0200: 8086:1533"; the interface is in "(prog-if 30 [XHCI])". */
function classIn(words: string): string | undefined {
  const digits =
    /^[^:]*\[([0-9a-f]{4})\]:/i.exec(words)?.[1] ?? /^([0-9a-f]{4}): /i.exec(words)?.[1];
  const interfaceDigits = /\(prog-if ([0-9a-f]{2})/i.exec(words)?.[1] ?? '00';
  return digits === undefined ? undefined : digits + interfaceDigits;
}

const TYPES: readonly (readonly [RegExp, string])[] = [
  [/^Root Port/, 'root-port'],
  [/^Upstream Port/, 'upstream-port'],
  [/^Downstream Port/, 'downstream-port'],
  [/^Root Complex Integrated Endpoint/, 'rc-endpoint'],
  [/^Root Complex Event Collector/, 'rc-event-collector'],
  [/^PCI-Express to PCI/, 'pcie-pci-bridge'],
  [/^PCI\/PCI-X to PCI-Express/, 'pci-pcie-bridge'],
  [/^Legacy Endpoint/, 'legacy-endpoint'],
  [/^Endpoint/, 'endpoint'],
];

/** undefined where lspci did not show capabilities, or its user could not read them. */
function typeIn(body: string, isBridge: boolean): string | undefined {
  const express = /Capabilities: \[[0-9a-f]+\] Express (?:\(v\d+\) )?(.*)/.exec(body)?.[1];
  if (express !== undefined) return TYPES.find(([pattern]) => pattern.test(express))?.[1];
  if (!showsCapabilities(body)) return undefined;
  return isBridge ? 'pci-bridge' : 'pci';
}

function showsCapabilities(body: string): boolean {
  return body.includes('Capabilities: [') && !body.includes('access denied');
}

const ACS_WORDS: readonly (readonly [string, AcsBit])[] = [
  ['SrcValid', 'SV'],
  ['TransBlk', 'TB'],
  ['ReqRedir', 'RR'],
  ['CmpltRedir', 'CR'],
  ['UpstreamFwd', 'UF'],
  ['EgressCtrl', 'EC'],
  ['DirectTrans', 'DT'],
];

function acsIn(body: string): FoundDevice['acs'] {
  const bits = (line: string | undefined): AcsBit[] =>
    ACS_WORDS.filter(([word]) => line?.includes(`${word}+`)).map(([, bit]) => bit);
  const offered = /ACSCap:(.*)/.exec(body)?.[1];
  if (offered === undefined) return showsCapabilities(body) ? 'none' : undefined;
  return { offers: bits(offered), on: bits(/ACSCtl:(.*)/.exec(body)?.[1]) };
}

function sriovIn(body: string): FoundDevice['sriov'] {
  const total = numberIn(/Total VFs: (\d+)/, body);
  const place = /VF offset: (\d+), stride: (\d+), Device ID: ([0-9a-f]{4})/i.exec(body);
  if (total === undefined || total === 0) return undefined;
  const offset = Number(place?.[1] ?? 0);
  const stride = Number(place?.[2] ?? 0);
  return {
    total,
    ...(offset > 0 ? { offset } : {}),
    ...(stride > 0 ? { stride } : {}),
    ...(place?.[3] === undefined ? {} : { device: place[3] }),
  };
}

function numberIn(pattern: RegExp, text: string): number | undefined {
  const found = pattern.exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}
