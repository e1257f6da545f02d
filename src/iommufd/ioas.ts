/**
 * IOAS: an I/O address space object and the ioctls that fill it.
 *
 * Users: the table, each paging HWPT made from it, each access attached to it.
 * After drivers/iommu/iommufd/ioas.c; each handler checks in the order of the function that it answers to.
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, firstOf, hex, lastOf, showSpan, spanOf } from '../base/position.ts';
import { RangeMap, type Span } from '../base/range-map.ts';
import { PROT_READ, PROT_WRITE } from '../iommu/page-table.ts';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  iommu_iova_range,
  iommu_ioas_alloc,
  type iommu_ioas_allow_iovas,
  iommu_ioas_copy,
  type iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_map_file,
  type iommu_ioas_unmap,
} from '../uapi/iommufd.ts';
import type { Context } from './context.ts';
import { IoPagetable } from './io-pagetable.ts';
import type { HwptPaging } from './hw-pagetable.ts';
import { IommufdObject } from './object.ts';
import { filePages, userPages } from './pages-source.ts';
import type { Ucmd } from './ucmd.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
const ACCESS_FLAGS = IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;

export class Ioas extends IommufdObject {
  override readonly type = 'IOAS';
  readonly iopt: IoPagetable;
  /** page tables made from it, in the order in which they were made */
  readonly hwpts: HwptPaging[] = [];

  constructor(context: Context) {
    super();
    this.iopt = new IoPagetable(context.environment.faults);
  }

  override destroy(): void {
    this.iopt.destroy();
  }
}

export function ioasAlloc({ context, cmd, respond }: Ucmd<iommu_ioas_alloc>): undefined {
  if (cmd.flags !== 0) throw unknownFlags(iommu_ioas_alloc, cmd.flags);
  context.objects.create(new Ioas(context), (ioas) => {
    cmd.out_ioas_id = ioas.id;
    respond();
  });
}

export function ioasIovaRanges({
  context,
  task,
  cmd,
  respond,
}: Ucmd<iommu_ioas_iova_ranges>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  const ioas = context.objects.get(Ioas, cmd.ioas_id);
  const space = cmd.num_iovas;
  const holes = ioas.iopt.reserved.holes();
  cmd.out_iova_alignment = BigInt(ioas.iopt.alignment);
  holes.slice(0, space).forEach((hole, index) => {
    const bytes = new Uint8Array(iommu_iova_range.size);
    iommu_iova_range.encode({ start: firstOf(hole), last: lastOf(hole) }, bytes);
    task.memory.copyOut(element(cmd.allowed_iovas, index), bytes);
  });
  cmd.num_iovas = holes.length;
  respond();
  if (holes.length > space) {
    throw new Errno(
      'EMSGSIZE',
      `there are ${holes.length} ranges, the array has room for ${space}`,
    );
  }
}

export function ioasAllowIovas({ context, task, cmd }: Ucmd<iommu_ioas_allow_iovas>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  const ioas = context.objects.get(Ioas, cmd.ioas_id);
  // A client may name as many as its memory holds, so looking each one up in a list would take for ever.
  const ranges = new RangeMap<Span>();
  for (let i = 0; i < cmd.num_iovas; i++) {
    const bytes = new Uint8Array(iommu_iova_range.size);
    task.memory.copyIn(element(cmd.allowed_iovas, i), bytes);
    const { start, last } = iommu_iova_range.decode(bytes);
    if (start >= last)
      throw new Errno('EINVAL', `range [${hex(start)}, ${hex(last)}] is empty or backwards`);
    const range = spanOf(start, last);
    const { firstPage, firstOffset, lastPage, lastOffset } = range;
    const earlier = ranges.firstOverlap(firstPage, firstOffset, lastPage, lastOffset);
    if (earlier !== undefined) {
      throw new Errno(
        'EINVAL',
        `range ${showSpan(range)} overlaps ${showSpan(earlier)} in the same list`,
      );
    }
    context.environment.faults.alloc('allowed range');
    ranges.insert(range);
  }
  ioas.iopt.setAllowed([...ranges]);
}

