/**
 * BARs and the expansion ROM by read and write: accesses of 8, 4, 2 or 1 bytes as alignment allows, with a hole that reads as
 * ones and drops writes (the MSI-X table; what a ROM's images leave of its BAR).
 *
 * Memory BARs answer only while the user has memory decoding on and the device is not in D3; I/O BARs always.
 *
 * After drivers/vfio/pci/vfio_pci_rdwr.c.
 */
import { Errno } from '../../base/errno.ts';
import { BAR_COUNT, RESOURCE } from '../../machine/pci/bar.ts';
import type { Backing } from '../../base/task.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import type { DeviceModel } from '../../machine/device-model.ts';
import type { ManagedFunction } from '../../machine/pci/managed-function.ts';
import { CAP, COMMAND, MSIX } from '../../machine/pci/pci-regs.ts';

/** What an access needs to know of the device. */
export type RegionState = {
  /** The user's memory decoding is on and the device awake. */
  readonly memoryEnabled: boolean;
};

/** Bytes from `first` up to `end`, not included. */
type Hole = { readonly first: number; readonly end: number };

const NO_HOLE: Hole = { first: 0, end: 0 };
const WIDEST = 8;
const WIDEST_ROM = 4;

export class Regions {
  readonly #managed: ManagedFunction;
  readonly #state: RegionState;
  readonly #msix: { readonly bar: number; readonly hole: Hole };

  constructor(managed: ManagedFunction, state: RegionState) {
    this.#managed = managed;
    this.#state = state;
    this.#msix = msixTable(managed);
  }

  /** BAR with the MSI-X table; -1 without one. */
  get msixBar(): number {
    return this.#msix.bar;
  }

  /** The range touches the MSI-X table. */
  overlapsMsixTable(bar: number, first: number, count: number): boolean {
    const { bar: at, hole } = this.#msix;
    return bar === at && first < hole.end && first + count > hole.first;
  }

  /** In bytes; 0: there is none. */
  size(bar: number): number {
    return Number(this.#managed.region(bar).size);
  }

  isMemory(bar: number): boolean {
    return this.size(bar) !== 0 && this.#managed.region(bar).kind !== 'io';
  }

  /** The BAR can be mapped: memory of a page or more, or alone in its page. After vfio_pci_probe_mmaps. */
  isMappable(bar: number): boolean {
    if (!this.isMemory(bar)) return false;
    const { start, size } = this.#managed.region(bar);
    return size >= PAGE || start % PAGE === 0n;
  }

  /** @returns bytes that were read: the access ends where the BAR does. EINVAL beyond it, EIO */
  readBar(bar: number, offset: number, into: Uint8Array): number {
    const count = this.#clip(bar, offset, into.length);
    const hole = this.#msix.bar === bar ? this.#msix.hole : NO_HOLE;
    each({ offset, count, hole, widest: WIDEST }, (at, bytes, inHole) => {
      const target = into.subarray(at - offset, at - offset + bytes);
      if (inHole) target.fill(0xff);
      else this.#readModel(bar, at, target);
    });
    return count;
  }

  /** @returns bytes that were written. EINVAL, EIO */
  writeBar(bar: number, offset: number, bytes: Uint8Array): number {
    const count = this.#clip(bar, offset, bytes.length);
    const hole = this.#msix.bar === bar ? this.#msix.hole : NO_HOLE;
    each({ offset, count, hole, widest: WIDEST }, (at, length, inHole) => {
      if (inHole) return;
      this.writeWord(bar, at, bytes.subarray(at - offset, at - offset + length));
    });
    return count;
  }

  /** Every byte of the BAR keeps what is written, so that programs may share its pages. */
  isPlainMemory(bar: number): boolean {
    return this.#model.memory(bar) !== undefined;
  }

  /** The BAR as mappings show it, whoever may use them. */
  backing(bar: number): Backing {
    return this.#model.memory(bar) ?? new TrappedBar(this.#managed, bar);
  }

  #clip(bar: number, offset: number, count: number): number {
    const { start } = this.#managed.region(bar);
    const end = this.size(bar);
    const { name } = this.#managed.pci;
    if (start === 0n) throw new Errno('EINVAL', `${name} has no ${labelOf(bar)}`);
    if (offset >= end) {
      throw new Errno('EINVAL', `${labelOf(bar)} of ${name} ends at 0x${end.toString(16)}`);
    }
    return Math.min(count, end - offset);
  }

  #requireMemory(bar: number): void {
    if (!this.isMemory(bar) || this.#state.memoryEnabled) return;
    throw new Errno(
      'EIO',
      `memory of ${this.#managed.pci.name} is disabled (PCI_COMMAND_MEMORY is 0, or the device is in D3)`,
    );
  }

