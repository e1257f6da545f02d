/**
 * ACCESS: a user of an IOAS inside the kernel that reads, writes or pins memory by IOVA without a domain: a mediated device,
 * or an HW queue.
 *
 * Users: the table, and the driver that made it. While attached it is a user of its IOAS. Pins must be given back as they
 * were taken, at the latest when the IOAS says that a range is going.
 *
 * After the access half of drivers/iommu/iommufd/device.c.
 */
import { Errno } from '../base/errno.ts';
import type { AddressSpace } from '../base/task.ts';
import { MAX_ADDRESS, firstOf, hex, lastOf, offsetOf, pageOf } from '../base/position.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import type { Area, PagesByte } from './area.ts';
import type { Context } from './context.ts';
import type { IoPagetable, IoptAccess } from './io-pagetable.ts';
import { Ioas, lastByte } from './ioas.ts';
import { IommufdObject } from './object.ts';
import { copyUser, type Copy, type Pages } from '../pinning/pages.ts';
import type { Piece } from '../pinning/pins.ts';

export type AccessOptions = {
  /** it pins, and needs whole pages for that */
  readonly pins: boolean;
  /** belongs to iommufd itself: it is never asked to let go, its areas are locked instead */
  readonly internal?: boolean;
  /** must give back all pins that touch the range */
  readonly onUnmap?: (first: bigint, last: bigint) => void;
};

/** A piece of a range within one area. */
type Part = { readonly area: Area; readonly first: bigint; readonly last: bigint };

export type RwOptions = {
  readonly write: boolean;
  /** memory of the thread that calls: where it is the source it is copied by address (copy_from_user) */
  readonly caller?: AddressSpace;
  /** not by address all the same (__IOMMUFD_ACCESS_RW_SLOW_PATH) */
  readonly slow?: boolean;
};

export class Access extends IommufdObject implements IoptAccess {
  override readonly type = 'ACCESS';
  readonly context: Context;
  readonly alignment: number;
  readonly #options: AccessOptions;
  #ioas: Ioas | undefined;

  private constructor(context: Context, options: AccessOptions) {
    super();
    this.context = context;
    this.#options = options;
    this.alignment = options.pins ? PAGE_SIZE : 1;
  }

  static create(context: Context, options: AccessOptions): Access {
    const access = new Access(context, options);
    // A file of its own keeps the context alive; destroy, which also runs when making it fails, gives that up.
    if (options.internal !== true) context.get();
    context.objects.create(access, () => {
      // Nothing else can fail.
    });
    // The driver that makes it is a user until it closes it.
    access.users++;
    return access;
  }

  /** What its maker calls at the end; all pins must be given back. */
  close(): void {
    this.context.objects.destroyHeld(this);
  }

