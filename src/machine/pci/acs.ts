/**
 * Is a function isolated from its peers? Linux's predicate, with the reason for its answer.
 *
 * Access Control Services (ACS) make a port or function send what could go to a peer up to the root complex instead, where
 * the IOMMU sees it. What a capability does not offer counts as hard-wired on, egress control excepted.
 *
 * After drivers/pci/pci.c: pci_acs_enabled, pci_acs_flags_enabled; drivers/pci/quirks.c: pci_dev_specific_acs_enabled.
 */
import {
  ACS_QUIRKS,
  BROKEN_SOURCE_VALIDATION,
  INTEL_PCH_ROOT_PORTS,
  INTEL_SPT_ROOT_PORTS,
  WANGXUN_CARDS,
  ZHAOXIN_PORTS,
  inIds,
  type AcsQuirk,
  type AcsRule,
} from './acs-quirks.ts';
import { ACS, ACS_BITS, PORT_TYPES } from './capabilities.ts';
import type { PciDevice } from './device.ts';

const { SV, TB, RR, CR, UF, EC, DT } = ACS_BITS;

/** What isolation takes: source validation, both redirects, upstream forwarding (REQ_ACS_FLAGS). */
export const ISOLATION_BITS = SV | RR | CR | UF;

/** Why a function counts as isolated or not. */
export type AcsCause =
  /** the capability is there; `missing` are the demanded bits that are off */
  | { readonly kind: 'control'; readonly missing: number }
  | { readonly kind: 'no-capability' }
  /** configuration space ends before the capability could be: an ordinary user, or no extended space */
  | { readonly kind: 'unreadable' }
  | { readonly kind: 'conventional' }
  /** bridges to and from conventional PCI, root-complex event collectors */
  | { readonly kind: 'excluded-type' }
  /** the only function of its slot: nobody to talk to */
  | { readonly kind: 'single-function' }
  | { readonly kind: 'other-type' }
  | { readonly kind: 'quirk'; readonly quirk: AcsQuirk };

export type AcsVerdict = { readonly isolated: boolean; readonly cause: AcsCause };

/** Where the ACS control register is, how wide, and what the device offers. */
export type AcsRegisters = {
  readonly offered: number;
  readonly control: number;
  readonly controlOffset: number;
  readonly wide: boolean;
};

/** The ACS registers of a device as Linux finds them; undefined without the capability. */
export function acsRegisters(device: PciDevice): AcsRegisters | undefined {
  const offset = device.acsOffset;
  if (offset === 0) return undefined;
  const { config } = device;
  if (isIntelSpt(device)) {
    const controlOffset = offset + ACS.CAPABILITY + 4;
    return {
      offered: config.u32(offset + ACS.CAPABILITY),
      control: config.u32(controlOffset),
      controlOffset,
      wide: true,
    };
  }
  const controlOffset = offset + ACS.CONTROL;
  const broken =
    device.vendor === BROKEN_SOURCE_VALIDATION.vendor &&
    inIds(device.device, BROKEN_SOURCE_VALIDATION.devices);
  const offered = config.u16(offset + ACS.CAPABILITY);
  return {
    offered: broken ? offered & ~SV : offered,
    control: config.u16(controlOffset),
    controlOffset,
    wide: false,
  };
}

/** Intel 100/200 series: the ACS registers are dwords, so the control register is two bytes further on. */
export function isIntelSpt(device: PciDevice): boolean {
  return (
    isRootPort(device) && device.vendor === 0x8086 && inIds(device.device, INTEL_SPT_ROOT_PORTS)
  );
}

/** Intel root ports before the 100 series: no ACS, but the chipset can do the same. */
export function isIntelPch(device: PciDevice): boolean {
  return (
    isRootPort(device) && device.vendor === 0x8086 && inIds(device.device, INTEL_PCH_ROOT_PORTS)
  );
}

function isRootPort(device: PciDevice): boolean {
  return device.portType === PORT_TYPES['root-port'];
}

/**
 * @param flags what is demanded, {@link ISOLATION_BITS} where Linux forms groups
 * @returns whether Linux takes `device` for isolated, and why
 */
export function acsVerdict(device: PciDevice, flags: number = ISOLATION_BITS): AcsVerdict {
  for (const quirk of ACS_QUIRKS) {
    if (quirk.vendor !== device.vendor) continue;
    if (quirk.devices !== undefined && !inIds(device.device, quirk.devices)) continue;
    const isolated = QUIRK_ANSWERS.get(quirk.rule)?.(device, flags);
    if (isolated !== undefined) return { isolated, cause: { kind: 'quirk', quirk } };
  }
  return standardVerdict(device, flags);
}

