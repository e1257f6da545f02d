/**
 * Base address registers: what they claim, where they are, and what Linux makes of them.
 *
 * A register holds its own flags in the low bits and an address in the rest. Bits below the size do not stick, so writing ones
 * and reading back tells the size; that is the one thing which the bytes of configuration space do not say, and why a machine
 * carries {@link Bar} beside them. Everything else is read from the registers when Linux finds the function, and kept: what a
 * program writes to them later changes the hardware and not what Linux believes.
 *
 * Does not choose addresses: assign-addresses.ts does.
 *
 * After PCI Local Bus 3.0 section 6.2.5 and drivers/pci/probe.c (pci_read_bases, pci_read_bridge_windows), flags as in
 * include/linux/ioport.h.
 */
import { EXT_SRIOV, SRIOV } from './capabilities.ts';
import { HEADER_BRIDGE, HEADER_NORMAL, REGISTER, type ConfigSpace } from './config-space.ts';

/** One base address register. */
export type Bar = {
  readonly index: number;
  /** in bytes, a power of two */
  readonly size: bigint;
  readonly kind: 'memory32' | 'memory64' | 'io';
  readonly prefetchable: boolean;
  /** where it is from the beginning; without, firmware chooses. Afterwards the register counts */
  readonly address?: bigint | undefined;
};

export const RESOURCE_FLAGS = {
  IO: 0x100,
  MEMORY: 0x200,
  PREFETCH: 0x2000,
  READ_ONLY: 0x4000,
  SIZE_ALIGN: 0x4_0000,
  MEMORY_64: 0x10_0000,
  UNSET: 0x2000_0000,
} as const;

/** A range of addresses, as `struct resource`: `last` is inclusive, flags of 0 stand for one that is not there. */
export type Resource = { readonly start: bigint; readonly last: bigint; readonly flags: number };

/** Places in a function's list of resources: BARs from 0, then these. */
export const RESOURCE = { ROM: 6, IOV: 7, WINDOWS: 13, COUNT: 17 } as const;

export const BAR_COUNT = 6;
const BRIDGE_BARS = 2;

const KIND_BITS: Readonly<Record<Bar['kind'], number>> = { io: 1, memory32: 0, memory64: 4 };
const PREFETCHABLE = 8;
const IO_FLAG_BITS = 0x3n;
const MEMORY_FLAG_BITS = 0xfn;
const DWORD = 0xffff_ffffn;
const NOTHING: Resource = { start: 0n, last: 0n, flags: 0 };

/** What the low bits of the register always read. */
export function barFlags({ kind, prefetchable }: Bar): number {
  return KIND_BITS[kind] | (prefetchable ? PREFETCHABLE : 0);
}

/** How many registers it takes. */
export function barWords({ kind }: Bar): 1 | 2 {
  return kind === 'memory64' ? 2 : 1;
}

/**
 * What a register reads after a write.
 * @param word 0, or 1 for the upper half of a 64-bit one
 */
export function barAfterWrite(bar: Bar, word: 0 | 1, written: number): number {
  const sticks = -bar.size;
  const value = BigInt(written >>> 0);
  if (word === 1) return Number(value & (sticks >> 32n) & DWORD);
  const flagBits = bar.kind === 'io' ? IO_FLAG_BITS : MEMORY_FLAG_BITS;
  return Number(value & sticks & DWORD & ~flagBits) + barFlags(bar);
}

/** Where the register says that it is; 0 where nobody has said so. */
export function barAddress(config: ConfigSpace, bar: Bar): bigint {
  return addressAt(config, REGISTER.BAR0, bar);
}

function addressAt(config: ConfigSpace, bar0: number, { kind, index }: Bar): bigint {
  const offset = bar0 + 4 * index;
  const flagBits = kind === 'io' ? IO_FLAG_BITS : MEMORY_FLAG_BITS;
  const low = BigInt(config.u32(offset)) & ~flagBits;
  return kind === 'memory64' ? low | (BigInt(config.u32(offset + 4)) << 32n) : low;
}

export function setBarAddress(config: ConfigSpace, bar: Bar, address: bigint): void {
  setAddressAt(config, REGISTER.BAR0, { bar, address });
}

/** The place of a BAR of all virtual functions, in the capability of their physical one. */
export function setVfBarAddress(config: ConfigSpace, bar: Bar, address: bigint): void {
  const capability = config.findExtendedCapability(EXT_SRIOV);
  if (capability !== 0) setAddressAt(config, capability + SRIOV.BAR0, { bar, address });
}

