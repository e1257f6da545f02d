/**
 * How vfio-pci lays configuration space out for a user: which capability each byte belongs to, and the first contents of the bytes
 * that it virtualises. Capabilities that a user must not see are taken out of the lists.
 *
 * Invariants: the header belongs to BASIC; a byte that belongs to nothing is NONE and passes through to the hardware; the heads and
 * next pointers of `virtual` form lists without hidden capabilities. An extended list whose first entry is hidden keeps it as a
 * placeholder without id.
 *
 * After drivers/vfio/pci/vfio_pci_config.c: vfio_cap_init, vfio_ecap_init and their lengths.
 */
import { PORT_TYPES } from '../../machine/pci/capabilities.ts';
import { msiBytes } from '../../machine/pci/capability-length.ts';
import { CONVENTIONAL_BYTES, REGISTER, type ConfigSpace } from '../../machine/pci/config-space.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { AF, CAP, EXT, HEADER, PCIX, PM, STATUS, VPD } from '../../machine/pci/pci-regs.ts';

/** The header's place among capability ids, of which 0 is none. */
export const BASIC = 0;
/** Owner of bytes that belong to no capability. */
export const NONE = 0xff;
/** Greatest extended capability id that Linux 7.3 knows. */
export const MAX_EXTENDED = 0x31;

export type ConfigLayout = {
  /** capability id of each byte; above the conventional 256 bytes, extended ones */
  readonly owner: Uint8Array;
  /** what the user sees where the hardware's bits do not show */
  readonly virtual: Uint8Array;
};

const NEXT = 1;
const AGP_BYTES = 12;
const MSIX_BYTES = 12;

const FIXED: ReadonlyMap<number, number> = new Map([
  [CAP.PM, PM.BYTES],
  [CAP.AGP, AGP_BYTES],
  [CAP.VPD, VPD.BYTES],
  [CAP.MSIX, MSIX_BYTES],
  [CAP.AF, AF.BYTES],
]);

/** Bytes of a standard capability; 0: hidden. After pci_cap_length, vfio_cap_len. */
function standardBytes(pci: PciDevice, id: number, offset: number): number {
  const { config } = pci;
  const fixed = FIXED.get(id);
  if (fixed !== undefined) return fixed;
  switch (id) {
    case CAP.MSI:
      return msiBytes(config.u16(offset + 2));
    case CAP.PCIX:
      return (config.u16(offset + PCIX.COMMAND) & PCIX.VERSION) === 0
        ? PCIX.BYTES_V0
        : PCIX.BYTES_V2;
    case CAP.VENDOR:
      return config.u8(offset + 2);
    case CAP.EXPRESS:
      return expressBytes(pci);
    case CAP.HT:
      return (config.u8(offset + 3) & HT_SHORT) !== 0 ? 24 : 28;
    case CAP.SATA:
      return (config.u8(offset + 4) & 0xf) === SATA_INLINE ? 16 : 8;
    default:
      return 0;
  }
}

const HT_SHORT = 0xe0;
const SATA_INLINE = 0xf;

function expressBytes(pci: PciDevice): number {
  const first = (pci.config.u16(pci.expressOffset + 2) & 0xf) === 1;
  const withoutLink = pci.portType === PORT_TYPES['rc-endpoint'];
  if (first) return withoutLink ? 0xc : 0x14;
  return withoutLink ? 0x2c : 0x34;
}

const EXTENDED_FIXED: ReadonlyMap<number, number> = new Map([
  [EXT.AER, 0x2c],
  [EXT.DSN, 12],
  [EXT.POWER_BUDGET, 16],
  [EXT.ARI, 8],
  [EXT.ATS, 8],
  [EXT.SRIOV, 0x40],
  [EXT.MULTICAST, 40],
  [EXT.PRI, 16],
  [EXT.LTR, 8],
]);

/** Bytes of an extended capability; 0: hidden. After pci_ext_cap_length, vfio_ext_cap_len. */
function extendedBytes(config: ConfigSpace, id: number, offset: number): number {
  const fixed = EXTENDED_FIXED.get(id);
  if (fixed !== undefined) return fixed;
  switch (id) {
    case EXT.VENDOR:
      return config.u32(offset + 4) >>> 20;
    case EXT.VC:
    case EXT.VC9:
    case EXT.MFVC:
      return virtualChannelBytes(config, offset);
    case EXT.ACS:
      return acsBytes(config, offset);
    case EXT.REBAR:
      return 4 + 8 * ((config.u8(offset + 8) & 0xe0) >> 5);
    case EXT.DPA:
      return 16 + (config.u8(offset + 4) & 0x1f) + 1;
    case EXT.TPH:
      return tphBytes(config.u32(offset + 4));
    case EXT.DVSEC:
      return config.u32(offset + 4) >>> 20;
    default:
      return 0;
  }
}

function virtualChannelBytes(config: ConfigSpace, offset: number): number {
  const extra = config.u32(offset + 4) & 0x7;
  const arbitration = config.u32(offset + 8);
  const phases = [0x8, 0x4, 0x2].findIndex((bit) => (arbitration & bit) !== 0);
  const table = phases < 0 ? 0 : ([128, 64, 32][phases] ?? 0) * 4;
  const bytes = 0x10 + (1 + extra) * 0xc;
  return table === 0 ? bytes : ((bytes + 15) & ~15) + table / 8;
}

