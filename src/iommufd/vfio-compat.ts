/**
 * VFIO's container ioctls on /dev/iommu: they act on one IOAS of the context, the compatibility IOAS.
 *
 * After drivers/iommu/iommufd/vfio_compat.c.
 */
import { Argument } from '../base/argument.ts';
import { Errno } from '../base/errno.ts';
import { ByteCount, MAX_ADDRESS, firstOf, hex, lastOf } from '../base/position.ts';
import type { Task } from '../base/task.ts';
import { PROT_READ, PROT_WRITE } from '../iommu/page-table.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import {
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  type iommu_vfio_ioas,
} from '../uapi/iommufd.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';
import { nameCall, VFIO_IOCTLS as spec } from '../uapi/vfio-ioctls.ts';
import * as vfio from '../uapi/vfio.ts';
import type { Context } from './context.ts';
import { Ioas, lastByte } from './ioas.ts';
import { userPages } from './pages-source.ts';
import type { Ucmd } from './ucmd.ts';

export function vfioIoas({ context, cmd, respond }: Ucmd<iommu_vfio_ioas>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  switch (cmd.op) {
    case IOMMU_VFIO_IOAS_GET:
      cmd.ioas_id = compatIoas(context).id;
      respond();
      return;
    case IOMMU_VFIO_IOAS_SET:
      context.vfioIoas = context.objects.get(Ioas, cmd.ioas_id);
      return;
    case IOMMU_VFIO_IOAS_CLEAR:
      context.vfioIoas = undefined;
      return;
    default:
      throw new Errno('EOPNOTSUPP', `operation ${cmd.op} is none of GET, SET, CLEAR`);
  }
}

/** The IOAS that VFIO's calls act on; ENODEV if there is none. */
export function compatIoas(context: Context): Ioas {
  if (context.vfioIoas === undefined) {
    throw new Errno(
      'ENODEV',
      'there is no compatibility IOAS: no group was added, and VFIO_IOAS SET named none',
    );
  }
  return context.vfioIoas;
}

/** Makes the compatibility IOAS if there is none yet; EINVAL in no-iommu mode. After iommufd_vfio_compat_ioas_create. */
export function createCompatIoas(context: Context): void {
  const ioas = new Ioas(context);
  context.objects.reserve(ioas);
  if (context.noIommuMode || context.vfioIoas !== undefined) {
    context.objects.abort(ioas);
    if (!context.noIommuMode) return;
    throw new Errno('EINVAL', 'the container is used by a no-iommu group');
  }
  context.vfioIoas = ioas;
  context.objects.publish(ioas);
}

/** Switches to no-iommu mode; EINVAL once there is a compatibility IOAS. */
export function setNoIommuMode(context: Context): void {
  if (context.vfioIoas !== undefined) {
    throw new Errno('EINVAL', 'the container is used by a group with an IOMMU');
  }
  context.noIommuMode = true;
}

// No extension has a number near this; larger ones must not be mistaken for a small one when they become a double.
const MAX_EXTENSION = 0xffff_ffffn;

type Handler = (context: Context, task: Task, argument: bigint) => number;

const HANDLERS = new Map<number, Handler>([
  [spec.VFIO_GET_API_VERSION.number, () => vfio.VFIO_API_VERSION],
  [spec.VFIO_CHECK_EXTENSION.number, checkExtension],
  [spec.VFIO_SET_IOMMU.number, setIommu],
  [spec.VFIO_IOMMU_GET_INFO.number, getInfo],
  [spec.VFIO_IOMMU_MAP_DMA.number, mapDma],
  [spec.VFIO_IOMMU_UNMAP_DMA.number, unmapDma],
]);

/** ENOTTY for everything that is not offered here. */
export function vfioIoctl(
  context: Context,
  task: Task,
  call: { readonly command: number; readonly argument: bigint },
): number {
  nameCall('container', { task, ...call });
  const handler = HANDLERS.get(call.command);
  if (handler === undefined) {
    throw new Errno('ENOTTY', `${hex(call.command)} is not an ioctl of /dev/iommu`);
  }
  return handler(context, task, call.argument);
}

