/**
 * The memfd behind all opens of one device, in which each region lies where Linux has it. Mappings of it show the device's memory:
 * once a BAR that is plain memory is mapped, its bytes live here, and the engine reaches them by read and write; after the last
 * close they are the engine's again. Registers, whose every access the device has to see, cannot be mapped.
 *
 * While the device's memory is off, the file is empty, so that every mapping of it raises SIGBUS; its bytes are kept aside, and
 * the engine works on those. The supervisor never maps the file: a client that truncates it would end the supervisor. A client
 * may also fill it: only what regions have is ever kept.
 *
 * After vfio_pci_zap_bars and vfio_pci_mmap_page_fault of drivers/vfio/pci/vfio_pci_core.c; docs/decisions/region-memory.md.
 */
import { Errno } from '../../base/errno.ts';
import { REGION_OFFSET_SHIFT } from '../../base/file-offsets.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { SparseBacking } from '../../base/sparse-backing.ts';
import type {
  Backing,
  DeviceMemory,
  MemoryHome,
  MmapGrant,
  WrittenPiece,
} from '../../base/task.ts';
import {
  closeFile,
  dataOf,
  identifyFile,
  identity,
  readAt,
  resizeFile,
  writeAt,
} from '../../os/files.ts';

/** Part of the file, in bytes. */
type Window = { readonly offset: number; readonly length: number };

const REGION_BYTES = 2 ** REGION_OFFSET_SHIFT;
const PIECE = 1 << 18;

export class RegionFile {
  readonly memory: DeviceMemory;
  readonly fd: number;
  /** by index of a region, where in the file it ends, as far as it was used */
  readonly #ends = new Map<number, number>();
  /** size of the file while it is on; 0 until something is mapped */
  #size = 0;
  #on = false;
  /** what the file would have, while it is off */
  #aside: SparseBacking;
  /** whose bytes live here */
  readonly #moved = new Set<Backing>();

  /** @param fd of an empty memfd; closed by {@link close} */
  constructor(memory: DeviceMemory, fd: number) {
    this.memory = memory;
    this.fd = fd;
    this.#aside = this.#empty();
  }

  /** The last open is closed, and the last mapping gone. */
  close(): void {
    for (const backing of this.#moved) backing.moveBack?.();
    closeFile(this.fd);
  }

  /** Makes the file show a window; ENODEV for what cannot live here: registers. */
  show({ kind, backing, page }: MmapGrant, { offset, length }: Window): void {
    const first = page * PAGE_BYTES;
    if (kind === 'trapped')
      throw new Errno('ENODEV', `registers of ${this.memory.name} cannot be mapped yet`);
    if (!this.#moved.has(backing)) this.#move(backing, offset - first);
    this.#extend(offset, length);
    this.follow();
  }

  #move(backing: Backing, base: number): void {
    if (backing.moveTo === undefined) throw new Errno('ENODEV', `${backing.name} cannot be shared`);
    backing.moveTo(this.#home(base));
    this.#moved.add(backing);
  }

  /** The region that begins at `base`. */
  #home(base: number): MemoryHome {
    return {
      read: (at, into) => {
        this.#read(base + at, into);
      },
      write: (at, bytes) => {
        this.#extend(base + at, bytes.length);
        this.#write(base + at, bytes);
      },
      contents: () => this.#contents(base),
    };
  }

  *#contents(base: number): Generator<WrittenPiece> {
    const end = this.#ends.get(base / REGION_BYTES) ?? base;
    for (const { offset, bytes } of this.#on ? this.#inFile(base, end) : this.#aside.contents()) {
      if (offset >= base && offset < end) yield { offset: offset - base, bytes };
    }
  }

  *#inFile(from: number, to: number): Generator<WrittenPiece> {
    for (const { start, end } of dataOf(this.fd, from, to)) {
      for (let offset = start; offset < end; offset += PIECE) {
        const bytes = new Uint8Array(Math.min(PIECE, end - offset));
        yield { offset, bytes: bytes.subarray(0, Math.max(0, readAt(this.fd, bytes, offset))) };
      }
    }
  }

  #extend(offset: number, length: number): void {
    const index = Math.floor(offset / REGION_BYTES);
    const end = Math.ceil((offset + length) / PAGE_BYTES) * PAGE_BYTES;
    this.#ends.set(index, Math.max(end, this.#ends.get(index) ?? 0));
    this.#size = Math.max(end, this.#size);
  }

  #read(offset: number, into: Uint8Array): void {
    if (!this.#on) {
      this.#aside.read(offset, into);
      return;
    }
    // Beyond what a client left of the file.
    into.fill(0, Math.max(0, readAt(this.fd, into, offset)));
  }

  #write(offset: number, bytes: Uint8Array): void {
    if (this.#on) writeAt(this.fd, bytes, offset);
    else this.#aside.write(offset, bytes);
  }

  /** Lets mappings be touched exactly while the device permits it. */
  follow(): void {
    if (this.#size === 0) return;
    const { usable } = this.memory;
    if (usable !== this.#on) {
      if (usable) this.#turnOn();
      else this.#turnOff();
    }
    // A client may have changed it.
    const size = this.#on ? this.#size : 0;
    if (identifyFile(this.fd) === 0 && identity.size !== size) resizeFile(this.fd, size);
  }

  #turnOn(): void {
    resizeFile(this.fd, this.#size);
    for (const { offset, bytes } of this.#aside.contents()) writeAt(this.fd, bytes, offset);
    this.#aside = this.#empty();
    this.#on = true;
  }

  // What is stored between the copy and the truncation is lost (docs/divergence.md).
  #turnOff(): void {
    for (const [index, end] of this.#ends) {
      for (const { offset, bytes } of this.#inFile(index * REGION_BYTES, end)) {
        this.#aside.write(offset, bytes);
      }
    }
    resizeFile(this.fd, 0);
    this.#on = false;
  }

  #empty(): SparseBacking {
    return new SparseBacking(`memory of ${this.memory.name}`);
  }
}
