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
  type iommu_hwpt_get_dirty_bitmap,
  type iommu_hwpt_set_dirty_tracking,
} from '../uapi/iommufd.ts';
import { HwptPaging } from './hw-pagetable.ts';
import { reservedSet, unknownFlags } from './ioas.ts';
import type { Ucmd } from './ucmd.ts';

const PAGE = BigInt(PAGE_SIZE);

export function setDirtyTracking({ context, cmd }: Ucmd<iommu_hwpt_set_dirty_tracking>): undefined {
  if ((cmd.flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0) throw unknownFlags(cmd.flags);
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
  if ((cmd.flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) !== 0) throw unknownFlags(cmd.flags);
  if (cmd.__reserved !== 0) throw reservedSet();
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
    hwpt.domain.table.readDirty(spanOf(at, end), clear, (first, size) => {
      bitmap.set(first, size);
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

/** No client has memory at or above this address, so what the bitmap has there need not be counted exactly. */
const NOWHERE = 2 ** 53;

/** The client's bitmap: one bit per page of IOVA, in memory that may be missing. */
class UserBitmap {
  readonly #task: Task;
  readonly #iova: bigint;
  readonly #shift: bigint;
  readonly #address: number;
  /** bits that may be touched: to the end of the client's page that holds the last byte */
  readonly #bits: number;
  readonly #chunks = new Map<number, Chunk | undefined>();

  constructor(task: Task, cmd: iommu_hwpt_get_dirty_bitmap) {
    this.#task = task;
    this.#iova = cmd.iova;
    this.#shift = lowestBit(cmd.page_size);
    this.#address = Number(cmd.data);
    const bytes = ((cmd.length - 1n) >> this.#shift) / 8n + 1n;
    const end = cmd.data + bytes;
    this.#bits = Number(bytes + ((PAGE - (end % PAGE)) % PAGE)) * 8;
  }

  /** Marks what leaves cover. A leaf that starts before the range is not reported (iova_bitmap_set). */
  set(first: bigint, size: number): void {
    if (first < this.#iova) return;
    const from = Number((first - this.#iova) >> this.#shift);
    const last = Number((first + BigInt(size) - 1n - this.#iova) >> this.#shift);
    const to = Math.min(last, this.#bits - 1);
    for (let bit = from; bit <= to;) {
      const byte = Math.floor(bit / 8);
      const address = this.#address + byte;
      if (address >= NOWHERE) return;
      const high = Math.min(7, to - byte * 8);
      this.#or(address, (2 << high) - (1 << (bit % 8)));
      bit = byte * 8 + 8;
    }
  }

  flush(): void {
    for (const [page, chunk] of this.#chunks) {
      if (chunk === undefined || chunk.high < chunk.low) continue;
      const bytes = chunk.bytes.subarray(chunk.low, chunk.high + 1);
      forgiving(() => {
        this.#task.memory.copyOut(BigInt(page * PAGE_SIZE + chunk.low), bytes);
      });
    }
  }

  #or(address: number, mask: number): void {
    const at = address % PAGE_SIZE;
    const chunk = this.#chunk((address - at) / PAGE_SIZE);
    if (chunk === undefined) return;
    chunk.bytes[at] = (chunk.bytes[at] ?? 0) | mask;
    chunk.low = Math.min(chunk.low, at);
    chunk.high = Math.max(chunk.high, at);
  }

  #chunk(page: number): Chunk | undefined {
    const known = this.#chunks.get(page);
    if (known !== undefined || this.#chunks.has(page)) return known;
    const bytes = new Uint8Array(PAGE_SIZE);
    const there = forgiving(() => {
      this.#task.memory.copyIn(BigInt(page) * PAGE, bytes);
    });
    const chunk = there ? { bytes, low: PAGE_SIZE, high: -1 } : undefined;
    this.#chunks.set(page, chunk);
    return chunk;
  }
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