function checkExtension(context: Context, _task: Task, extension: bigint): number {
  if (extension > MAX_EXTENSION) return 0;
  switch (Number(extension)) {
    case vfio.VFIO_TYPE1_IOMMU:
    case vfio.VFIO_TYPE1v2_IOMMU:
    case vfio.VFIO_UNMAP_ALL:
      return context.noIommuMode ? 0 : 1;
    case vfio.VFIO_NOIOMMU_IOMMU:
      return context.environment.noIommu === true ? 1 : 0;
    case vfio.VFIO_DMA_CC_IOMMU:
      return compatIoas(context).hwpts.every((hwpt) => hwpt.enforcesCacheCoherency) ? 1 : 0;
    default:
      return 0;
  }
}

function setIommu(context: Context, task: Task, type: bigint): number {
  const { noIommuMode, environment } = context;
  if (environment.noIommu === true && noIommuMode && type === BigInt(vfio.VFIO_NOIOMMU_IOMMU)) {
    if (task.capable('CAP_SYS_RAWIO')) return 0;
    throw new Errno('EPERM', 'working without an IOMMU needs CAP_SYS_RAWIO');
  }
  const isType1 = type === BigInt(vfio.VFIO_TYPE1_IOMMU);
  if ((!isType1 && type !== BigInt(vfio.VFIO_TYPE1v2_IOMMU)) || noIommuMode) {
    throw new Errno('EINVAL', `IOMMU type ${type} is neither type 1 nor type 1 v2`);
  }
  const { iopt } = compatIoas(context);
  // Version 1 can unmap in the middle of a mapping, which only works where no leaf is larger than a page.
  if (isType1) iopt.disableLargePages();
  return 0;
}

function mapDma(context: Context, task: Task, argument: bigint): number {
  const { struct, last } = spec.VFIO_IOMMU_MAP_DMA;
  const map = new Argument({ task, address: argument }, struct, last).value;
  const known = vfio.VFIO_DMA_MAP_FLAG_READ | vfio.VFIO_DMA_MAP_FLAG_WRITE;
  if ((map.flags & ~known) !== 0) throw unknownFlags(struct, map.flags, known, 'EINVAL');
  const read = (map.flags & vfio.VFIO_DMA_MAP_FLAG_READ) !== 0 ? PROT_READ : 0;
  const write = (map.flags & vfio.VFIO_DMA_MAP_FLAG_WRITE) !== 0 ? PROT_WRITE : 0;
  const prot = read | write;
  const { iopt } = compatIoas(context);
  const slice = userPages(context, task, { address: map.vaddr, length: map.size, prot });
  iopt.map([slice], { iova: map.iova, prot });
  return 0;
}

function unmapDma(context: Context, task: Task, argument: bigint): number {
  const { struct, last } = spec.VFIO_IOMMU_UNMAP_DMA;
  const given = new Argument({ task, address: argument }, struct, last);
  const unmap = given.value;
  const known = vfio.VFIO_DMA_UNMAP_FLAG_ALL;
  if ((unmap.flags & ~known) !== 0) throw unknownFlags(struct, unmap.flags, known, 'EINVAL');
  const { iopt } = compatIoas(context);
  const removed = new ByteCount();
  const all = (unmap.flags & vfio.VFIO_DMA_UNMAP_FLAG_ALL) !== 0;
  if (all && (unmap.iova !== 0n || unmap.size !== 0n)) {
    throw new Errno('EINVAL', 'UNMAP_ALL goes with iova 0 and size 0');
  }
  if (!all && iopt.largePagesOff) {
    const last = BigInt.asUintN(64, unmap.iova + unmap.size - 1n);
    iopt.cut(unmap.iova === 0n ? [last] : [last, unmap.iova - 1n]);
  }
  try {
    if (all) iopt.unmapAll(removed);
    else iopt.unmap(unmap.iova, lastByte(unmap.iova, unmap.size), removed);
  } finally {
    // The size is told also where the call fails.
    unmap.size = removed.total;
    given.respond();
  }
  return 0;
}

