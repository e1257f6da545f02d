/**
 * The ioctls of a container that has a type 1 IOMMU: sizes, flags and ranges in the order in which Linux looks at them.
 *
 * After vfio_iommu_type1_ioctl and what it calls in drivers/vfio/vfio_iommu_type1.c.
 */
import type { Argument } from '../../base/argument.ts';
import { Errno } from '../../base/errno.ts';
import { MAX_ADDRESS, PAGE_BYTES, USER_END, addressOf, hex } from '../../base/position.ts';
import type { Static } from '../../base/struct.ts';
import type { Task } from '../../base/task.ts';
import { PROT_READ, PROT_WRITE } from '../../iommu/page-table.ts';
import { unknownFlags } from '../../uapi/refusals.ts';
import { VFIO_IOCTLS as spec } from '../../uapi/vfio-ioctls.ts';
import * as uapi from '../../uapi/vfio.ts';
import { CapabilityChain } from '../capability-chain.ts';
import { IoctlTable, op } from '../vcmd.ts';
import { bitmapBytes, LARGEST_BITMAP } from './dirty.ts';
import {
  invalidateAddresses,
  trackDirty,
  mapDma,
  mappingsIn,
  refuseCut,
  removeDma,
  takeOver,
  type DmaMapping,
} from './dma.ts';
import type { Type1 } from './type1.ts';

const READ = uapi.VFIO_DMA_MAP_FLAG_READ;
const WRITE = uapi.VFIO_DMA_MAP_FLAG_WRITE;
const NEW_VADDR = uapi.VFIO_DMA_MAP_FLAG_VADDR;
const GET_DIRTY = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;
const OLD_VADDR = uapi.VFIO_DMA_UNMAP_FLAG_VADDR;
const START = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
const STOP = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
const GET_BITMAP = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;

export const TYPE1_IOCTLS = new IoctlTable<Type1>('container', [
  op(spec.VFIO_IOMMU_GET_INFO, (type1: Type1, vcmd) => {
    getInfo(type1, vcmd.read());
    return 0;
  }),
  op(spec.VFIO_IOMMU_MAP_DMA, (type1: Type1, vcmd) => {
    map(type1, vcmd.task, vcmd.read().value);
    return 0;
  }),
  op(spec.VFIO_IOMMU_UNMAP_DMA, (type1: Type1, vcmd) => {
    unmap(type1, vcmd.read());
    return 0;
  }),
  op(spec.VFIO_IOMMU_DIRTY_PAGES, (type1: Type1, vcmd) => {
    if (!type1.v2) {
      throw new Errno('EACCES', 'dirty pages are not tracked in a container of type 1 v1');
    }
    dirtyPages(type1, vcmd.read());
    return 0;
  }),
]);

function getInfo(type1: Type1, given: Argument<typeof uapi.vfio_iommu_type1_info.fields>): void {
  const info = given.value;
  const { size } = uapi.vfio_iommu_type1_info;
  const { argsz } = info;
  const chain = capabilities(type1);
  info.flags = uapi.VFIO_IOMMU_INFO_PGSIZES | uapi.VFIO_IOMMU_INFO_CAPS;
  info.iova_pgsizes = type1.pageSizes;
  if (argsz < size + chain.size) {
    info.argsz = size + chain.size;
  } else {
    given.task.memory.copyOut(given.address + BigInt(size), chain.bytes(size));
    info.cap_offset = size;
  }
  given.respond(Math.min(argsz, size));
}

function capabilities(type1: Type1): CapabilityChain {
  const chain = new CapabilityChain();
  chain.add(
    { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, version: 1 },
    uapi.vfio_iommu_type1_info_cap_migration,
    { flags: 0, pgsize_bitmap: type1.pageSize, max_dirty_bitmap_size: LARGEST_BITMAP },
  );
  chain.add(
    { id: uapi.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1 },
    uapi.vfio_iommu_type1_info_dma_avail,
    { avail: type1.entriesLeft },
  );
  const { iovas } = type1;
  if (iovas.length === 0) return chain;
  const range = uapi.vfio_iova_range;
  const tail = new Uint8Array(iovas.length * range.size);
  iovas.forEach(({ first, last }, i) => {
    range.encode({ start: first, end: last }, tail, i * range.size);
  });
  chain.add(
    { id: uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1 },
    uapi.vfio_iommu_type1_info_cap_iova_range,
    { nr_iovas: iovas.length },
    tail,
  );
  return chain;
}

