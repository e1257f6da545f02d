/**
 * Configuration space as hardware answers to it: which bits a write changes, which it clears, and who hears of it. Not here: what
 * Linux or VFIO let a program do with it.
 *
 * Invariant: bytes change by {@link ConfigRegisters.write} or by the hardware itself, never in bits that are neither writable nor
 * clearable by a write.
 *
 * PCI Express Base 6.0, section 7.4 (RO, RW, RW1C).
 */
import type { ConfigSpace } from './config-space.ts';

/** One bit for each bit of configuration space; both as long as it. */
export type RegisterBits = {
  /** keeps what is written (RW) */
  readonly writable: Uint8Array;
  /** a written 1 makes it 0 (RW1C) */
  readonly clearable: Uint8Array;
};

/** Bytes from `first` up to and with `last` were written; `value` is what the bus carried. */
export type ConfigWrite = { readonly first: number; readonly last: number; readonly value: number };

export class ConfigRegisters {
  readonly config: ConfigSpace;
  readonly bits: RegisterBits;
  readonly #listeners: ((write: ConfigWrite) => void)[] = [];

  constructor(config: ConfigSpace, bits: RegisterBits) {
    this.config = config;
    this.bits = bits;
  }

  /** Hears of each write, after the bits have changed. */
  onWrite(listener: (write: ConfigWrite) => void): void {
    this.#listeners.push(listener);
  }

  /** @param count 1, 2 or 4; all ones where nothing decodes */
  read(offset: number, count: number): number {
    if (count === 1) return this.config.u8(offset);
    return count === 2 ? this.config.u16(offset) : this.config.u32(offset);
  }

  /** @param count 1, 2 or 4; bytes beyond the end are dropped */
  write(offset: number, count: number, value: number): void {
    const { bytes } = this.config;
    const { writable, clearable } = this.bits;
    for (let i = 0; i < count && offset + i < bytes.length; i++) {
      const at = offset + i;
      const written = (value >>> (8 * i)) & 0xff;
      const old = bytes[at] ?? 0;
      const keeps = writable[at] ?? 0;
      const clears = written & (clearable[at] ?? 0);
      bytes[at] = ((old & ~keeps) | (written & keeps)) & ~clears;
    }
    const write = { first: offset, last: offset + count - 1, value };
    for (const listener of this.#listeners) listener(write);
  }

  /** Changes the bits in `mask` of a 16-bit register, as a driver's read-modify-write does. */
  update16(offset: number, mask: number, value: number): void {
    const old = this.config.u16(offset);
    const next = (old & ~mask) | (value & mask);
    if (next !== old) this.write(offset, 2, next);
  }
}

/** The write covers any byte of `count` from `offset`. */
export function covers({ first, last }: ConfigWrite, offset: number, count: number): boolean {
  return first < offset + count && last >= offset;
}
