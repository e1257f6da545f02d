/**
 * Memory of a client in this process: pages of buffers at the addresses where they were mapped. Nothing else can be read; a
 * page that was never written takes no space, so that a test can map terabytes.
 */
import { Errno } from '../base/errno.ts';
import { hex, MAX_ADDRESS, offsetOf, PAGE_BYTES } from '../base/position.ts';
import type { PagePiece } from '../base/sparse-backing.ts';
import type { AddressSpace, PageRun } from '../base/task.ts';

type Region = {
  readonly first: number;
  readonly last: number;
  readonly run: PageRun;
  readonly write: boolean;
};

/** Memory of a client in this process. */
export class BufferMemory implements AddressSpace {
  exited = false;
  pinnedPages = 0;
  lockedPages = 0;
  readonly lockedByItself = 0;
  readonly mayShowDevices = false;
  #regions: Region[] = [];

  /** Puts pages of a backing at an address, page aligned. */
  map(address: bigint, run: PageRun, options: { readonly readOnly?: boolean } = {}): void {
    const first = Number(address / BigInt(PAGE_BYTES));
    const last = first + run.count - 1;
    this.unmap(address, run.count);
    this.#regions.push({ first, last, run, write: options.readOnly !== true });
  }

  /** Takes whole regions away that start in the given pages. */
  unmap(address: bigint, pages: number): void {
    const first = Number(address / BigInt(PAGE_BYTES));
    this.#regions = this.#regions.filter(
      (region) => region.first < first || region.first >= first + pages,
    );
  }

  copyIn(address: bigint, into: Uint8Array): void {
    this.#copy({ address, length: into.length, write: false }, (run, { at, done, length }) => {
      run.backing.read(run.page * PAGE_BYTES + at, into.subarray(done, done + length));
    });
  }

  // Page by page: what lies before an unreadable byte counts first.
  isZero(address: bigint, length: number): boolean {
    for (let done = 0; done < length;) {
      const at = address + BigInt(done);
      const bytes = new Uint8Array(Math.min(PAGE_BYTES - offsetOf(at), length - done));
      this.copyIn(at, bytes);
      if (bytes.some((byte) => byte !== 0)) return false;
      done += bytes.length;
    }
    return true;
  }

  copyOut(address: bigint, bytes: Uint8Array): void {
    this.#copy({ address, length: bytes.length, write: true }, (run, { at, done, length }) => {
      run.backing.write(run.page * PAGE_BYTES + at, bytes.subarray(done, done + length));
    });
  }

  get knownExited(): boolean {
    return this.exited;
  }

  resolve(page: number, count: number, write: boolean): PageRun[] {
    if (this.exited) throw new Errno('EFAULT', 'the process is gone');
    const runs: PageRun[] = [];
    for (let next = page; next < page + count;) {
      const region = this.#regions.find(({ first, last }) => first <= next && next <= last);
      if (region === undefined || (write && !region.write)) {
        throw new Errno('EFAULT', `page ${hex(next)} is not there, or not writeable`);
      }
      const pages = Math.min(region.last, page + count - 1) - next + 1;
      const { backing } = region.run;
      runs.push({ backing, page: region.run.page + next - region.first, count: pages });
      next += pages;
    }
    return runs;
  }

  /** Another address space that shows the same pages. */
  clone(): BufferMemory {
    const copy = new BufferMemory();
    copy.#regions = [...this.#regions];
    return copy;
  }

  #copy(
    range: { readonly address: bigint; readonly length: number; readonly write: boolean },
    act: (run: PageRun, piece: PagePiece) => void,
  ): void {
    const { address, length, write } = range;
    if (length === 0) return;
    if (address + BigInt(length) - 1n > MAX_ADDRESS) {
      throw new Errno('EFAULT', `${hex(address)} wraps around`);
    }
    const page = Number(address / BigInt(PAGE_BYTES));
    let at = Number(address % BigInt(PAGE_BYTES));
    let done = 0;
    for (const run of this.resolve(page, Math.ceil((at + length) / PAGE_BYTES), write)) {
      const part = Math.min(run.count * PAGE_BYTES - at, length - done);
      act(run, { page: run.page, at, done, length: part });
      done += part;
      at = 0;
    }
  }
}
