/**
 * Dirty tracking: which IOVAs a device wrote, as a bitmap in client memory.
 *
 * Bits are only ever added to what the client has there. A hole in the range, or a bitmap that cannot be written, ends the
 * walk without an error: what was reported until then stays reported, and cleared, as in Linux.
 *
 * After drivers/iommu/iommufd/hw_pagetable.c, iova_bitmap.c and the dirty part of io_pagetable.c.
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, hex, offsetOf, pageOf, spanOf, firstOf, lastOf } from '../base/position.ts';
import type { Task } from '../base/task.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../uapi/iommufd.ts';
import { HwptPaging } from './hw-pagetable.ts';

import type { Ucmd } from './ucmd.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

const PAGE = BigInt(PAGE_SIZE);

export function setDirtyTracking({ context, cmd }: Ucmd<iommu_hwpt_set_dirty_tracking>): undefined {
  if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) {
    throw unknownFlags(iommu_hwpt_set_dirty_tracking, cmd.flags, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
  }
  const hwpt = context.objects.get(HwptPaging, cmd.hwpt_id);
  const { domain, ioas } = hwpt;
  refuseUntracked(hwpt);
  const enable = cmd.flags !== 0;
  if (enable) {
    // A snapshot starts clean.
    for (const area of ioas.iopt.areas) domain.table.readDirty(area, true, () => undefined);
  }
  domain.setDirtyTracking(enable);
}

export function getDirtyBitmap({
  context,
  task,
  cmd,
}: Ucmd<iommu_hwpt_get_dirty_bitmap>): undefined {
  if ((cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0) {
    throw unknownFlags(
      iommu_hwpt_get_dirty_bitmap,
      cmd.flags,
      IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
    );
  }
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  const hwpt = context.objects.get(HwptPaging, cmd.hwpt_id);
  const last = checkRange(cmd, BigInt(hwpt.ioas.iopt.alignment));
  refuseUntracked(hwpt);
  context.environment.faults.alloc('bitmap pages');
  const bitmap = new UserBitmap(task, cmd);
  const clear = (cmd.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) === 0;
  let at = cmd.iova;
  let area = hwpt.ioas.iopt.areas.at(pageOf(at), offsetOf(at));
  while (area !== undefined) {
    const end = lastOf(area) < last ? lastOf(area) : last;
    hwpt.domain.table.readDirty(spanOf(at, end), clear, (first, size, leaf) => {
      bitmap.set(first, size, leaf);
    });
    if (end === last) break;
    at = end + 1n;
    const next = hwpt.ioas.iopt.areas.after(area);
    area = next !== undefined && firstOf(next) === at ? next : undefined;
  }
  bitmap.flush();
}

function refuseUntracked({ domain }: HwptPaging): void {
  if (!domain.dirtyTracking) {
    throw new Errno('EOPNOTSUPP', `${domain.name} was not made with DIRTY_TRACKING`);
  }
}

/** After iommufd_check_iova_range. @returns the last IOVA */
function checkRange(cmd: iommu_hwpt_get_dirty_bitmap, alignment: bigint): bigint {
  const { iova, length, page_size: pageSize } = cmd;
  if (length === 0n) throw new Errno('EINVAL', 'length 0');
  const last = iova + length - 1n;
  if (last > MAX_ADDRESS)
    throw new Errno('EOVERFLOW', `${hex(iova)} + ${hex(length)} wraps around`);
  refuseUnaligned([iova, last + 1n], alignment, 'the IOVA alignment');
  if (pageSize === 0n) throw new Errno('EINVAL', 'page_size 0');
  refuseUnaligned([iova, last + 1n], pageSize, 'page_size');
  return last;
}

/** By mask, as Linux does it also for sizes that are no power of two. */
function refuseUnaligned(borders: readonly bigint[], size: bigint, name: string): void {
  const off = borders.find((border) => (border & (size - 1n)) !== 0n);
  if (off === undefined) return;
  throw new Errno(
    'EINVAL',
    `${hex(off)}, a border of the range, is not a multiple of ${name} ${hex(size)}`,
  );
}

/** A page of the client that holds some of the bitmap. */
type Chunk = { readonly bytes: Uint8Array; low: number; high: number };

/** The part of the bitmap that is pinned now. */
type Window = {
  /** IOVA of its first bit */
  readonly iova: bigint;
  /** in bytes of IOVA */
  readonly length: bigint;
  /** pages of the client, and the byte in the first one */
  readonly page: number;
  readonly pages: number;
  readonly offset: number;
};

const BITS = PAGE_SIZE * 8;
/** What one page of pointers to pages holds. */
const MOST_PAGES = PAGE_SIZE / 8;

const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/**
 * The client's bitmap: one bit per page of IOVA, in memory that may be missing. As struct iova_bitmap, down to its corners: a
 * window of it is pinned from the byte of the leaf that is reported on, as far as the memory reaches, and a leaf that ends behind
 * what can be pinned is left there.
 */
class UserBitmap {
  readonly #task: Task;
  readonly #iova: bigint;
  readonly #lastIova: bigint;
  readonly #shift: bigint;
  readonly #address: bigint;
  /** bytes of the whole bitmap */
  readonly #total: bigint;
  #window: Window | undefined;
  readonly #chunks = new Map<number, Chunk>();

  constructor(task: Task, cmd: iommu_hwpt_get_dirty_bitmap) {
    this.#task = task;
    this.#iova = cmd.iova;
    this.#lastIova = u64(cmd.iova + cmd.length - 1n);
    this.#shift = lowestBit(cmd.page_size);
    this.#address = cmd.data;
    this.#total = this.#index(cmd.length - 1n) + 1n;
  }

