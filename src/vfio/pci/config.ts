/**
 * Configuration space as a user of vfio-pci reads and writes it: some bits go to the hardware, some to a virtual copy, and some writes
 * do more than change a register (memory decoding, power state, resets, INTx Disable, message interrupts, product data).
 *
 * An access is cut into aligned pieces of 1, 2 or 4 bytes that stay within one capability; each piece follows the rules of its
 * capability alone.
 *
 * Invariant: `layout.virtual` holds what the user sees in virtual bits; BARs in it are brought into the form of a real register
 * (size, type) only when they are read, as sizing writes ones first.
 *
 * After drivers/vfio/pci/vfio_pci_config.c.
 */
import { Errno } from '../../base/errno.ts';
import { BAR_COUNT, RESOURCE, ROM_ENABLE } from '../../machine/pci/bar.ts';
import { msiBytes } from '../../machine/pci/capability-length.ts';
import { CONVENTIONAL_BYTES, REGISTER } from '../../machine/pci/config-space.ts';
import type { ManagedFunction } from '../../machine/pci/managed-function.ts';
import { AF, CAP, COMMAND, EXP, EXT, HEADER, MSI, PM, VPD } from '../../machine/pci/pci-regs.ts';
import { BASIC, layOut, NONE, type ConfigLayout } from './config-layout.ts';
import {
  EXTENDED_PERMISSIONS,
  msiPermissions,
  STANDARD_PERMISSIONS,
  type Permissions,
} from './config-permissions.ts';

/** What writes to configuration space make the device do. */
export type ConfigEffects = {
  /** The user's memory decoding bit changes: mappings go away before it is switched off. */
  memoryOff(): void;
  /** Mappings may be used again if memory is enabled. */
  memoryMayBeOn(): void;
  setPowerState(state: number): void;
  /** FLR or AF: whatever method works; failures are not told to the user. */
  tryReset(): void;
  /** INTx Disable of the user. */
  intxDisabled(disabled: boolean): void;
  /** MSI is what the user has enabled by SET_IRQS. */
  readonly msiActive: boolean;
  /** log2 of the vectors that were last enabled */
  readonly msiQueueMax: number;
};

/** One piece of an access: `offset` is within the capability. */
type Piece = {
  readonly position: number;
  readonly count: number;
  readonly offset: number;
  readonly permissions: Permissions;
};

export class VirtualConfig {
  readonly #managed: ManagedFunction;
  readonly #effects: ConfigEffects;
  readonly #layout: ConfigLayout;
  readonly #view: DataView;
  readonly #msi: Permissions | undefined;
  // BARs and ROM register as they were at open: the real ones, which a reset behind Linux's back clears.
  readonly #realBars: readonly number[];
  #barsDirty = true;

  constructor(managed: ManagedFunction, effects: ConfigEffects) {
    const { pci, config } = managed;
    this.#managed = managed;
    this.#effects = effects;
    this.#layout = layOut(pci);
    this.#view = new DataView(this.#layout.virtual.buffer);
    const msi = config.findCapability(CAP.MSI);
    const flags = config.u16(msi + MSI.FLAGS);
    this.#msi = msi === 0 ? undefined : msiPermissions(flags, msiBytes(flags));
    const bars = Array.from({ length: BAR_COUNT }, (_, i) => config.u32(REGISTER.BAR0 + 4 * i));
    this.#realBars = [...bars, config.u32(HEADER.ROM)];
    if (pci.isVirtualFunction) this.#becomeVirtualFunction();
    if (!managed.hasIrq) this.#layout.virtual[REGISTER.INTERRUPT_PIN] = 0;
  }