  get #model(): DeviceModel {
    return this.#managed.hardware.model;
  }

  #readModel(bar: number, offset: number, into: Uint8Array): void {
    this.#requireMemory(bar);
    if (!this.#decodes(bar)) {
      into.fill(0xff);
      return;
    }
    const memory = this.#model.memory(bar);
    if (memory !== undefined) {
      memory.read(offset, into);
      return;
    }
    putWord(this.#model.read(bar, offset, into.length), into);
  }

  /** One access as the bus sees it, of 1, 2, 4 or 8 bytes. EIO */
  writeWord(bar: number, offset: number, bytes: Uint8Array): void {
    this.#requireMemory(bar);
    if (!this.#decodes(bar)) return;
    const memory = this.#model.memory(bar);
    if (memory !== undefined) {
      memory.write(offset, bytes);
      return;
    }
    this.#model.write(bar, offset, bytes.length, takeWord(bytes));
  }

  // The real bits: nothing answers on the bus where they are 0. Virtual functions have none of their own.
  #decodes(bar: number): boolean {
    const { pci, config } = this.#managed;
    if (pci.isVirtualFunction) return true;
    const bit = this.isMemory(bar) ? COMMAND.MEMORY : COMMAND.IO;
    return (config.u16(REGISTER.COMMAND) & bit) !== 0;
  }

  /** EINVAL without a ROM or beyond it, ENOMEM where it has no valid image, EIO */
  readRom(offset: number, into: Uint8Array): number {
    const count = this.#clip(RESOURCE.ROM, offset, into.length);
    const images = this.#managed.validRom();
    if (images === undefined) {
      throw new Errno('ENOMEM', `the ROM of ${this.#managed.pci.name} holds no valid image`);
    }
    const hole = { first: images.length, end: this.size(RESOURCE.ROM) };
    each({ offset, count, hole, widest: WIDEST_ROM }, (at, bytes, inHole) => {
      const target = into.subarray(at - offset, at - offset + bytes);
      if (inHole) {
        target.fill(0xff);
        return;
      }
      this.#requireMemory(RESOURCE.ROM);
      for (let i = 0; i < bytes; i++) target[i] = images[at + i] ?? 0xff;
    });
    return count;
  }
}

/** A BAR whose model answers each access: cut into aligned ones of at most 8 bytes. */
class TrappedBar implements Backing {
  readonly unit = 1;
  readonly name: string;
  readonly #model: DeviceModel;
  readonly #bar: number;

  constructor({ pci, hardware }: ManagedFunction, bar: number) {
    this.name = `BAR ${bar} of ${pci.name}`;
    this.#model = hardware.model;
    this.#bar = bar;
  }

  read(offset: number, into: Uint8Array): void {
    each({ offset, count: into.length, hole: NO_HOLE, widest: WIDEST }, (at, bytes) => {
      putWord(
        this.#model.read(this.#bar, at, bytes),
        into.subarray(at - offset, at - offset + bytes),
      );
    });
  }

  write(offset: number, from: Uint8Array): void {
    each({ offset, count: from.length, hole: NO_HOLE, widest: WIDEST }, (at, bytes) => {
      const value = takeWord(from.subarray(at - offset, at - offset + bytes));
      this.#model.write(this.#bar, at, bytes, value);
    });
  }
}

function putWord(value: bigint, into: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = Number((value >> BigInt(8 * i)) & 0xffn);
}

function takeWord(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

const PAGE = 4096n;

function labelOf(resource: number): string {
  return resource < BAR_COUNT ? `BAR ${resource}` : 'ROM';
}

function msixTable({ config }: ManagedFunction): { bar: number; hole: Hole } {
  const offset = config.findCapability(CAP.MSIX);
  if (offset === 0) return { bar: -1, hole: NO_HOLE };
  const table = config.u32(offset + MSIX.TABLE);
  const entries = (config.u16(offset + MSIX.FLAGS) & MSIX.TABLE_SIZE) + 1;
  const first = (table & ~MSIX.BIR) >>> 0;
  return { bar: table & MSIX.BIR, hole: { first, end: first + entries * MSIX.ENTRY_BYTES } };
}

type Access = {
  readonly offset: number;
  readonly count: number;
  readonly hole: Hole;
  readonly widest: number;
};

/** Cuts an access as Linux does: the widest aligned piece that neither reaches into the hole nor beyond the end. */
function each(
  { offset, count, hole, widest }: Access,
  visit: (at: number, bytes: number, inHole: boolean) => void,
): void {
  const end = offset + count;
  for (let at = offset; at < end;) {
    const inHole = at >= hole.first && at < hole.end;
    const limit = at < hole.first ? Math.min(end, hole.first) : end;
    const bytes = inHole ? Math.min(end, hole.end) - at : pieceAt(at, limit - at, widest);
    visit(at, bytes, inHole);
    at += bytes;
  }
}

function pieceAt(at: number, left: number, widest: number): number {
  for (let bytes = widest; bytes > 1; bytes /= 2) {
    if (left >= bytes && at % bytes === 0) return bytes;
  }
  return 1;
}
