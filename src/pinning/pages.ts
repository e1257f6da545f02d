/**
 * Pages: a page set, a linear run of memory that areas, domains and accesses share.
 *
 * A page set names memory by its source: an address range of the process that made it, a file, or a dma-buf. What frame
 * lies behind a page is found out when somebody first needs it: a domain that is filled, or an access that pins. From
 * then until the last of them is gone the frame stays, whatever the process does to its address space, and every further
 * user of the page sees the same frame. Each page is pinned once for the set, however many use it.
 *
 * Invariant: the pinned pages (pins.ts) are exactly those that have a user; their number is `pinned`, which is what the
 * payer was charged.
 * Words: index, number of a page in the set; last is inclusive.
 *
 * After drivers/iommu/iommufd/pages.c, whose three places for frames (domain, xarray, source) are one list here.
 */
import { Errno } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';
import { addressOf, hex } from '../base/position.ts';
import type { AddressSpace, FileMemory, PageRun } from '../base/task.ts';
import { PAGE_SIZE, pfnOf, type FrameRun, type PhysicalMemory } from '../machine/memory.ts';
import type { Accounting, Payer } from './accounting.ts';
import type { DmaBuf } from './dma-buf.ts';
import { Pins, type Piece } from './pins.ts';

/** Where the pages come from; page sets may share one. */
export type Source =
  | { readonly kind: 'user'; readonly memory: AddressSpace }
  | { readonly kind: 'file'; readonly file: FileMemory }
  | { readonly kind: 'dmabuf'; readonly buffer: DmaBuf };

/** What pinning needs of the machine. */
export type Pinning = {
  readonly physical: PhysicalMemory;
  readonly accounting: Accounting;
  readonly faults: Faults;
};

export type PagesOptions = {
  /** page number of index 0 in the source */
  readonly firstPage: number;
  /** number of pages */
  readonly count: number;
  readonly writable: boolean;
  readonly payer: Payer;
};

export class Pages {
  readonly source: Source;
  /** page number of index 0 in the source */
  readonly firstPage: number;
  readonly count: number;
  readonly writable: boolean;
  payer: Payer;
  /** areas that refer to the set, plus the calls that are building one */
  users = 1;
  /** pages that are pinned now */
  pinned = 0;
  /** areas of a dma-buf that show it in domains, for revocation; other memory is never revoked */
  readonly fills: Set<{ unmapDomains(): void }> | undefined;
  #revoked = false;
  readonly #pinning: Pinning;
  // Made when it is first needed: most page sets of an IOAS without domain never are pinned.
  #pins: Pins | undefined;

  constructor(pinning: Pinning, source: Source, options: PagesOptions) {
    this.#pinning = pinning;
    this.source = source;
    this.firstPage = options.firstPage;
    this.count = options.count;
    this.writable = options.writable;
    this.payer = options.payer;
    this.fills = source.kind === 'dmabuf' ? new Set() : undefined;
  }

  /** Address of a byte of the set in its source. */
  addressOf({ index, offset }: { readonly index: number; readonly offset: number }): bigint {
    return addressOf(this.firstPage + index, offset);
  }

  get(): this {
    this.users++;
    return this;
  }