function map(type1: Type1, task: Task, given: Static<typeof uapi.vfio_iommu_type1_dma_map>): void {
  const { flags, vaddr, iova, size } = given;
  const known = READ | WRITE | NEW_VADDR;
  if ((flags & ~known) !== 0) {
    throw unknownFlags(uapi.vfio_iommu_type1_dma_map, flags, known, 'EINVAL');
  }
  if (size === 0n) throw new Errno('EINVAL', 'the size is 0');
  const last = lastOfRange(iova, size, 'IOVA');
  lastOfRange(vaddr, size, 'address');
  const prot = ((flags & READ) !== 0 ? PROT_READ : 0) | ((flags & WRITE) !== 0 ? PROT_WRITE : 0);
  const update = (flags & NEW_VADDR) !== 0;
  if ((prot !== 0) === update) {
    throw new Errno('EINVAL', 'one of the two is wanted: READ or WRITE, or VADDR alone');
  }
  refuseUnaligned(type1, { size, iova, vaddr });
  const request = { first: iova, last, vaddr, prot };
  if (update) takeOver(type1, task, request);
  else mapDma(type1, task, request);
}

/** EOVERFLOW for a range that wraps around. @param size not 0 */
function lastOfRange(first: bigint, size: bigint, what: string): bigint {
  const last = first + size - 1n;
  if (last > MAX_ADDRESS) {
    throw new Errno('EOVERFLOW', `${what} ${hex(first)} and size ${hex(size)} wrap around`);
  }
  return last;
}

function refuseUnaligned(type1: Type1, values: Readonly<Record<string, bigint>>): void {
  for (const [name, value] of Object.entries(values)) {
    if ((value & (type1.pageSize - 1n)) === 0n) continue;
    throw new Errno(
      'EINVAL',
      `${name} ${hex(value)} is not a multiple of the page size ${hex(type1.pageSize)}`,
    );
  }
}

type Bitmap = Static<typeof uapi.vfio_bitmap>;

function unmap(type1: Type1, given: Argument<typeof uapi.vfio_iommu_type1_dma_unmap.fields>): void {
  const cmd = given.value;
  const known = GET_DIRTY | ALL | OLD_VADDR;
  if ((cmd.flags & ~known) !== 0) {
    throw unknownFlags(uapi.vfio_iommu_type1_dma_unmap, cmd.flags, known, 'EINVAL');
  }
  const wantsBitmap = (cmd.flags & GET_DIRTY) !== 0;
  if (wantsBitmap && (cmd.flags & (ALL | OLD_VADDR)) !== 0) {
    throw new Errno('EINVAL', 'GET_DIRTY_BITMAP goes with neither ALL nor VADDR');
  }
  const bitmap = wantsBitmap ? bitmapOf(given) : undefined;
  const last = unmapLast(type1, cmd);
  if (bitmap !== undefined) {
    requireTracking(type1);
    requirePageSize(type1, bitmap);
  }
  if (type1.v2 && (cmd.flags & ALL) === 0) refuseCut(type1, cmd.iova, last);
  cmd.size =
    (cmd.flags & OLD_VADDR) !== 0
      ? invalidateAddresses(type1, cmd.iova, last)
      : remove(type1, { first: cmd.iova, last }, (dma) => {
          if (bitmap !== undefined)
            report(type1, dma, { task: given.task, bitmap, base: cmd.iova });
        });
  given.respond();
}

/** The descriptor behind the struct. EINVAL where argsz does not reach it and for one that cannot be; EFAULT. */
function bitmapOf(given: Argument<typeof uapi.vfio_iommu_type1_dma_unmap.fields>): Bitmap {
  const start = uapi.vfio_iommu_type1_dma_unmap.endOf('size');
  const { size } = uapi.vfio_bitmap;
  if (given.argsz < start + size) {
    throw new Errno('EINVAL', `argsz ${given.argsz} ends before the bitmap`);
  }
  const bytes = new Uint8Array(size);
  given.task.memory.copyIn(given.address + BigInt(start), bytes);
  const bitmap = uapi.vfio_bitmap.decode(bytes);
  refuseBitmap(bitmap, given.value.size);
  return bitmap;
}

