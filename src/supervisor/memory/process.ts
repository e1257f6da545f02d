/**
 * The memory of a client's process, as the engine wants it: bytes at addresses, and pages with an identity.
 *
 * Structs of a call are copied by process_vm_readv and process_vm_writev on the calling thread: page protections hold, as for
 * copy_from_user. Pinned pages are reached through /proc/PID/mem: it stays with the address space it was opened on (after
 * exec or exit it yields nothing, never another program's memory) and, like DMA, does not care for protections that were
 * changed after the pin.
 *
 * Identity: private memory is one backing for each address space, numbered by virtual address; shared memory is one backing
 * for each file (device, inode), numbered by file offset (shared-memory.ts).
 *
 * Nothing of ours keeps private pages in place once the client unmaps them; what still is pinned when the address space ends is
 * copied to a store of ours in time ({@link ClientSpace.preserve}), so that DMA through it goes on.
 */
import { Errno } from '../../base/errno.ts';
import { KIB_PER_PAGE, PAGE_BYTES, hex, offsetOf, USER_END } from '../../base/position.ts';
import type { AddressSpace, Backing, PageRun } from '../../base/task.ts';
import { closeFile, openPath, readAt, readText, writeAt } from '../../os/files.ts';
import { O_RDONLY, O_RDWR } from '../../os/numbers.ts';
import {
  HELD_BACK,
  isAtHand,
  parseMappings,
  PIECE,
  pieceBytes,
  queryMapping,
  READ_BLOCK,
  readMemory,
  writeMemory,
  type Mapping,
} from '../../os/process.ts';
import type { PinnedMemory } from '../../kernel/kernel.ts';
import { kept } from '../fds/limit.ts';
import type { Turn } from '../turn.ts';
import { forgetReadAhead, readAhead } from './read-ahead.ts';
import { preservePages, type PreservedPages } from './preserve.ts';
import type { SharedMemories } from './shared.ts';

const ZEROS = new Uint8Array(PIECE);

/** What all address spaces of a run share. */
export type ClientMemory = {
  readonly pins: PinnedMemory;
  readonly shared: SharedMemories;
  /** The thread of the current call still waits for its answer: its number means no other thread yet. */
  callerWaits(): boolean;
};

/** Private pages of one address space, numbered by virtual address. */
class PrivateMemory implements Backing {
  readonly name: string;
  readonly unit: number;
  readonly #space: ClientSpace;
  #store: PreservedPages | undefined;

  constructor(space: ClientSpace, unit: number) {
    this.#space = space;
    this.unit = unit;
    this.name = `private memory of process ${space.pid}`;
  }

  read(offset: number, into: Uint8Array): void {
    if (this.#space.readLive(offset, into)) return;
    this.#kept(offset, into.length).read(offset, into);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (this.#space.writeLive(offset, bytes)) return;
    this.#kept(offset, bytes.length).write(offset, bytes);
  }

  /** Copies these pages to a store of ours, for the time after the address space. */
  preserve(
    memory: number,
    pages: readonly { readonly page: number; readonly count: number }[],
  ): void {
    this.#store?.close();
    const source = { memory, pagemap: `/proc/${this.#space.pid}/pagemap` };
    this.#store = preservePages(this.name, source, pages);
  }

  #kept(offset: number, length: number): PreservedPages {
    if (this.#store !== undefined && !this.#space.alive) return this.#store;
    throw new Errno(
      'EFAULT',
      `${this.name} has nothing at ${hex(offset)} (${length} bytes) any more: it was unmapped, or the process was killed`,
    );
  }
}

export class ClientSpace implements AddressSpace {
  readonly pid: number;
  /** processes that run in it */
  readonly users = new Set<number>();
  pinnedPages = 0;
  lockedPages = 0;

  get mayShowDevices(): boolean {
    return this.#memory.shared.windowsShown;
  }

