/**
 * Which bits of a function's configuration space software can change: as a real one showed it (what each dword reads after writing
 * ones and after writing zeros), or as the specifications say for a function that was only described.
 *
 * A described function has no registers but those of its header and its capabilities: everything else reads as it is and keeps
 * nothing.
 *
 * PCI Local Bus 3.0, chapter 6; PCI Express Base 6.0, sections 7.5.1 to 7.9.
 */
import { barAfterWrite, barFlags, barWords, romRegister, ROM_ENABLE, type Sizes } from './bar.ts';
import { REGISTER, type ConfigSpace } from './config-space.ts';
import { AER, CAP, COMMAND, EXP, EXT, HEADER, MSI, MSIX, PM, STATUS, VPD } from './pci-regs.ts';
import type { RegisterBits } from './registers.ts';

const DECODE = COMMAND.IO | COMMAND.MEMORY | COMMAND.MASTER;

function noBits(config: ConfigSpace): RegisterBits {
  const { length } = config.bytes;
  return { writable: new Uint8Array(length), clearable: new Uint8Array(length) };
}

function set(bits: Uint8Array, offset: number, count: number, value: number): void {
  for (let i = 0; i < count && offset + i < bits.length; i++) {
    bits[offset + i] = (bits[offset + i] ?? 0) | ((value >>> (8 * i)) & 0xff);
  }
}

/**
 * The bits that a real function showed.
 * @param ones what it read after writing ones; command: without the decode and bus master bits
 * @param zeros what it read after writing zeros
 */
export function recordedBits(
  config: ConfigSpace,
  ones: Uint8Array,
  zeros: Uint8Array,
): RegisterBits {
  const bits = noBits(config);
  for (let i = 0; i < config.bytes.length; i++) {
    bits.writable[i] = (ones[i] ?? 0) & ~(zeros[i] ?? 0);
  }
  set(bits.writable, REGISTER.COMMAND, 2, DECODE);
  addClearable(config, bits.clearable);
  for (let i = 0; i < config.bytes.length; i++) {
    bits.writable[i] = (bits.writable[i] ?? 0) & ~(bits.clearable[i] ?? 0);
  }
  return bits;
}

/** The bits of a function that was only described. */
export function describedBits(config: ConfigSpace, sizes: Sizes): RegisterBits {
  const bits = noBits(config);
  const { writable } = bits;
  set(writable, REGISTER.COMMAND, 2, DECODE | COMMAND.INTX_DISABLE | PARITY | SERR);
  set(writable, HEADER.CACHE_LINE, 1, 0xff);
  set(writable, HEADER.INTERRUPT_LINE, 1, 0xff);
  addBars(writable, config, sizes);
  for (const { id, offset } of config.capabilities()) {
    STANDARD.get(id)?.forEach(([at, count, value]) => {
      set(writable, offset + at, count, value);
    });
    if (id === CAP.MSI) addMsi(writable, config, offset);
  }
  for (const { id, offset } of config.extendedCapabilities()) {
    EXTENDED.get(id)?.forEach(([at, count, value]) => {
      set(writable, offset + at, count, value);
    });
  }
  addClearable(config, bits.clearable);
  return bits;
}

const PARITY = 0x40;
const SERR = 0x100;

/** offset in the capability, bytes, writable bits */
type Field = readonly [number, number, number];

const STANDARD: ReadonlyMap<number, readonly Field[]> = new Map<number, readonly Field[]>([
  [CAP.PM, [[PM.CONTROL, 2, PM.STATE | PM.PME_ENABLE]]],
  [CAP.VPD, [[VPD.ADDRESS, 2, 0xffff]]],
  [CAP.MSIX, [[MSIX.FLAGS, 2, MSIX.ENABLE | MSIX.MASK_ALL]]],
  [
    CAP.EXPRESS,
    [
      [EXP.DEVICE_CONTROL, 2, 0x7fff],
      [EXP.LINK_CONTROL, 2, 0x01cb],
      [EXP.DEVICE_CONTROL_2, 2, 0x007f],
      [EXP.LINK_CONTROL_2, 2, 0x000f],
    ],
  ],
]);

const EXTENDED: ReadonlyMap<number, readonly Field[]> = new Map<number, readonly Field[]>([
  [
    EXT.AER,
    [
      [AER.UNCOR_MASK, 4, 0x07ff_f030],
      [AER.UNCOR_SEVERITY, 4, 0x07ff_f030],
      [AER.COR_MASK, 4, 0xf1c1],
      [AER.CONTROL, 4, 0x0140],
    ],
  ],
]);

const ONES = 0xffff_ffff;

function addBars(
  writable: Uint8Array,
  config: ConfigSpace,
  { bars = [], romSize = 0n }: Sizes,
): void {
  for (const bar of bars) {
    const at = REGISTER.BAR0 + 4 * bar.index;
    set(writable, at, 4, (barAfterWrite(bar, 0, ONES) ^ barFlags(bar)) >>> 0);
    if (barWords(bar) === 2) set(writable, at + 4, 4, barAfterWrite(bar, 1, ONES));
  }
  const rom = romRegister(config);
  if (rom === undefined || romSize === 0n) return;
  set(writable, rom, 4, Number(BigInt.asUintN(32, -romSize)) | ROM_ENABLE);
}

function addMsi(writable: Uint8Array, config: ConfigSpace, offset: number): void {
  const flags = config.u16(offset + MSI.FLAGS);
  const wide = (flags & MSI.SIXTY_FOUR) !== 0;
  set(writable, offset + MSI.FLAGS, 2, MSI.ENABLE | MSI.QSIZE);
  set(writable, offset + MSI.ADDRESS_LO, 4, 0xffff_fffc);
  if (wide) set(writable, offset + MSI.ADDRESS_HI, 4, 0xffff_ffff);
  set(writable, offset + (wide ? MSI.DATA_64 : MSI.DATA_32), 2, 0xffff);
  if ((flags & MSI.MASKABLE) === 0) return;
  const vectors = 1 << ((flags & MSI.QMASK) >> 1);
  set(writable, offset + (wide ? MSI.MASK_64 : MSI.MASK_32), 4, 2 ** vectors - 1);
}

function addClearable(config: ConfigSpace, clearable: Uint8Array): void {
  set(clearable, REGISTER.STATUS, 2, STATUS.CLEARABLE);
  for (const { id, offset } of config.capabilities()) {
    if (id === CAP.PM) set(clearable, offset + PM.CONTROL, 2, PM.PME_STATUS);
    if (id === CAP.EXPRESS) set(clearable, offset + EXP.DEVICE_CONTROL + 2, 2, 0x000f);
  }
  for (const { id, offset } of config.extendedCapabilities()) {
    if (id !== EXT.AER) continue;
    set(clearable, offset + AER.UNCOR_STATUS, 4, 0xffff_ffff);
    set(clearable, offset + AER.COR_STATUS, 4, 0xffff_ffff);
  }
}