/** Page sizes that all domains can map; parts of a page count as a page (iommufd_get_pagesizes). */
function pageSizes({ iopt }: Ioas): bigint {
  const page = BigInt(PAGE_SIZE);
  let sizes = iopt.domains.reduce((common, { pageSizes: own }) => common & own, MAX_ADDRESS);
  if ((sizes & (page - 1n)) !== 0n) sizes = (sizes & ~(page - 1n)) | page;
  const alignment = BigInt(iopt.alignment);
  return sizes > alignment ? sizes : alignment;
}

function dmaAvailable(): Uint8Array {
  const struct = vfio.vfio_iommu_type1_info_dma_avail;
  const bytes = new Uint8Array(struct.size);
  const header = { id: vfio.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, version: 1, next: 0 };
  struct.encode({ header, avail: 0xffff_ffff }, bytes);
  return bytes;
}

function iovaRanges({ iopt }: Ioas): Uint8Array {
  const struct = vfio.vfio_iommu_type1_info_cap_iova_range;
  const range = vfio.vfio_iova_range;
  const holes = iopt.reserved.holes();
  const bytes = new Uint8Array(struct.size + holes.length * range.size);
  const header = { id: vfio.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, version: 1, next: 0 };
  struct.encode(struct.make({ header, nr_iovas: holes.length }), bytes);
  holes.forEach((hole, i) => {
    range.encode({ start: firstOf(hole), end: lastOf(hole) }, bytes, struct.size + i * range.size);
  });
  return bytes;
}

/** A list of ranges that does not fit is written as far as it goes, without its header (iommufd_fill_cap_iova). */
function copyRangesThatFit(
  task: Task,
  address: bigint,
  { capability, room }: { readonly capability: Uint8Array; readonly room: number },
): void {
  const header = vfio.vfio_iommu_type1_info_cap_iova_range.size;
  const range = vfio.vfio_iova_range.size;
  const count = Math.floor((Math.max(room, 0) - header) / range);
  if (count <= 0) return;
  task.memory.copyOut(
    address + BigInt(header),
    capability.subarray(header, header + count * range),
  );
}

/** After iommufd_vfio_iommu_get_info: capabilities that fit are written, the size that all need is always told. */
function getInfo(context: Context, task: Task, argument: bigint): number {
  const { struct, last } = spec.VFIO_IOMMU_GET_INFO;
  const given = new Argument({ task, address: argument }, struct, last);
  const info = given.value;
  const { argsz } = info;
  const ioas = compatIoas(context);
  info.flags = vfio.VFIO_IOMMU_INFO_PGSIZES | vfio.VFIO_IOMMU_INFO_CAPS;
  info.iova_pgsizes = pageSizes(ioas);
  let total = struct.size;
  let previous: number | undefined;
  for (const capability of [dmaAvailable(), iovaRanges(ioas)]) {
    const fits = argsz - total >= capability.length;
    if (fits) task.memory.copyOut(argument + BigInt(total), capability);
    else copyRangesThatFit(task, argument + BigInt(total), { capability, room: argsz - total });
    if (previous !== undefined && argsz >= total) {
      const next = new Uint8Array(4);
      new DataView(next.buffer).setUint32(0, total, true);
      const at = previous + vfio.vfio_info_cap_header.offsetOf('next');
      task.memory.copyOut(argument + BigInt(at), next);
    }
    previous = total;
    total += Math.ceil(capability.length / 8) * 8;
  }
  info.cap_offset = argsz >= total ? struct.size : 0;
  info.argsz = total;
  given.respond(Math.min(argsz, struct.size));
  return 0;
}