  /** VmLck as the host has it. */
  get lockedByItself(): number {
    if (this.#exited) return 0;
    const kilobytes = /^VmLck:\s+(\d+)/m.exec(readText(`/proc/${this.pid}/status`) ?? '')?.[1];
    return Number(kilobytes ?? 0) / KIB_PER_PAGE;
  }

  /** thread that makes the current call; 0 outside of its calls */
  caller = 0;
  /** of that call */
  turn: Turn | undefined;
  /** An exec may be under way, after which the caller's number stands for the new program: what was read may be its. */
  mayExec = false;
  readonly #memory: ClientMemory;
  readonly #private = new Map<number, PrivateMemory>();
  #exited = false;
  #maps: number | undefined;
  #mem: number | undefined;

  constructor(pid: number, memory: ClientMemory) {
    this.pid = pid;
    this.#memory = memory;
    memory.shared.spaceBegan(this);
  }

  // Asked anew: who waited for the end of a process may call before the loop has heard of it.
  get exited(): boolean {
    return !this.alive;
  }

  get knownExited(): boolean {
    return this.#exited;
  }

  /** Somebody still runs in it. */
  get alive(): boolean {
    if (this.#exited) return false;
    if (this.#maps === undefined) return true;
    return queryMapping(this.#maps, 0) !== -3 || this.#listing() !== '';
  }

  copyIn(address: bigint, into: Uint8Array): void {
    if (into.length === 0) return;
    // Beyond USER_END has memory who asked for it (5-level page tables): no copy from there has to be fast.
    if (into.length <= READ_BLOCK && this.caller !== 0 && address < USER_END) {
      if (!readAhead(this, this.caller, { address: Number(address), into })) {
        throw this.#unreadable(address, into.length);
      }
      if (this.mayExec) this.#checkCaller();
      return;
    }
    for (let done = 0; done < into.length;) {
      const length = Math.min(PIECE, into.length - done);
      const at = beyond(address, done);
      if (readMemory(this.#thread(), at, length) !== length) {
        throw this.#unreadable(at, length);
      }
      copyBytes(pieceBytes, into, done, length);
      done += length;
    }
    if (this.mayExec) this.#checkCaller();
  }

  isZero(address: bigint, length: number): boolean {
    let zero = true;
    this.#inPieces(`${address} ${length}`, length, (done) => {
      const at = beyond(address, done);
      let bytes = Math.min(PIECE, length - done);
      // What lies before the unreadable page counts first.
      if (readMemory(this.#thread(), at, bytes) !== bytes) {
        bytes = Math.min(bytes, PAGE_BYTES - offsetOf(at));
        if (readMemory(this.#thread(), at, bytes) !== bytes) throw this.#unreadable(at, bytes);
      }
      zero = Buffer.compare(pieceBytes.subarray(0, bytes), ZEROS.subarray(0, bytes)) === 0;
      return zero ? done + bytes : length;
    });
    if (this.mayExec) this.#checkCaller();
    return zero;
  }

  #inPieces(name: string, total: number, step: (done: number) => number): void {
    if (this.turn !== undefined) {
      this.turn.inPieces(name, total, step);
      return;
    }
    for (let done = 0; done < total;) done = step(done);
  }

  copyOut(address: bigint, bytes: Uint8Array): void {
    // A call that is left in the middle shows nothing of what it did.
    if (this.turn?.again !== undefined) return;
    forgetReadAhead();
    this.#checkCaller();
    for (let done = 0; done < bytes.length;) {
      const piece = bytes.length <= PIECE ? bytes : bytes.subarray(done, done + PIECE);
      const at = beyond(address, done);
      pieceBytes.set(piece);
      const written = writeMemory(this.#thread(), at, piece.length);
      if (written === -HELD_BACK) this.#post(at, piece.slice());
      else if (written !== piece.length) throw this.#unwritable(at, piece.length);
      done += piece.length;
    }
  }

  // By way of the memory itself: until it is written, the thread's number may come to mean another one. That does not care for
  // protections.
  #post(at: bigint, bytes: Uint8Array): void {
    const address = Number(at);
    const last = address + bytes.length - 1;
    for (let page = Math.floor(address / PAGE_BYTES); page * PAGE_BYTES <= last; page++) {
      if (this.#mapping(page)?.writable !== true) throw this.#unwritable(at, bytes.length);
    }
    const memory = openPath(`/proc/${this.#thread()}/mem`, O_RDWR);
    if (memory < 0 || this.turn === undefined) throw this.#unwritable(at, bytes.length);
    this.turn.posted.push({ memory, address, bytes });
    this.#checkCaller();
  }

  #unwritable(at: bigint, length: number): Errno {
    return new Errno(
      'EFAULT',
      `${length} bytes at ${hex(at)} cannot be written by process ${this.pid}`,
    );
  }

  resolve(page: number, count: number, write: boolean): PageRun[] {
    const runs: PageRun[] = [];
    const end = page + count;
    for (let at = page; at < end;) {
      const mapping = this.#mapping(at);
      const refusal = refusalOf(mapping, write);
      if (refusal !== undefined || mapping === undefined) {
        throw new Errno(
          'EFAULT',
          `page at ${hex(at * PAGE_BYTES)} of process ${this.pid} ${refusal}`,
        );
      }
      const length = Math.min(end, mapping.end / PAGE_BYTES) - at;
      append(runs, this.#locate(mapping, { page: at, count: length }, write));
      at += length;
    }
    return runs;
  }

  /** Fills `into` from a live address; false if there is nothing (any more). */
  readLive(address: number, into: Uint8Array): boolean {
    if (this.#exited || !isAtHand(this.#thread(), address, into.length)) return false;
    return readAt(this.#memFile(), into, address) === into.length;
  }

  writeLive(address: number, bytes: Uint8Array): boolean {
    forgetReadAhead();
    if (this.#exited || !isAtHand(this.#thread(), address, bytes.length)) return false;
    return writeAt(this.#memFile(), bytes, address) === bytes.length;
  }

  /** The mapping that holds a page. */
  mappingAt(page: number): Mapping | undefined {
    return this.#mapping(page);
  }

  /** All mappings; none of an address space that has ended. */
  mappings(): Mapping[] {
    if (this.#exited) return [];
    try {
      this.#maps ??= this.#open('maps', O_RDONLY);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return [];
    }
    return parseMappings(this.#listing());
  }

  /** Copies what is pinned, because the address space may be gone at the next look. */
  preserve(): void {
    // After an exec nothing is left to copy, and what was copied before must stay.
    if (!this.alive || this.users.size > 1) return;
    for (const backing of this.#private.values()) {
      const pages = this.#memory.pins.pinnedPages(backing);
      if (pages.length > 0) backing.preserve(this.#memFile(), pages);
    }
    this.#memory.shared.preserve(this);
  }

  /** Nobody runs in it any more. */
  end(): void {
    if (this.#exited) return;
    this.#exited = true;
    for (const backing of this.#private.values()) this.#memory.pins.forget(backing);
    this.#memory.shared.spaceEnded(this);
    if (this.#maps !== undefined) closeFile(this.#maps);
    if (this.#mem !== undefined) closeFile(this.#mem);
    this.#maps = this.#mem = undefined;
  }

  /** Open /proc/PID/mem, for whoever copies pages in bulk. */
  get memoryFile(): number {
    return this.#memFile();
  }

  #checkCaller(): void {
    if (this.caller === 0 || this.#memory.callerWaits()) return;
    throw new Errno('EFAULT', `thread ${this.caller} of process ${this.pid} has ended meanwhile`);
  }

  #thread(): number {
    return this.caller === 0 ? this.pid : this.caller;
  }

  #unreadable(address: bigint, length: number): Errno {
    return new Errno(
      'EFAULT',
      `${length} bytes at ${hex(address)} cannot be read by process ${this.pid}`,
    );
  }

  #locate(mapping: Mapping, pages: { page: number; count: number }, write: boolean): PageRun {
    if (mapping.shared && mapping.inode !== 0) {
      return this.#memory.shared.locate(this, mapping, { ...pages, write });
    }
    const unit = mapping.pageSize / PAGE_BYTES;
    let backing = this.#private.get(unit);
    if (backing === undefined) {
      backing = new PrivateMemory(this, unit);
      this.#private.set(unit, backing);
      // Opened while the address space is surely the one meant.
      this.#memFile();
    }
    return { backing, ...pages };
  }

  #mapping(page: number): Mapping | undefined {
    if (this.#exited) return undefined;
    this.#maps ??= this.#open('maps', O_RDONLY);
    const mapping = queryMapping(this.#maps, page * PAGE_BYTES);
    if (typeof mapping !== 'number') return mapping;
    // A kernel before 6.11 has only the text.
    const address = page * PAGE_BYTES;
    return this.mappings().find(({ start, end }) => start <= address && address < end);
  }

  #listing(): string {
    if (this.#maps === undefined) return '';
    // The kernel hands out about a page at each read, however much is asked for.
    const pieces: string[] = [];
    const piece = new Uint8Array(1 << 16);
    for (let done = 0; ;) {
      const length = readAt(this.#maps, piece, done);
      if (length <= 0) return pieces.join('');
      pieces.push(Buffer.from(piece.subarray(0, length)).toString('latin1'));
      done += length;
    }
  }

  #memFile(): number {
    this.#maps ??= this.#open('maps', O_RDONLY);
    this.#mem ??= this.#open('mem', O_RDWR);
    return this.#mem;
  }

  #open(name: string, flags: number): number {
    const fd = kept(openPath(`/proc/${this.#thread()}/${name}`, flags));
    if (fd >= 0 && this.mayExec) {
      try {
        this.#checkCaller();
      } catch (error) {
        closeFile(fd);
        throw error;
      }
    }
    if (fd >= 0) return fd;
    throw new Errno(
      'EFAULT',
      `the memory of process ${this.pid} may not be read (errno ${-fd}): it has ended, or its program file is not readable`,
    );
  }
}

function refusalOf(mapping: Mapping | undefined, write: boolean): string | undefined {
  if (mapping === undefined) return 'is not mapped';
  if (!mapping.readable) return 'may not be read (PROT_READ is missing)';
  if (write && !mapping.writable) return 'may not be written (PROT_WRITE is missing)';
  return undefined;
}

function append(runs: PageRun[], run: PageRun): void {
  const last = runs.at(-1);
  if (last?.backing === run.backing && last.page + last.count === run.page) {
    runs[runs.length - 1] = { ...last, count: last.count + run.count };
  } else {
    runs.push(run);
  }
}

// Nearly all that is copied is one piece, and a sum of bigints is a new object.
function beyond(address: bigint, bytes: number): bigint {
  return bytes === 0 ? address : BigInt.asUintN(64, address + BigInt(bytes));
}

// For the few bytes of a struct a loop is faster than making a view to copy from.
function copyBytes(from: Uint8Array, into: Uint8Array, at: number, length: number): void {
  if (length > 128) {
    into.set(from.subarray(0, length), at);
    return;
  }
  for (let i = 0; i < length; i++) into[at + i] = from[i] ?? 0;
}