type Placement = { readonly bar: Bar; readonly address: bigint };

function setAddressAt(config: ConfigSpace, bar0: number, { bar, address }: Placement): void {
  const offset = bar0 + 4 * bar.index;
  config.setU32(offset, barAfterWrite(bar, 0, Number(address & DWORD)));
  if (barWords(bar) === 2) {
    config.setU32(offset + 4, barAfterWrite(bar, 1, Number(address >> 32n)));
  }
}

/** How many base address registers the header has room for. */
export function barCount(config: ConfigSpace): number {
  if (config.headerType === HEADER_NORMAL) return BAR_COUNT;
  return config.headerType === HEADER_BRIDGE ? BRIDGE_BARS : 0;
}

/** Offset of the expansion ROM's register; undefined for a header without one. */
export function romRegister(config: ConfigSpace): number | undefined {
  if (config.headerType === HEADER_NORMAL) return REGISTER.ROM;
  return config.headerType === HEADER_BRIDGE ? REGISTER.BRIDGE_ROM : undefined;
}

export const ROM_ENABLE = 1;
const ROM_ADDRESS_BITS = 0xffff_f800;

/** The ROM's place; whether it decodes stays as it is. */
export function setRomAddress(config: ConfigSpace, address: bigint): void {
  const offset = romRegister(config);
  if (offset === undefined) return;
  config.setU32(offset, Number(address & DWORD) + (config.u32(offset) & ROM_ENABLE));
}

/** What belongs to a function and its configuration space does not tell. */
export type Sizes = {
  readonly bars?: readonly Bar[] | undefined;
  /** bytes of the expansion ROM */
  readonly romSize?: bigint | undefined;
  /** BARs of each virtual function */
  readonly vfBars?: readonly Bar[] | undefined;
};

/** The function's resources as Linux finds them, {@link RESOURCE.COUNT} of them. */
export function readResources(config: ConfigSpace, sizes: Sizes): Resource[] {
  const resources = Array.from({ length: RESOURCE.COUNT }, () => NOTHING);
  for (const bar of sizes.bars ?? []) {
    if (bar.index < barCount(config)) {
      resources[bar.index] = ranged(barAddress(config, bar), bar.size, resourceFlags(bar));
    }
  }
  const { romSize = 0n } = sizes;
  if (romSize > 0n) resources[RESOURCE.ROM] = romResource(config, romSize);
  readVfBars(config, sizes, resources);
  if (config.headerType === HEADER_BRIDGE) {
    resources[RESOURCE.WINDOWS] = ioWindow(config);
    resources[RESOURCE.WINDOWS + 1] = memoryWindow(config);
    resources[RESOURCE.WINDOWS + 2] = prefetchableWindow(config);
  }
  return resources;
}

export function resourceSize({ start, last, flags }: Resource): bigint {
  return flags === 0 || (last === 0n && start === 0n) ? 0n : last - start + 1n;
}

/** How Linux marks a register of this kind. */
export function resourceFlags(bar: Bar): number {
  const { IO, MEMORY, MEMORY_64, PREFETCH, SIZE_ALIGN } = RESOURCE_FLAGS;
  const own = barFlags(bar) | SIZE_ALIGN;
  if (bar.kind === 'io') return own | IO;
  return (
    own | MEMORY | (bar.kind === 'memory64' ? MEMORY_64 : 0) | (bar.prefetchable ? PREFETCH : 0)
  );
}

/** A line of sysfs `resource`: START LAST FLAGS, hexadecimal; undefined for anything else. */
export function parseResource(line: string): Resource | undefined {
  const match = /^\s*(0x[0-9a-f]+)[ ,]+(0x[0-9a-f]+)[ ,]+(0x[0-9a-f]+)\s*$/i.exec(line);
  if (match === null) return undefined;
  const [, start = '0', last = '0', flags = '0'] = match;
  return { start: BigInt(start), last: BigInt(last), flags: Number(flags) };
}

/** The register behind lines of sysfs `resource`; undefined for one that is not there. */
export function barOfResource(index: number, { start, last, flags }: Resource): Bar | undefined {
  const size = last - start + 1n;
  if ((flags & (RESOURCE_FLAGS.IO | RESOURCE_FLAGS.MEMORY)) === 0 || last <= start)
    return undefined;
  const wide = (flags & RESOURCE_FLAGS.MEMORY_64) !== 0 ? 'memory64' : 'memory32';
  return {
    index,
    size,
    kind: (flags & RESOURCE_FLAGS.IO) === 0 ? wide : 'io',
    prefetchable: (flags & RESOURCE_FLAGS.PREFETCH) !== 0,
  };
}