function granted(flags: number, enabled: number): boolean {
  return (flags & enabled) === flags;
}

type QuirkAnswer = (device: PciDevice, flags: number) => boolean | undefined;

/** Linux's answer for the rows of the table; undefined: the row has no opinion and the next is asked. */
const QUIRK_ANSWERS: ReadonlyMap<AcsRule, QuirkAnswer> = new Map<AcsRule, QuirkAnswer>([
  ['isolated', (_device, flags) => allGranted(flags)],
  ['isolated-root-port', (device, flags) => (isRootPort(device) ? allGranted(flags) : undefined)],
  ['multifunction', (_device, flags) => granted(flags, SV | TB | RR | CR | UF | DT)],
  ['rc-endpoint', rcEndpointAnswer],
  ['amd-southbridge', amdSouthbridgeAnswer],
  ['intel-pch', intelPchAnswer],
  ['intel-spt', intelSptAnswer],
  ['zhaoxin-ports', zhaoxinPortsAnswer],
  ['wangxun', (device, flags) => inIds(device.device, WANGXUN_CARDS) && allGranted(flags)],
]);

function rcEndpointAnswer(device: PciDevice, flags: number): boolean | undefined {
  return device.portType === PORT_TYPES['rc-endpoint'] ? allGranted(flags) : undefined;
}

function amdSouthbridgeAnswer(device: PciDevice, flags: number): boolean | undefined {
  const { isRoot, platform } = device.bus;
  if (!device.multifunction || !isRoot || !platform.ivrs) return undefined;
  return granted(flags & (RR | CR | EC | DT), RR | CR);
}

function intelPchAnswer(device: PciDevice, flags: number): boolean | undefined {
  if (!isIntelPch(device)) return undefined;
  return intelPchProtected(device) ? allGranted(flags) : granted(flags, 0);
}

function intelSptAnswer(device: PciDevice, flags: number): boolean | undefined {
  const registers = isIntelSpt(device) ? acsRegisters(device) : undefined;
  if (registers === undefined) return undefined;
  return granted(flags & (registers.offered | EC), registers.control);
}

function zhaoxinPortsAnswer(device: PciDevice, flags: number): boolean | undefined {
  if (!isRootPort(device) && device.portType !== PORT_TYPES['downstream-port']) return undefined;
  return inIds(device.device, ZHAOXIN_PORTS) && allGranted(flags);
}

function allGranted(flags: number): boolean {
  return granted(flags, ISOLATION_BITS);
}

const LPC_DEVFN = 0x1f << 3;
const LPC_RCBA = 0xf0;
const LPC_RCBA_ENABLE = 1;

/**
 * Linux blocks peer traffic in the chipset when an IOMMU asked for ACS and the LPC bridge shows where the registers are
 * (pci_quirk_enable_intel_lpc_acs). The registers are outside configuration space; that Linux could reach them is what
 * can be seen.
 */
export function intelPchProtected(device: PciDevice): boolean {
  if (!device.bus.platform.acsRequested) return false;
  const lpc = device.bus.devices.get(LPC_DEVFN);
  if (lpc?.config.complete !== true) return false;
  return (lpc.config.u32(LPC_RCBA) & LPC_RCBA_ENABLE) !== 0;
}

function standardVerdict(device: PciDevice, flags: number): AcsVerdict {
  if (!device.config.complete) return { isolated: false, cause: { kind: 'unreadable' } };
  switch (device.portType) {
    case undefined:
      return { isolated: false, cause: { kind: 'conventional' } };
    case PORT_TYPES['pci-pcie-bridge']:
    case PORT_TYPES['pcie-pci-bridge']:
    case PORT_TYPES['rc-event-collector']:
      return { isolated: false, cause: { kind: 'excluded-type' } };
    case PORT_TYPES['downstream-port']:
    case PORT_TYPES['root-port']:
      return registerVerdict(device, flags);
    case PORT_TYPES.endpoint:
    case PORT_TYPES['upstream-port']:
    case PORT_TYPES['legacy-endpoint']:
    case PORT_TYPES['rc-endpoint']:
      return device.multifunction
        ? registerVerdict(device, flags)
        : { isolated: true, cause: { kind: 'single-function' } };
    default:
      return { isolated: true, cause: { kind: 'other-type' } };
  }
}

function registerVerdict(device: PciDevice, flags: number): AcsVerdict {
  const registers = acsRegisters(device);
  if (registers === undefined) return { isolated: false, cause: { kind: 'no-capability' } };
  const missing = flags & (registers.offered | EC) & ~registers.control;
  return { isolated: missing === 0, cause: { kind: 'control', missing } };
}