  put(): void {
    this.users--;
    if (this.users > 0) return;
    if (this.#pins?.isEmpty === false) throw new Error('a page set is freed with pages pinned');
    if (this.isDmaBuf && this.source.kind === 'dmabuf') this.source.buffer.detach(this);
  }

  get isDmaBuf(): boolean {
    // Not asked of the source: among a million page sets each further object costs as much as all the rest.
    return this.fills !== undefined;
  }

  /** The exporter of the dma-buf withdrew the memory; the set stays in place, without memory, for good. */
  get isRevoked(): boolean {
    return this.#revoked;
  }

  /** iopt_revoke_notify: takes the memory out of every domain that shows it. */
  revoke(): void {
    if (this.#revoked) return;
    for (const fill of this.fills ?? []) fill.unmapDomains();
    this.#revoked = true;
  }

  /**
   * Becomes a user of pages [first, last], pins what is not; EFAULT, EINVAL, ENOMEM, and nothing changed then.
   * @param show what is done with the pinned pages before anybody is charged for them (iopt_area_fill_domain)
   */
  acquire(first: number, last: number, show?: () => void): void {
    const { faults, accounting } = this.#pinning;
    const added = this.#addUser(first, last);
    const charged = this.isDmaBuf ? 0 : added;
    try {
      show?.();
      if (charged > 0) {
        faults.point('ENOMEM', 'charging pinned pages');
        accounting.charge(this.payer, charged);
      }
    } catch (error) {
      this.#dropUser(first, last);
      throw error;
    }
    this.pinned += charged;
  }

  /** Stops being a user of pages [first, last] and unpins those that nobody uses. */
  release(first: number, last: number): void {
    const removed = this.#dropUser(first, last);
    if (removed === 0 || this.isDmaBuf) return;
    this.pinned -= removed;
    this.#pinning.accounting.uncharge(this.payer, removed);
  }

  /** Somebody else pays for what is pinned. ENOMEM over their limit, and nothing changed then. */
  chargeTo(payer: Payer): void {
    const { accounting } = this.#pinning;
    accounting.charge(payer, this.pinned);
    accounting.uncharge(this.payer, this.pinned);
    this.payer = payer;
  }

  /** The frames of pages [first, last], all of which are pinned, in order. */
  pieces(first: number, last: number): Piece[] {
    return this.#pins?.pieces(first, last) ?? [];
  }

  /**
   * Copies bytes of the set: pages that are pinned from their frames, others by a pin that nobody pays for. EFAULT, EINVAL.
   * After iopt_pages_rw_slow.
   */
  copy(start: { index: number; offset: number }, bytes: Uint8Array, write: boolean): void {
    const last = start.index + Math.floor((start.offset + bytes.length - 1) / PAGE_SIZE);
    // Nothing can unpin them meanwhile, and nobody sees a pin that is gone when the copy is made.
    const pinned = this.#pins?.pinned(start.index, last) ?? 'none';
    if (pinned === 'none') {
      copyRuns(this.#find(start.index, last), start.offset, { bytes, write });
      return;
    }
    if (pinned !== 'some') {
      copyRuns(pinned.map(runOf), start.offset, { bytes, write });
      return;
    }
    this.#addUser(start.index, last);
    try {
      const runs = this.pieces(start.index, last).map(runOf);
      copyRuns(runs, start.offset, { bytes, write });
    } finally {
      this.#dropUser(start.index, last);
    }
  }

  /**
   * Copies within one page, straight from the living process. EFAULT, EINVAL. After iopt_pages_rw_page.
   * @param caller memory of the thread that calls: its own pages need not be found first
   */
  copyPage(
    start: { index: number; offset: number },
    { bytes, write }: Copy,
    caller: AddressSpace | undefined,
  ): void {
    const { source } = this;
    if (source.kind !== 'user') throw new Error('only memory of a process is copied page by page');
    this.#pinning.faults.point('EINVAL', 'copying within a page');
    if (source.memory === caller && !caller.mayShowDevices) {
      copyUser(source.memory, this.addressOf(start), { bytes, write });
      return;
    }
    const runs = source.memory.resolve(this.firstPage + start.index, 1, write);
    copyRuns(runs, start.offset, { bytes, write });
  }

  /** For `--check`: pinned ranges with their users. */
  get pinnedRanges(): readonly {
    readonly first: number;
    readonly last: number;
    readonly users: number;
  }[] {
    return this.#pins?.ranges ?? [];
  }

  /** @returns how many pages were pinned for it */
  #addUser(first: number, last: number): number {
    this.#pins ??= new Pins(this.#pinning.physical);
    return this.#pins.add(first, last, (from, to) => this.#pin(from, to));
  }

  /** @returns how many pages nobody uses any more; they are unpinned */
  #dropUser(first: number, last: number): number {
    return this.#pins?.drop(first, last) ?? 0;
  }

  #find(first: number, last: number): PageRun[] {
    const { faults } = this.#pinning;
    if (!this.isDmaBuf) {
      faults.alloc('list of pages to pin');
      faults.point('EFAULT', 'pinning pages');
    }
    return this.#resolve(first, last - first + 1);
  }

  #pin(first: number, last: number): readonly FrameRun[] {
    const { physical } = this.#pinning;
    const found = this.#find(first, last);
    const only = found.length === 1 ? found[0] : undefined;
    const runs =
      only === undefined ? found.flatMap((run) => physical.frames(run)) : physical.frames(only);
    for (const run of runs) physical.pin(run);
    return runs;
  }

  #resolve(first: number, count: number): PageRun[] {
    const { source } = this;
    const page = this.firstPage + first;
    switch (source.kind) {
      case 'user':
        if (source.memory.exited) {
          throw new Errno(
            'EFAULT',
            'the process whose memory was mapped has exited, its pages cannot be pinned any more',
          );
        }
        return source.memory.resolve(page, count, this.writable);
      case 'file':
        return resolveFile(source.file, page, count);
      case 'dmabuf':
        return [{ backing: source.buffer.backing, page, count }];
    }
  }
}

/** Bytes that go to the pages (`write`) or come from them. */
export type Copy = { readonly bytes: Uint8Array; readonly write: boolean };

/** Copies by address, as copy_from_user and copy_to_user; EFAULT. */
export function copyUser(memory: AddressSpace, address: bigint, { bytes, write }: Copy): void {
  if (write) memory.copyOut(address, bytes);
  else memory.copyIn(address, bytes);
}

const runOf = ({ run, page, count }: Piece): PageRun => ({ backing: run.backing, page, count });

/** @param offset of the first byte in the first page */
function copyRuns(runs: readonly PageRun[], offset: number, { bytes, write }: Copy): void {
  let done = 0;
  let inPage = offset;
  for (const { backing, page, count } of runs) {
    const length = Math.min(count * PAGE_SIZE - inPage, bytes.length - done);
    const chunk = length === bytes.length ? bytes : bytes.subarray(done, done + length);
    const at = page * PAGE_SIZE + inPage;
    if (write) backing.write(at, chunk);
    else backing.read(at, chunk);
    done += length;
    inPage = 0;
  }
}

/** Numbers of the frames, one by one. */
export function* pfnsOf(pieces: Iterable<Piece>): Generator<number> {
  for (const { run, page, count } of pieces) {
    for (let i = 0; i < count; i++) yield pfnOf(run, page + i);
  }
}

/** As memfd_pin_folios: memory-backed files only, and only what lies within the file. */
function resolveFile(file: FileMemory, page: number, count: number): PageRun[] {
  if (!file.pinnable) {
    throw new Errno('EINVAL', `${file.backing.name} is not a memfd, its pages cannot be pinned`);
  }
  const end = (page + count) * PAGE_SIZE;
  if (end > file.size) {
    throw new Errno(
      'EINVAL',
      `pages up to byte ${hex(end)} reach beyond the end of ${file.backing.name} at ${hex(file.size)}`,
    );
  }
  return [{ backing: file.backing, page, count }];
}