  override destroy(): void {
    this.#change(undefined);
    if (this.#options.internal !== true) this.context.put();
  }

  get ioas(): Ioas | undefined {
    return this.#ioas;
  }

  /** Starts to use an IOAS; ENOENT, EADDRINUSE (alignment). */
  attach(ioasId: number): void {
    this.attachIoas(this.context.objects.get(Ioas, ioasId));
  }

  attachIoas(ioas: Ioas): void {
    if (this.#ioas !== undefined) throw new Error(`${String(this)} is attached already`);
    this.#change(ioas);
  }

  /** Moves to another IOAS; ENOENT if it is attached to none. */
  replace(ioasId: number): void {
    if (this.#ioas === undefined)
      throw new Errno('ENOENT', `${String(this)} is attached to no IOAS`);
    this.#change(this.context.objects.get(Ioas, ioasId));
  }

  detach(): void {
    this.#change(undefined);
  }

  onUnmap(first: bigint, last: bigint): void {
    this.#options.onUnmap?.(first, last);
  }

  /**
   * Pins the pages of a range.
   * @returns the frames, in order; EINVAL, EOVERFLOW, ENOENT, EPERM, and what pinning answers
   */
  pin(iova: bigint, length: bigint, write: boolean): Piece[] {
    const { parts, last } = this.#parts(iova, length, 'pin');
    const done: Part[] = [];
    const pieces: Piece[] = [];
    try {
      for (const part of parts) {
        this.#checkPinnable(part, last);
        checkProt(part.area, write);
        for (const piece of this.#pinPart(part, write)) pieces.push(piece);
        done.push(part);
      }
      this.#checkComplete(parts, iova, last);
    } catch (error) {
      for (const part of done) this.#unpinPart(part);
      throw error;
    }
    return pieces;
  }

  /** Gives back exactly what a {@link pin} took. */
  unpin(iova: bigint, length: bigint): void {
    for (const part of this.#parts(iova, length, 'unpin').parts) this.#unpinPart(part);
  }

  /** Copies between the IOAS and `bytes`; EINVAL, EOVERFLOW, ENOENT, EPERM, EFAULT. After iommufd_access_rw. */
  readWrite(iova: bigint, bytes: Uint8Array, options: RwOptions): void {
    const { parts, last } = this.#parts(iova, BigInt(bytes.length), 'access');
    if (parts.length === 0) throw new Errno('ENOENT', `IOVA ${hex(iova)} is not mapped`);
    let done = 0;
    for (const part of parts) {
      if (part.area.preventAccess)
        throw new Errno('EINVAL', `area ${String(part.area)} is being unmapped`);
      checkProt(part.area, options.write);
      const length = Number(part.last - part.first + 1n);
      const whole = length === bytes.length;
      copyPart(part, whole ? bytes : bytes.subarray(done, done + length), options);
      done += length;
    }
    this.#checkComplete(parts, iova, last);
  }

  #change(ioas: Ioas | undefined): void {
    const old = this.#ioas;
    if (old === ioas) return;
    if (ioas !== undefined) {
      ioas.iopt.addAccess(this);
      ioas.users++;
    }
    if (old !== undefined) {
      if (this.#options.internal !== true) this.onUnmap(0n, MAX_ADDRESS);
      old.iopt.removeAccess(this);
      old.users--;
    }
    this.#ioas = ioas;
  }

  #parts(iova: bigint, length: bigint, verb: string): { parts: Part[]; last: bigint } {
    const last = lastByte(iova, length);
    const { iopt } = this.#attached(verb);
    return { parts: partsOf(iopt, iova, last), last };
  }

  #attached(verb: string): Ioas {
    if (this.#ioas === undefined)
      throw new Errno('ENOENT', `${String(this)} is attached to no IOAS, cannot ${verb}`);
    return this.#ioas;
  }

  /** After iopt_area_contig_is_aligned: a page must not be shared with what lies beside the area. */
  #checkPinnable({ area, first }: Part, last: bigint): void {
    if (area.preventAccess) throw new Errno('EINVAL', `area ${String(area)} is being unmapped`);
    const start = area.byteAt(pageOf(first), offsetOf(first));
    const end = area.byteAt(area.lastPage, area.lastOffset);
    const endsHere = last <= lastOf(area);
    if (start.offset !== 0 || (!endsHere && end.offset !== PAGE_SIZE - 1)) {
      throw new Errno(
        'EINVAL',
        `${hex(first)} or the end of its area does not lie at the border of a page`,
      );
    }
  }

  #pinPart({ area, first, last }: Part, write: boolean): Piece[] {
    const { pages } = area;
    if (write && !pages.writable)
      throw new Errno('EPERM', `area ${String(area)} shows memory that was given read-only`);
    if (pages.isDmaBuf)
      throw new Errno('EINVAL', `area ${String(area)} is a dma-buf, which the CPU cannot access`);
    const [from, to] = indexes(area, first, last);
    const { faults } = this.context.environment;
    faults.alloc('page access');
    faults.alloc('slots for pinned pages');
    pages.acquire(from, to);
    area.accesses++;
    if (this.#options.internal === true) area.locks++;
    return pages.pieces(from, to);
  }

  #unpinPart({ area, first, last }: Part): void {
    area.pages.release(...indexes(area, first, last));
    area.accesses--;
    if (this.#options.internal === true) area.locks--;
  }

  #checkComplete(parts: readonly Part[], iova: bigint, last: bigint): void {
    const end = parts.at(-1)?.last;
    if (end !== last) {
      throw new Errno('ENOENT', `nothing is mapped at ${hex(end === undefined ? iova : end + 1n)}`);
    }
  }
}

/** The areas over [first, last], up to the first hole. */
function partsOf(iopt: IoPagetable, first: bigint, last: bigint): Part[] {
  const parts: Part[] = [];
  let at = first;
  let area = iopt.areas.at(pageOf(first), offsetOf(first));
  while (area !== undefined) {
    const end = lastOf(area) < last ? lastOf(area) : last;
    parts.push({ area, first: at, last: end });
    if (end === last) break;
    at = end + 1n;
    const next = iopt.areas.after(area);
    area = next !== undefined && firstOf(next) === at ? next : undefined;
  }
  return parts;
}

function indexes(area: Area, first: bigint, last: bigint): [number, number] {
  return [
    area.byteAt(pageOf(first), offsetOf(first)).index,
    area.byteAt(pageOf(last), offsetOf(last)).index,
  ];
}

function checkProt(area: Area, write: boolean): void {
  if (write ? area.writable : area.readable) return;
  throw new Errno('EPERM', `area ${String(area)} is not ${write ? 'writeable' : 'readable'}`);
}

/** After iopt_pages_rw_access. */
function copyPart({ area, first }: Part, bytes: Uint8Array, options: RwOptions): void {
  const { write, caller, slow = false } = options;
  const { pages } = area;
  const start = area.byteAt(pageOf(first), offsetOf(first));
  if (write && !pages.writable)
    throw new Errno('EPERM', `area ${String(area)} shows memory that was given read-only`);
  if (pages.isDmaBuf)
    throw new Errno('EINVAL', `area ${String(area)} is a dma-buf, which the CPU cannot access`);
  const { source } = pages;
  const copy = { bytes, write };
  if (source.kind === 'user' && source.memory === caller && !slow) {
    copyUser(caller, pages.addressOf(start), copy);
    return;
  }
  const inOnePage = start.offset + bytes.length <= PAGE_SIZE;
  if (inOnePage && copiedFromLiving(pages, start, copy, caller)) return;
  pages.copy(start, bytes, write);
}

/** @returns false if there is no process, or none any more: what is pinned is then all there is */
function copiedFromLiving(
  pages: Pages,
  start: PagesByte,
  copy: Copy,
  caller: AddressSpace | undefined,
): boolean {
  const { source } = pages;
  if (source.kind !== 'user' || source.memory.knownExited) return false;
  try {
    pages.copyPage(start, copy, caller);
    return true;
  } catch (error) {
    // Asked only now: the answer costs a look at the process, and most are alive.
    if (source.memory.exited) return false;
    throw error;
  }
}