  /** Marks leaves that follow one another, `leaf` bytes each. */
  set(first: bigint, size: number, leaf: number): void {
    for (let [at, left] = [first, size]; left > 0;) {
      const together = this.#room(at, left, leaf);
      if (together > 0) this.#mark(at, BigInt(together));
      else this.#setLeaf(at, BigInt(leaf));
      const done = together > 0 ? together : leaf;
      at += BigInt(done);
      left -= done;
    }
  }

  flush(): void {
    for (const [page, chunk] of this.#chunks) {
      if (chunk.high < chunk.low) continue;
      const bytes = chunk.bytes.subarray(chunk.low, chunk.high + 1);
      forgiving(() => {
        this.#task.memory.copyOut(BigInt(page * PAGE_SIZE + chunk.low), bytes);
      });
    }
  }

  /** How many bytes of whole leaves lie in the window. */
  #room(first: bigint, size: number, leaf: number): number {
    const window = this.#window;
    if (window === undefined || first < window.iova) return 0;
    const room = window.iova + window.length - first;
    if (room >= BigInt(size)) return size;
    return room <= 0n ? 0 : Math.floor(Number(room) / leaf) * leaf;
  }

  /** After iova_bitmap_set. */
  #setLeaf(first: bigint, size: bigint): void {
    for (let [iova, length] = [first, size]; ;) {
      if (this.#room(iova, Number(length), Number(length)) === 0 && !this.#advance(iova)) return;
      const left = this.#mark(iova, length);
      if (left === 0n) return;
      iova += length - left;
      length = left;
    }
  }

  /** Sets bits as far as the window's pages reach. @returns bytes of IOVA that are left */
  #mark(iova: bigint, length: bigint): bigint {
    const window = this.#window;
    if (window === undefined) return length;
    const bitOf = (at: bigint): number =>
      Number((at - window.iova) >> this.#shift) + window.offset * 8;
    const last = bitOf(iova + length - 1n);
    const end = Math.min(last, window.pages * BITS - 1);
    for (let bit = bitOf(iova); bit <= end;) {
      const chunk = this.#chunk(window.page + Math.floor(bit / BITS));
      const high = Math.min(end - bit + (bit % BITS), BITS - 1);
      setBits(chunk, bit % BITS, high);
      bit += high - (bit % BITS) + 1;
    }
    return BigInt(last - end) << this.#shift;
  }

  /** After iova_bitmap_advance_to and iova_bitmap_get. @returns false where nothing can be pinned */
  #advance(iova: bigint): boolean {
    const index = this.#index(u64(iova - this.#iova));
    if (index >= this.#total) return false;
    this.#window = undefined;
    const address = u64(this.#address + index);
    const offset = offsetOf(address);
    const left = this.#total - index;
    const most = (left + PAGE - 1n) / PAGE + (offset === 0 ? 0n : 1n);
    const page = pageOf(address);
    const pages = this.#pin(page, most < MOST_PAGES ? Number(most) : MOST_PAGES);
    if (pages === 0) return false;
    const bytes = BigInt(pages * PAGE_SIZE - offset);
    const from = u64(this.#iova + this.#span(index));
    let length = this.#span(left < bytes ? left : bytes);
    const beyond = u64(from + length - 1n) - this.#lastIova;
    if (beyond > 0n) length = u64(length - beyond);
    this.#window = { iova: from, length, page, pages, offset };
    return true;
  }

  /** How many pages from `page` on can be written. */
  #pin(page: number, most: number): number {
    const there = (first: number, count: number): boolean =>
      forgiving(() => {
        this.#task.memory.resolve(first, count, true);
      });
    if (there(page, most)) return most;
    let pages = 0;
    while (there(page + pages, 1)) pages++;
    return pages;
  }

  /** The byte of the bitmap that holds the bit of a distance. */
  #index(distance: bigint): bigint {
    return (distance >> this.#shift) / 8n;
  }

  /** The IOVAs that so many bytes of the bitmap stand for. */
  #span(bytes: bigint): bigint {
    return u64((bytes * 8n) << this.#shift);
  }

  #chunk(page: number): Chunk {
    let chunk = this.#chunks.get(page);
    if (chunk === undefined) {
      chunk = { bytes: new Uint8Array(PAGE_SIZE), low: PAGE_SIZE, high: -1 };
      const { bytes } = chunk;
      forgiving(() => {
        this.#task.memory.copyIn(BigInt(page) * PAGE, bytes);
      });
      this.#chunks.set(page, chunk);
    }
    return chunk;
  }
}

/** Bits `low` to `high` of a page. */
function setBits(chunk: Chunk, low: number, high: number): void {
  const { bytes } = chunk;
  const [from, to] = [Math.floor(low / 8), Math.floor(high / 8)];
  const head = 0xff << (low % 8);
  const tail = (2 << (high % 8)) - 1;
  const or = (at: number, mask: number): void => {
    bytes[at] = (bytes[at] ?? 0) | mask;
  };
  if (from === to) {
    or(from, head & tail);
  } else {
    or(from, head);
    bytes.fill(0xff, from + 1, to);
    or(to, tail);
  }
  chunk.low = Math.min(chunk.low, from);
  chunk.high = Math.max(chunk.high, to);
}

/** @returns whether it worked; a client's unusable bitmap is no error */
function forgiving(act: () => void): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
}

function lowestBit(value: bigint): bigint {
  let shift = 0n;
  while (((value >> shift) & 1n) === 0n) shift++;
  return shift;
}
