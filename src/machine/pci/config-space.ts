/**
 * Configuration space of one function, kept as the bytes that were read or made, and parsed on demand.
 *
 * What could not be read is not there: an ordinary user gets the first 64 bytes of a function, a conventional one has 256,
 * PCI Express has 4096. A read beyond what is there answers all ones, as a bus does where nobody decodes.
 *
 * Registers: PCI Local Bus 3.0 section 6.1, PCI Express Base 6.0 section 7.5; the walks through the capability lists give
 * up where Linux gives up (drivers/pci/pci.h: 48 steps, 480 for the extended list).
 */

export const HEADER_BYTES = 64;
export const CONVENTIONAL_BYTES = 256;
export const EXPRESS_BYTES = 4096;

/** Lengths that a configuration space may have: header only, conventional, PCI Express. */
export const CONFIG_LENGTHS: readonly number[] = [HEADER_BYTES, CONVENTIONAL_BYTES, EXPRESS_BYTES];

export const REGISTER = {
  VENDOR: 0x00,
  DEVICE: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION: 0x08,
  CLASS: 0x09,
  CACHE_LINE: 0x0c,
  HEADER_TYPE: 0x0e,
  BAR0: 0x10,
  CARDBUS_CAPABILITIES: 0x14,
  PRIMARY_BUS: 0x18,
  SECONDARY_BUS: 0x19,
  SUBORDINATE_BUS: 0x1a,
  IO_BASE: 0x1c,
  IO_LIMIT: 0x1d,
  MEMORY_BASE: 0x20,
  MEMORY_LIMIT: 0x22,
  PREFETCH_BASE: 0x24,
  PREFETCH_LIMIT: 0x26,
  PREFETCH_BASE_UPPER: 0x28,
  PREFETCH_LIMIT_UPPER: 0x2c,
  SUBSYSTEM_VENDOR: 0x2c,
  SUBSYSTEM: 0x2e,
  ROM: 0x30,
  IO_BASE_UPPER: 0x30,
  IO_LIMIT_UPPER: 0x32,
  CAPABILITIES: 0x34,
  BRIDGE_ROM: 0x38,
  CARDBUS_SUBSYSTEM: 0x40,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
  EXTENDED: 0x100,
} as const;

export const HEADER_NORMAL = 0;
export const HEADER_BRIDGE = 1;
export const HEADER_CARDBUS = 2;
export const HEADER_MULTIFUNCTION = 0x80;

const STATUS_CAPABILITY_LIST = 0x10;
const CAPABILITY_STEPS = 48;
const EXTENDED_STEPS = (EXPRESS_BYTES - CONVENTIONAL_BYTES) / 8;
const NO_CAPABILITY = 0xff;

export type Capability = { readonly id: number; readonly offset: number };

export class ConfigSpace {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** @param bytes one of {@link CONFIG_LENGTHS} long; kept, not copied */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The capability lists were readable. */
  get complete(): boolean {
    return this.bytes.length >= CONVENTIONAL_BYTES;
  }

  u8(offset: number): number {
    return offset + 1 <= this.bytes.length ? this.#view.getUint8(offset) : 0xff;
  }

  u16(offset: number): number {
    return offset + 2 <= this.bytes.length ? this.#view.getUint16(offset, true) : 0xffff;
  }

  u32(offset: number): number {
    return offset + 4 <= this.bytes.length ? this.#view.getUint32(offset, true) : 0xffff_ffff;
  }

  setU8(offset: number, value: number): void {
    this.#view.setUint8(offset, value);
  }

  setU16(offset: number, value: number): void {
    this.#view.setUint16(offset, value, true);
  }

  setU32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  get headerType(): number {
    return this.u8(REGISTER.HEADER_TYPE) & ~HEADER_MULTIFUNCTION;
  }

  /** Class, subclass and programming interface in 24 bits. */
  get classCode(): number {
    return this.u8(REGISTER.CLASS) | (this.u16(REGISTER.CLASS + 1) << 8);
  }

  /** Where the list of standard capabilities begins; 0 if the function has none. */
  get #listHead(): number {
    if ((this.u16(REGISTER.STATUS) & STATUS_CAPABILITY_LIST) === 0) return 0;
    return this.headerType === HEADER_CARDBUS
      ? REGISTER.CARDBUS_CAPABILITIES
      : REGISTER.CAPABILITIES;
  }

  /** Standard capabilities in list order. A list that loops shows each entry as often as Linux would look at it. */
  *capabilities(): Generator<Capability> {
    const head = this.#listHead;
    if (head === 0 || !this.complete) return;
    let offset = this.u8(head);
    for (let step = 0; step < CAPABILITY_STEPS && offset >= HEADER_BYTES; step += 1) {
      offset &= ~3;
      const id = this.u8(offset);
      if (id === NO_CAPABILITY) return;
      yield { id, offset };
      offset = this.u8(offset + 1);
    }
  }

  /** Extended capabilities in list order. */
  *extendedCapabilities(): Generator<Capability> {
    if (this.bytes.length < EXPRESS_BYTES) return;
    let offset: number = REGISTER.EXTENDED;
    for (let step = 0; step < EXTENDED_STEPS && offset >= REGISTER.EXTENDED; step += 1) {
      const header = this.u32(offset);
      if (header === 0 || header === 0xffff_ffff) return;
      yield { id: header & 0xffff, offset };
      offset = (header >>> 20) & ~3;
    }
  }

  /** Offset of the first standard capability `id`; 0 if there is none. */
  findCapability(id: number): number {
    for (const capability of this.capabilities())
      if (capability.id === id) return capability.offset;
    return 0;
  }

  /** Offset of the first extended capability `id`; 0 if there is none. */
  findExtendedCapability(id: number): number {
    for (const capability of this.extendedCapabilities()) {
      if (capability.id === id) return capability.offset;
    }
    return 0;
  }
}
