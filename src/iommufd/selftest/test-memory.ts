/**
 * Test operations that look at memory: what a domain maps, how often a page is pinned, dirty bits.
 *
 * After the memory part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import {
  ALL_PAGES,
  MAX_ADDRESS,
  PAGE_BYTES,
  hex,
  offsetOf,
  pageOf,
  spanOf,
} from '../../base/position.ts';
import type { Task } from '../../base/task.ts';
import { HwptNested, HwptPaging } from '../hw-pagetable.ts';
import { Ioas, lastByte } from '../ioas.ts';
import { pagesAt, pfnsAt } from './client-pages.ts';
import { MockNestedDomain } from './mock-nested.ts';
import { MockPagingDomain } from './mock-iommu.ts';
import type { TestCmd } from './test-cmd.ts';

const PAGE = BigInt(PAGE_BYTES);
const MAX_DIRTY_BITS = 16n * 1024n * 1024n * 8n;
// One frame number and one length of a batch (selftest.c, SET_TEMP_MEMORY_LIMIT).
const SMALLEST_MEMORY_LIMIT = 12;
const CHUNK = 65_536;

export function addReserved({ context, cmd }: TestCmd): undefined {
  const { start, length } = cmd.u.read('add_reserved');
  const last = lastByte(start, length);
  context.objects.get(Ioas, cmd.id).iopt.reserve(spanOf(start, last), undefined, 'a test');
}

/** The bound of temporary memory has no visible effect: pinning here needs none. */
export function setTempMemoryLimit({ cmd }: TestCmd): undefined {
  const { limit } = cmd.u.read('memory_limit');
  if (limit >= SMALLEST_MEMORY_LIMIT) return;
  throw new Errno(
    'EINVAL',
    `a limit of ${limit} bytes holds no frame number, ${SMALLEST_MEMORY_LIMIT} is the least`,
  );
}

export function checkMap({ context, task, cmd }: TestCmd): undefined {
  const { domain } = context.objects.get(HwptPaging, cmd.id);
  if (!(domain instanceof MockPagingDomain))
    throw new Errno('EINVAL', `${domain.name} is not a mock domain`);
  const request = cmd.u.read('check_map');
  const { iova, length, uptr } = request;
  const step = BigInt(domain.minPageSize);
  refuseUnaligned([iova, length, uptr], step);
  refuseWrap(uptr, length);
  if (length === 0n) return;
  const first = pageOf(uptr);
  const pages = { first, count: pageOf(uptr + length - 1n) - first + 1 };
  let done = 0n;
  for (const pfn of pfnsAt(context.environment.physical, task, pages)) {
    // The domain's pages may be smaller than the memory's.
    do {
      const at = BigInt.asUintN(64, iova + done);
      checkTranslation(domain, at, { address: uptr + done, pfn });
      done += step;
    } while (done < length && offsetOf(uptr + done) !== 0);
  }
}

function checkTranslation(
  domain: MockPagingDomain,
  iova: bigint,
  { address, pfn }: { readonly address: bigint; readonly pfn: number },
): void {
  const wanted = pfn * PAGE_BYTES + offsetOf(address);
  const found = domain.table.translate(pageOf(iova), offsetOf(iova));
  if (found === wanted) return;
  const leads = found === -1 ? 'nowhere' : `to ${hex(found)}`;
  throw new Errno(
    'EINVAL',
    `IOVA ${hex(iova)} leads ${leads}, the page at ${hex(address)} is ${hex(wanted)}`,
  );
}

export function checkRefs({ context, task, cmd }: TestCmd): undefined {
  const { length, uptr, refs } = cmd.u.read('check_refs');
  refuseUnaligned([length, uptr], PAGE);
  refuseWrap(uptr, length);
  let address = uptr;
  for (const { backing, page } of pagesAt(task, { first: pageOf(uptr), count: pageOf(length) })) {
    // Counts of huge pages say nothing about one of their parts.
    const count = backing.unit === 1 ? context.environment.physical.pinCount(backing, page) : refs;
    if (count !== refs) {
      throw new Errno('EIO', `the page at ${hex(address)} is pinned ${count} times, not ${refs}`);
    }
    address += PAGE;
  }
}

export function checkIotlb({ context, cmd }: TestCmd): undefined {
  const { domain } = context.objects.get(HwptNested, cmd.id);
  if (!(domain instanceof MockNestedDomain))
    throw new Errno('EINVAL', `${domain.name} is not a mock domain`);
  const { id, iotlb } = cmd.u.read('check_iotlb');
  const word = domain.iotlb[id];
  if (word === iotlb) return;
  throw new Errno(
    'EINVAL',
    `cached word ${id} is ${word === undefined ? 'not there' : hex(word)}, not ${hex(iotlb)}`,
  );
}

export function dirty({ context, task, cmd, respond }: TestCmd): undefined {
  const request = cmd.u.read('dirty');
  const { iova, length, page_size: pageSize, uptr } = request;
  if (
    pageSize === 0n ||
    length === 0n ||
    iova % pageSize !== 0n ||
    length % pageSize !== 0n ||
    uptr === 0n
  ) {
    throw new Errno(
      'EINVAL',
      `${hex(length)} bytes from ${hex(iova)} are not whole pages of ${hex(pageSize)}, or no bitmap`,
    );
  }
  const bits = length / pageSize;
  if (bits > MAX_DIRTY_BITS)
    throw new Errno('EOVERFLOW', `${bits} pages are more than a test may mark`);
  const { domain } = context.objects.get(HwptPaging, cmd.id);
  if (!(domain instanceof MockPagingDomain))
    throw new Errno('EINVAL', `${domain.name} is not a mock domain`);
  if (!domain.recordsWrites) throw new Errno('EINVAL', `${domain.name} does not record writes`);
  context.environment.faults.alloc('dirty bits');
  const bitmap = readBitmap(task, uptr, Number(bits));
  const [pages, bytes] = [pageOf(pageSize), offsetOf(pageSize)];
  let count = 0;
  for (const bit of setBits(bitmap, Number(bits))) {
    const inPage = offsetOf(iova) + bit * bytes;
    const page = pageOf(iova) + bit * pages + Math.floor(inPage / PAGE_BYTES);
    domain.table.setDirty(page % ALL_PAGES, inPage % PAGE_BYTES);
    count++;
  }
  cmd.u.write('dirty', { ...request, out_nr_dirty: BigInt(count) });
  respond();
}

function readBitmap(task: Task, address: bigint, bits: number): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(bits / 8));
  for (let done = 0; done < bitmap.length; done += CHUNK) {
    const from = BigInt.asUintN(64, address + BigInt(done));
    task.memory.copyIn(from, bitmap.subarray(done, done + CHUNK));
  }
  return bitmap;
}

/** Numbers of the bits that are set, below `bits`. */
function* setBits(bitmap: Uint8Array, bits: number): Generator<number> {
  for (let index = 0; index < bitmap.length; index++) {
    const byte = bitmap[index] ?? 0;
    if (byte === 0) continue;
    for (let bit = 0; bit < 8; bit++) {
      const number = index * 8 + bit;
      if ((byte & (1 << bit)) !== 0 && number < bits) yield number;
    }
  }
}

function refuseUnaligned(values: readonly bigint[], size: bigint): void {
  const off = values.find((value) => value % size !== 0n);
  if (off !== undefined) throw new Errno('EINVAL', `${hex(off)} is not a multiple of ${hex(size)}`);
}

function refuseWrap(address: bigint, length: bigint): void {
  if (address + length > MAX_ADDRESS)
    throw new Errno('EINVAL', `${hex(address)} + ${hex(length)} wraps around`);
}