// A register that firmware left at 0 decodes nowhere: Linux knows the size only, and looks for a place.
function ranged(start: bigint, size: bigint, flags: number): Resource {
  const placed = start === 0n ? flags | RESOURCE_FLAGS.UNSET : flags;
  return { start, last: start + size - 1n, flags: placed };
}

function romResource(config: ConfigSpace, size: bigint): Resource {
  const offset = romRegister(config);
  if (offset === undefined) return NOTHING;
  const { MEMORY, PREFETCH, READ_ONLY, SIZE_ALIGN } = RESOURCE_FLAGS;
  const start = BigInt((config.u32(offset) & ROM_ADDRESS_BITS) >>> 0);
  return ranged(start, size, MEMORY | PREFETCH | READ_ONLY | SIZE_ALIGN);
}

// What all virtual functions together take, one after the other.
function readVfBars(config: ConfigSpace, { vfBars = [] }: Sizes, resources: Resource[]): void {
  const offset = vfBars.length === 0 ? 0 : config.findExtendedCapability(EXT_SRIOV);
  if (offset === 0) return;
  const total = BigInt(config.u16(offset + SRIOV.TOTAL_VFS));
  for (const bar of vfBars) {
    const start = addressAt(config, offset + SRIOV.BAR0, bar);
    resources[RESOURCE.IOV + bar.index] = ranged(start, bar.size * total, resourceFlags(bar));
  }
}

const IO_GRANULE = 0x1000n;
const MEMORY_GRANULE = 0x10_0000n;
const RANGE_TYPE = 0xf;
const RANGE_TYPE_64 = 1;

function ioWindow(config: ConfigSpace): Resource {
  const [base, limit] = [config.u8(REGISTER.IO_BASE), config.u8(REGISTER.IO_LIMIT)];
  const upper = (base & RANGE_TYPE) === 1;
  const start =
    BigInt((base & 0xf0) << 8) + (upper ? BigInt(config.u16(REGISTER.IO_BASE_UPPER)) << 16n : 0n);
  const end =
    BigInt((limit & 0xf0) << 8) + (upper ? BigInt(config.u16(REGISTER.IO_LIMIT_UPPER)) << 16n : 0n);
  // Zeros are what a bridge without the window reads.
  if (base === 0 && limit === 0) return NOTHING;
  return window(start, end + IO_GRANULE - 1n, (base & RANGE_TYPE) | RESOURCE_FLAGS.IO);
}

function memoryWindow(config: ConfigSpace): Resource {
  const [base, limit] = [config.u16(REGISTER.MEMORY_BASE), config.u16(REGISTER.MEMORY_LIMIT)];
  if (base === 0 && limit === 0) return NOTHING;
  const start = BigInt(base & ~RANGE_TYPE) << 16n;
  const end = (BigInt(limit & ~RANGE_TYPE) << 16n) + MEMORY_GRANULE - 1n;
  return window(start, end, (base & RANGE_TYPE) | RESOURCE_FLAGS.MEMORY);
}

function prefetchableWindow(config: ConfigSpace): Resource {
  const [base, limit] = [config.u16(REGISTER.PREFETCH_BASE), config.u16(REGISTER.PREFETCH_LIMIT)];
  if (base === 0 && limit === 0) return NOTHING;
  const wide = (base & RANGE_TYPE) === RANGE_TYPE_64;
  const upper = (offset: number): bigint => (wide ? BigInt(config.u32(offset)) << 32n : 0n);
  const start = upper(REGISTER.PREFETCH_BASE_UPPER) + (BigInt(base & ~RANGE_TYPE) << 16n);
  const end =
    upper(REGISTER.PREFETCH_LIMIT_UPPER) +
    (BigInt(limit & ~RANGE_TYPE) << 16n) +
    MEMORY_GRANULE -
    1n;
  const { MEMORY, MEMORY_64, PREFETCH } = RESOURCE_FLAGS;
  const flags = (base & RANGE_TYPE) | MEMORY | PREFETCH | (wide ? MEMORY_64 : 0);
  return window(start, end, flags);
}

// A base above its limit is how a window is switched off.
function window(start: bigint, last: bigint, flags: number): Resource {
  return start > last ? NOTHING : { start, last, flags };
}