  // A virtual function shows no ids and has no memory enable bit of its own.
  #becomeVirtualFunction(): void {
    const { pci } = this.#managed;
    this.#view.setUint16(REGISTER.VENDOR, pci.vendor, true);
    this.#view.setUint16(REGISTER.DEVICE, pci.device, true);
    this.#view.setUint16(REGISTER.COMMAND, this.command | COMMAND.MEMORY, true);
  }

  /** The command register's virtual copy: memory and I/O bits are the user's wish. */
  get command(): number {
    return this.#view.getUint16(REGISTER.COMMAND, true);
  }

  /** INTx as the user sees it. */
  get hasPin(): boolean {
    return this.#layout.virtual[REGISTER.INTERRUPT_PIN] !== 0;
  }

  get size(): number {
    return this.#layout.owner.length;
  }

  /** Within the end. */
  read(position: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const { value, count } = this.#readPiece(position + done, into.length - done);
      for (let i = 0; i < count; i++) into[done + i] = (value >>> (8 * i)) & 0xff;
      done += count;
    }
  }

  /** Within the end. */
  write(position: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const count = this.#pieceLength(position + done, bytes.length - done);
      let value = 0;
      for (let i = count - 1; i >= 0; i--) value = value * 256 + (bytes[done + i] ?? 0);
      this.#writePiece(position + done, count, value);
      done += count;
    }
  }

  /** EFAULT for an access that goes up to `end`, if that is beyond the last register: nothing of it is made then. */
  checkEnd(end: number): void {
    if (end <= this.size) return;
    throw new Errno(
      'EFAULT',
      `configuration space of ${this.#managed.pci.name} ends at 0x${this.size.toString(16)}`,
    );
  }

  /** Bytes up to the end of the capability, the dword or the access, as one aligned access of 1, 2 or 4. */
  #pieceLength(position: number, wanted: number): number {
    const { owner } = this.#layout;
    let same = 1;
    while ((position + same) % 4 !== 0 && owner[position + same] === owner[position]) same++;
    const count = Math.min(wanted, same);
    if (count >= 4 && position % 4 === 0) return 4;
    return count >= 2 && position % 2 === 0 ? 2 : 1;
  }

  #start(position: number): number {
    const { owner } = this.#layout;
    const id = owner[position];
    if (id === BASIC && position < HEADER.BYTES) return 0;
    const base = position >= CONVENTIONAL_BYTES ? CONVENTIONAL_BYTES : HEADER.BYTES;
    let start = position;
    while (start > base && owner[start - 1] === id) start--;
    return start;
  }

  #permissions(position: number, id: number): Permissions | undefined {
    if (position >= CONVENTIONAL_BYTES) return EXTENDED_PERMISSIONS.get(id);
    return id === CAP.MSI ? this.#msi : STANDARD_PERMISSIONS.get(id);
  }

  #hardware(position: number, count: number): number {
    return this.#managed.registers.read(position, count);
  }

  #virtual(position: number, count: number): number {
    return little(this.#layout.virtual, position, count);
  }

  #readPiece(position: number, wanted: number): { value: number; count: number } {
    const count = this.#pieceLength(position, wanted);
    const id = this.#layout.owner[position] ?? NONE;
    if (id === NONE) return { value: this.#hardware(position, count), count };
    const offset = position - this.#start(position);
    const permissions = this.#permissions(position, id);
    if (permissions === undefined)
      return { value: this.#readDirect(position, count, offset), count };
    const piece = { position, count, offset, permissions };
    if (id === BASIC && position < CONVENTIONAL_BYTES && isBar(offset)) this.#shapeBars();
    return { value: this.#readDefault(piece), count };
  }

  #readDefault({ position, count, offset, permissions }: Piece): number {
    const virtual = little(permissions.virtual, offset, count);
    const kept = this.#virtual(position, count);
    if (virtual === ones(count)) return kept;
    return ((this.#hardware(position, count) & ~virtual) | (kept & virtual)) >>> 0;
  }

  /** From the hardware, but for the header of a list entry. */
  #readDirect(position: number, count: number, offset: number): number {
    const value = this.#hardware(position, count);
    if (position >= CONVENTIONAL_BYTES) return offset < 4 ? this.#virtual(position, count) : value;
    if (offset === 0 && count > 1) {
      return ((value & ~0xffff) | this.#virtual(position, 2)) >>> 0;
    }
    return offset === 1 ? ((value & ~0xff) | this.#virtual(position, 1)) >>> 0 : value;
  }

  #writePiece(position: number, count: number, value: number): void {
    const id = this.#layout.owner[position] ?? NONE;
    const conventional = position < CONVENTIONAL_BYTES;
    const raw = conventional
      ? id === NONE || id === CAP.VENDOR
      : id === NONE || id === EXT.VENDOR || id === EXT.DVSEC;
    if (raw) {
      this.#managed.registers.write(position, count, value);
      return;
    }
    const permissions = this.#permissions(position, id);
    if (permissions === undefined) return;
    const piece = { position, count, offset: position - this.#start(position), permissions };
    if (conventional) this.#writeStandard(id, piece, value);
    else this.#writeDefault(piece, value);
  }

  #writeStandard(id: number, piece: Piece, value: number): void {
    switch (id) {
      case BASIC:
        this.#writeHeader(piece, value);
        return;
      case CAP.PM:
        this.#writeDefault(piece, value);
        if (piece.offset === PM.CONTROL) this.#effects.setPowerState(value & PM.STATE);
        return;
      case CAP.VPD:
        this.#writeVpd(piece, value);
        return;
      case CAP.EXPRESS:
        this.#writeExpress(piece, value);
        return;
      case CAP.AF:
        this.#writeAf(piece, value);
        return;
      case CAP.MSI:
        this.#writeMsi(piece, value);
        return;
      default:
        this.#writeDefault(piece, value);
    }
  }

  /** Virtual bits go to the copy, the others to the hardware, neither where they cannot be written. */
  #writeDefault({ position, count, offset, permissions }: Piece, value: number): void {
    const writable = little(permissions.writable, offset, count);
    if (writable === 0) return;
    const virtual = little(permissions.virtual, offset, count);
    const kept = writable & virtual;
    if (kept !== 0) {
      this.#setVirtual(position, count, (this.#virtual(position, count) & ~kept) | (value & kept));
    }
    const through = writable & ~virtual;
    if (through === 0) return;
    const next = (this.#hardware(position, count) & ~through) | (value & through);
    this.#managed.registers.write(position, count, next >>> 0);
  }

  #setVirtual(position: number, count: number, value: number): void {
    const { virtual } = this.#layout;
    for (let i = 0; i < count; i++) virtual[position + i] = (value >>> (8 * i)) & 0xff;
  }

  #writeHeader(piece: Piece, value: number): void {
    const { offset } = piece;
    const isCommand = offset === REGISTER.COMMAND;
    if (isCommand) this.#beforeCommand(value);
    this.#writeDefault(piece, value);
    if (isCommand) {
      const decode = COMMAND.MEMORY | COMMAND.IO;
      this.#view.setUint16(REGISTER.COMMAND, (this.command & ~decode) | (value & decode), true);
      this.#effects.memoryMayBeOn();
    }
    if (isCommand || offset === REGISTER.COMMAND + 1) {
      this.#effects.intxDisabled((this.command & COMMAND.INTX_DISABLE) !== 0);
    }
    if (isBar(offset)) this.#barsDirty = true;
  }

  // Decoding that the user left on and finds off was lost to a reset that nobody saw: the real BARs are gone with it.
  #beforeCommand(value: number): void {
    if ((value & COMMAND.MEMORY) === 0) this.#effects.memoryOff();
    const real = this.#hardware(REGISTER.COMMAND, 2);
    const lost = value & this.command & ~real;
    const { pci } = this.#managed;
    const memoryLost = (lost & COMMAND.MEMORY) !== 0 && !pci.isVirtualFunction;
    if (memoryLost || (lost & COMMAND.IO) !== 0 || this.#barsLost()) this.#restoreBars();
  }

  #barsLost(): boolean {
    return this.#realBars
      .slice(0, BAR_COUNT)
      .some((bar, i) => bar !== 0 && this.#hardware(REGISTER.BAR0 + 4 * i, 4) !== bar);
  }

  #restoreBars(): void {
    const { pci, registers } = this.#managed;
    if (pci.isVirtualFunction) return;
    this.#realBars.forEach((bar, i) => {
      registers.write(i < BAR_COUNT ? REGISTER.BAR0 + 4 * i : HEADER.ROM, 4, bar);
    });
  }

  /** Virtual BARs get the bits that a real one has: fixed by its size, and its type. */
  #shapeBars(): void {
    if (!this.#barsDirty) return;
    for (let i = 0; i < BAR_COUNT; i++) {
      const at = REGISTER.BAR0 + 4 * i;
      const { start, size, kind, prefetchable } = this.#managed.region(i);
      if (start === 0n) {
        this.#view.setUint32(at, 0, true);
        continue;
      }
      const mask = BigInt.asUintN(64, -size);
      const flags = kind === 'io' ? 1 : (prefetchable ? 8 : 0) | (kind === 'memory64' ? 4 : 0);
      const low = this.#view.getUint32(at, true) & Number(mask & 0xffff_ffffn);
      this.#view.setUint32(at, (low | flags) >>> 0, true);
      if (kind !== 'memory64') continue;
      const high = this.#view.getUint32(at + 4, true) & Number(mask >> 32n);
      this.#view.setUint32(at + 4, high >>> 0, true);
      i++;
    }
    this.#shapeRom();
    this.#barsDirty = false;
  }

  #shapeRom(): void {
    const { start, size } = this.#managed.region(RESOURCE.ROM);
    const mask = start === 0n ? 0 : Number(BigInt.asUintN(32, -size)) | ROM_ENABLE;
    const register = this.#view.getUint32(HEADER.ROM, true);
    this.#view.setUint32(HEADER.ROM, (register & mask) >>> 0, true);
  }

  #writeVpd(piece: Piece, value: number): void {
    const { position, offset, count } = piece;
    this.#writeDefault(piece, value);
    // The flag is in the upper byte of the address: its write starts the transfer.
    const flagByte = VPD.ADDRESS + 1;
    if (offset > flagByte || offset + count <= flagByte) return;
    const start = position - offset;
    const address = this.#view.getUint16(start + VPD.ADDRESS, true);
    const transferred = this.#transferVpd(start, address);
    if (transferred) this.#view.setUint16(start + VPD.ADDRESS, address ^ VPD.FLAG, true);
  }

  // Without product data a transfer never completes: the user runs into its own timeout, as Linux means it to.
  #transferVpd(start: number, address: number): boolean {
    const { productData } = this.#managed;
    const at = address & ~VPD.FLAG;
    if (productData === undefined) return false;
    const data = new Uint8Array(this.#layout.virtual.buffer, start + VPD.DATA, 4);
    if ((address & VPD.FLAG) !== 0) return productData.write(at, data);
    const read = productData.read(at);
    data.set(read);
    return true;
  }

  #writeExpress(piece: Piece, value: number): void {
    const start = piece.position - piece.offset;
    const at = start + EXP.DEVICE_CONTROL;
    const before = this.#view.getUint16(at, true) & EXP.READ_REQUEST;
    this.#writeDefault(piece, value);
    const control = this.#view.getUint16(at, true);
    if ((control & EXP.FLR) !== 0) {
      this.#view.setUint16(at, control & ~EXP.FLR, true);
      const capable = (this.#hardware(start + EXP.DEVICE_CAP, 4) & EXP.FLR_CAPABLE) !== 0;
      if (capable) this.#effects.tryReset();
    }
    const request = this.#view.getUint16(at, true) & EXP.READ_REQUEST;
    if (request !== before) this.#setReadRequest(start, request);
  }

  // The user's read request size reaches the hardware, but not below the payload size that the host chose.
  #setReadRequest(start: number, request: number): void {
    const at = start + EXP.DEVICE_CONTROL;
    const payload = (this.#hardware(at, 2) & EXP.PAYLOAD) >> 5;
    const code = Math.max(request >> 12, payload);
    if (code > LARGEST_REQUEST) return;
    this.#managed.registers.update16(at, EXP.READ_REQUEST, code << 12);
  }

  #writeAf(piece: Piece, value: number): void {
    const start = piece.position - piece.offset;
    this.#writeDefault(piece, value);
    const { virtual } = this.#layout;
    const control = virtual[start + AF.CONTROL] ?? 0;
    if ((control & AF.START) === 0) return;
    virtual[start + AF.CONTROL] = control & ~AF.START;
    const wanted = AF.FLR | AF.TP;
    if ((this.#hardware(start + AF.CAP, 1) & wanted) === wanted) this.#effects.tryReset();
  }

  // Enabled by SET_IRQS alone: the register follows that, and never asks for more vectors than were set up.
  #writeMsi(piece: Piece, value: number): void {
    const { position, offset, count } = piece;
    this.#writeDefault(piece, value);
    if (offset > MSI.FLAGS || offset + count < MSI.FLAGS) return;
    const at = this.#start(position) + MSI.FLAGS;
    let flags = this.#view.getUint16(at, true);
    if (!this.#effects.msiActive) flags &= ~MSI.ENABLE;
    const most = this.#effects.msiQueueMax;
    if ((flags & MSI.QSIZE) >> 4 > most) flags = (flags & ~MSI.QSIZE) | (most << 4);
    this.#view.setUint16(at, flags, true);
    this.#managed.registers.write(at, 2, flags);
  }
}

const LARGEST_REQUEST = 5;

function ones(count: number): number {
  return 0xffff_ffff >>> (32 - 8 * count);
}

function little(bytes: Uint8Array, offset: number, count: number): number {
  let value = 0;
  for (let i = count - 1; i >= 0; i--) value = value * 256 + (bytes[offset + i] ?? 0);
  return value;
}

function isBar(offset: number): boolean {
  const bar = offset >= REGISTER.BAR0 && offset < REGISTER.BAR0 + 4 * BAR_COUNT;
  return bar || (offset >= HEADER.ROM && offset < HEADER.ROM + 4);
}