function acsBytes(config: ConfigSpace, offset: number): number {
  if ((config.u8(offset + 4) & 0x20) === 0) return 8;
  const vector = config.u8(offset + 5);
  return 8 + (vector === 0 ? 256 : (vector + 31) & ~31) / 8;
}

function tphBytes(capability: number): number {
  const tableHere = (capability & 0x600) === 0x200;
  return tableHere ? 12 + 2 * ((capability & 0x07ff_0000) >> 16) + 2 : 12;
}

/** Lays out the configuration space of a function as it reads now. */
export function layOut(pci: PciDevice): ConfigLayout {
  const { config } = pci;
  const length = config.bytes.length;
  const layout = {
    owner: new Uint8Array(length).fill(NONE),
    virtual: new Uint8Array(length),
  };
  layout.owner.fill(BASIC, 0, HEADER.BYTES);
  copy(config, layout, 0, HEADER.BYTES);
  layOutStandard(pci, layout);
  if (hasExtended(pci)) layOutExtended(config, layout);
  return layout;
}

// Bytes beyond the end of configuration space read as ones and belong to nobody.
function copy(config: ConfigSpace, { virtual }: ConfigLayout, offset: number, bytes: number): void {
  for (let i = offset; i < Math.min(offset + bytes, virtual.length); i++) virtual[i] = config.u8(i);
}

const STEPS = (CONVENTIONAL_BYTES - HEADER.BYTES) / 4;

function layOutStandard(pci: PciDevice, layout: ConfigLayout): void {
  const { config } = pci;
  const { owner, virtual } = layout;
  if ((config.u16(REGISTER.STATUS) & STATUS.CAPABILITY_LIST) === 0) return;
  let previous: number = REGISTER.CAPABILITIES;
  let shown = 0;
  let offset = config.u8(REGISTER.CAPABILITIES);
  for (let step = 0; offset !== 0 && step < STEPS; step++) {
    const id = config.u8(offset);
    const next = config.u8(offset + NEXT);
    const bytes = id === 0 || id > CAP.MAX ? 0 : standardBytes(pci, id, offset);
    if (bytes === 0) virtual[previous] = next;
    else {
      owner.fill(id, offset, offset + bytes);
      copy(config, layout, offset, bytes);
      if (id === CAP.PM) hideWakeUp(virtual, offset);
      previous = offset + NEXT;
      shown++;
    }
    offset = next;
  }
  if (shown === 0)
    virtual[REGISTER.STATUS] = (virtual[REGISTER.STATUS] ?? 0) & ~STATUS.CAPABILITY_LIST;
}

// Power management events go to the host, which clears them; a user has no use for them.
function hideWakeUp(virtual: Uint8Array, offset: number): void {
  const clear = (at: number, bits: number): void => {
    virtual[at] = (virtual[at] ?? 0) & ~(bits & 0xff);
    virtual[at + 1] = (virtual[at + 1] ?? 0) & ~(bits >> 8);
  };
  clear(offset + PM.CAPABILITIES, PM.CAP_PME);
  clear(offset + PM.CONTROL, PM.PME_ENABLE | PM.PME_STATUS);
}

function hasExtended({ config, expressOffset }: PciDevice): boolean {
  if (config.bytes.length <= CONVENTIONAL_BYTES) return false;
  const pcix = config.findCapability(CAP.PCIX);
  const second = pcix !== 0 && (config.u16(pcix + PCIX.COMMAND) & PCIX.VERSION) !== 0;
  return (expressOffset !== 0 || second) && config.u32(REGISTER.EXTENDED) !== 0;
}

const NEXT_EXTENDED = 0xffc0_0000;

function layOutExtended(config: ConfigSpace, layout: ConfigLayout): void {
  const { owner, virtual } = layout;
  const view = new DataView(virtual.buffer);
  const steps = (config.bytes.length - CONVENTIONAL_BYTES) / 4;
  let previous: number | undefined;
  let shown = 0;
  let offset: number = REGISTER.EXTENDED;
  for (let step = 0; step < steps && offset >= REGISTER.EXTENDED; step++) {
    const header = config.u32(offset);
    const id = header & 0xffff;
    const next = (header >>> 20) & 0xffc;
    const bytes = id <= MAX_EXTENDED ? extendedBytes(config, id, offset) : 0;
    if (bytes === 0 && previous !== undefined) {
      const kept = view.getUint32(previous, true) & ~NEXT_EXTENDED;
      view.setUint32(previous, (kept | (next << 20)) >>> 0, true);
      offset = next;
      continue;
    }
    owner.fill(id & 0xff, offset, offset + (bytes === 0 ? 4 : bytes));
    copy(config, layout, offset, bytes === 0 ? 4 : bytes);
    if (bytes === 0) view.setUint32(offset, (header & NEXT_EXTENDED) >>> 0, true);
    else shown++;
    previous = offset;
    offset = next;
  }
  if (shown === 0) view.setUint32(REGISTER.EXTENDED, 0, true);
}