export function ioasMap({ context, task, cmd, respond }: Ucmd<iommu_ioas_map>): undefined {
  if ((cmd.flags & ~MAP_FLAGS) !== 0) throw unknownFlags(iommu_ioas_map, cmd.flags, MAP_FLAGS);
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  refuseHuge({ iova: cmd.iova, length: cmd.length });
  refuseNoAccess(cmd.flags);
  const { iopt } = context.objects.get(Ioas, cmd.ioas_id);
  const prot = protOf(cmd.flags);
  const slice = userPages(context, task, { address: cmd.user_va, length: cmd.length, prot });
  cmd.iova = iopt.map([slice], { iova: fixedIova(cmd.flags, cmd.iova), prot });
  respond();
}

export function ioasMapFile({ context, task, cmd, respond }: Ucmd<iommu_ioas_map_file>): undefined {
  if ((cmd.flags & ~MAP_FLAGS) !== 0) throw unknownFlags(iommu_ioas_map_file, cmd.flags, MAP_FLAGS);
  refuseHuge({ iova: cmd.iova, length: cmd.length });
  refuseNoAccess(cmd.flags);
  const { iopt } = context.objects.get(Ioas, cmd.ioas_id);
  const prot = protOf(cmd.flags);
  const slice = filePages(context, task, {
    fd: cmd.fd,
    start: cmd.start,
    length: cmd.length,
    prot,
  });
  cmd.iova = iopt.map([slice], { iova: fixedIova(cmd.flags, cmd.iova), prot });
  respond();
}

export function ioasCopy({ context, cmd, respond }: Ucmd<iommu_ioas_copy>): undefined {
  context.environment.convertCopy?.(context, cmd);
  if ((cmd.flags & ~MAP_FLAGS) !== 0) throw unknownFlags(iommu_ioas_copy, cmd.flags, MAP_FLAGS);
  refuseHuge({ length: cmd.length, src_iova: cmd.src_iova, dst_iova: cmd.dst_iova });
  refuseNoAccess(cmd.flags);
  const source = context.objects.get(Ioas, cmd.src_ioas_id);
  const last = lastByte(cmd.src_iova, cmd.length);
  const slices = source.iopt.slices(cmd.src_iova, last);
  let target: Ioas;
  try {
    target = context.objects.get(Ioas, cmd.dst_ioas_id);
  } catch (error) {
    for (const { pages } of slices) pages.put();
    throw error;
  }
  const request = { iova: fixedIova(cmd.flags, cmd.dst_iova), prot: protOf(cmd.flags) };
  cmd.dst_iova = target.iopt.map(slices, request);
  respond();
}

export function ioasUnmap({ context, cmd, respond }: Ucmd<iommu_ioas_unmap>): undefined {
  const { iopt } = context.objects.get(Ioas, cmd.ioas_id);
  if (cmd.iova === 0n && cmd.length === MAX_ADDRESS) {
    cmd.length = iopt.unmapAll();
  } else {
    refuseHuge({ iova: cmd.iova, length: cmd.length });
    const removed = iopt.unmap(cmd.iova, lastByte(cmd.iova, cmd.length));
    if (removed === 0n) {
      throw new Errno(
        'ENOENT',
        `nothing is mapped in ${hex(cmd.length)} bytes from ${hex(cmd.iova)}`,
      );
    }
    cmd.length = removed;
  }
  respond();
}

/** Last byte of a range as the client gave it; EINVAL for none, EOVERFLOW where it wraps. */
export function lastByte(first: bigint, length: bigint): bigint {
  if (length === 0n) throw new Errno('EINVAL', 'length 0');
  const last = first + length - 1n;
  if (last > MAX_ADDRESS)
    throw new Errno('EOVERFLOW', `${hex(first)} + ${hex(length)} wraps around`);
  return last;
}

function refuseHuge(values: Readonly<Record<string, bigint>>): void {
  for (const [name, value] of Object.entries(values)) {
    if (value >= MAX_ADDRESS)
      throw new Errno('EOVERFLOW', `${name} ${hex(value)} must be below ULONG_MAX`);
  }
}

function refuseNoAccess(flags: number): void {
  if ((flags & ACCESS_FLAGS) === 0)
    throw new Errno('EINVAL', 'neither READABLE nor WRITEABLE is set');
}

function protOf(flags: number): number {
  const write = (flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0 ? PROT_WRITE : 0;
  const read = (flags & IOMMU_IOAS_MAP_READABLE) !== 0 ? PROT_READ : 0;
  return write | read;
}

function fixedIova(flags: number, iova: bigint): bigint | undefined {
  return (flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? iova : undefined;
}

function element(array: bigint, index: number): bigint {
  return BigInt.asUintN(64, array + BigInt(index * iommu_iova_range.size));
}