/** @param size what the bitmap is to report, in bytes */
function refuseBitmap({ data, size: bytes, pgsize }: Bitmap, size: bigint): void {
  if (data + bytes > USER_END) {
    throw new Errno('EINVAL', `a bitmap of ${hex(bytes)} bytes at ${hex(data)} is not user memory`);
  }
  // The lowest bit of the page size counts; what it is has to be right only later.
  const pages = pgsize === 0n ? size : size / (pgsize & -pgsize);
  if (pages === 0n || bytes === 0n || bytes > LARGEST_BITMAP || bytes < bitmapBytes(pages)) {
    throw new Errno(
      'EINVAL',
      `a bitmap of ${hex(bytes)} bytes does not fit ${pages} pages, which take ${bitmapBytes(pages)}`,
    );
  }
}

function unmapLast(
  type1: Type1,
  { flags, iova, size }: Static<typeof uapi.vfio_iommu_type1_dma_unmap>,
): bigint {
  refuseUnaligned(type1, { iova });
  if ((flags & ALL) !== 0) {
    if (iova !== 0n || size !== 0n) throw new Errno('EINVAL', 'ALL goes with iova 0 and size 0');
    return MAX_ADDRESS;
  }
  if (size === 0n) throw new Errno('EINVAL', 'the size is 0');
  refuseUnaligned(type1, { size });
  return lastOfRange(iova, size, 'IOVA');
}

function requireTracking(type1: Type1): void {
  if (!type1.tracksDirty) {
    throw new Errno('EINVAL', 'dirty pages are not tracked (VFIO_IOMMU_DIRTY_PAGES, START)');
  }
}

function requirePageSize(type1: Type1, { pgsize }: Bitmap): void {
  if (pgsize === type1.pageSize) return;
  throw new Errno(
    'EINVAL',
    `a bit stands for ${hex(pgsize)} bytes, only ${hex(type1.pageSize)} is supported`,
  );
}

/**
 * Removes what is mapped in a range; with version 1 only from the beginning of a mapping on, and then all of it.
 * @param before what is done with a mapping before it goes
 * @returns how many bytes
 */
function remove(
  type1: Type1,
  { first, last }: { readonly first: bigint; readonly last: bigint },
  before: (dma: DmaMapping) => void,
): bigint {
  let bytes = 0n;
  for (const dma of mappingsIn(type1, first, last)) {
    if (!type1.v2 && first > addressOf(dma.firstPage, 0)) break;
    before(dma);
    bytes += BigInt(dma.count) * BigInt(PAGE_BYTES);
    removeDma(type1, dma);
  }
  return bytes;
}

function report(
  type1: Type1,
  dma: DmaMapping,
  to: { readonly task: Task; readonly bitmap: Bitmap; readonly base: bigint },
): void {
  const distance = addressOf(dma.firstPage, 0) - to.base;
  dma.bitmap?.report(to.task.memory, to.bitmap.data, Number(distance / type1.pageSize));
}

function dirtyPages(
  type1: Type1,
  given: Argument<typeof uapi.vfio_iommu_type1_dirty_bitmap.fields>,
): void {
  const { flags } = given.value;
  const known = START | STOP | GET_BITMAP;
  if ((flags & ~known) !== 0) {
    throw unknownFlags(uapi.vfio_iommu_type1_dirty_bitmap, flags, known, 'EINVAL');
  }
  switch (flags) {
    case START:
      trackDirty(type1);
      return;
    case STOP:
      type1.tracksDirty = false;
      for (const dma of type1.dmas) dma.bitmap = undefined;
      return;
    case GET_BITMAP:
      getBitmap(type1, given);
      return;
    default:
      throw new Errno('EINVAL', 'one of START, STOP and GET_BITMAP is wanted');
  }
}

function getBitmap(
  type1: Type1,
  given: Argument<typeof uapi.vfio_iommu_type1_dirty_bitmap.fields>,
): void {
  const { task } = given;
  const start = uapi.vfio_iommu_type1_dirty_bitmap.endOf('flags');
  const struct = uapi.vfio_iommu_type1_dirty_bitmap_get;
  if (given.argsz < start + struct.size) {
    throw new Errno('EINVAL', `argsz ${given.argsz} ends before the range`);
  }
  const bytes = new Uint8Array(struct.size);
  task.memory.copyIn(given.address + BigInt(start), bytes);
  const { iova, size, bitmap } = struct.decode(bytes);
  if (size === 0n) throw new Errno('EINVAL', 'the size is 0');
  const last = lastOfRange(iova, size, 'IOVA');
  refuseBitmap(bitmap, size);
  requirePageSize(type1, bitmap);
  refuseUnaligned(type1, { iova, size });
  requireTracking(type1);
  refuseCut(type1, iova, last);
  for (const dma of mappingsIn(type1, iova, last)) {
    report(type1, dma, { task, bitmap, base: iova });
  }
}
