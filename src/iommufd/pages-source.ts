/**
 * Making page sets from what a client names: an address range, a file, a dma-buf.
 *
 * After iopt_map_user_pages, iopt_map_file_pages (drivers/iommu/iommufd/io_pagetable.c) and iopt_alloc_pages,
 * iopt_alloc_dmabuf_pages (pages.c).
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, hex, offsetOf, pageOf } from '../base/position.ts';
import type { Task } from '../base/task.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import { PROT_WRITE } from '../iommu/page-table.ts';
import { payerOf } from '../pinning/accounting.ts';
import type { Context } from './context.ts';
import { DmaBuf } from '../pinning/dma-buf.ts';
import type { Slice } from './io-pagetable.ts';
import { Pages, type Source } from '../pinning/pages.ts';

const PAGE = BigInt(PAGE_SIZE);
const MAX_LENGTH = MAX_ADDRESS - PAGE;
const LAST_PAGE = pageOf(MAX_ADDRESS) - 1;
// The number of frames that one batch element can hold (MAX_NPFNS, a u32).
const MAX_DMABUF_PAGES = 0xffff_ffffn;

/** EOVERFLOW (wraps), EINVAL (length 0). */
export function userPages(
  context: Context,
  task: Task,
  range: { readonly address: bigint; readonly length: bigint; readonly prot: number },
): Slice {
  const { address, length } = range;
  const firstPage = pageOf(address);
  // Far from the end of the address space there is no need to add bigints.
  if (firstPage + pageOf(length) >= LAST_PAGE && address + length > MAX_ADDRESS) {
    throw new Errno('EOVERFLOW', `address ${hex(address)} + length ${hex(length)} wraps around`);
  }
  const source = userSource(context, task);
  return slice({ context, task, source, firstPage }, offsetOf(address), length, range.prot);
}

/** EINVAL (length 0, beyond a dma-buf), EOVERFLOW (wraps), EBADF, ENODEV (revoked). */
export function filePages(
  context: Context,
  task: Task,
  range: {
    readonly fd: number;
    readonly start: bigint;
    readonly length: bigint;
    readonly prot: number;
  },
): Slice {
  const { fd, start, length, prot } = range;
  if (length === 0n) throw new Errno('EINVAL', 'length 0');
  if (start + length - 1n > MAX_ADDRESS) {
    throw new Errno('EOVERFLOW', `start ${hex(start)} + length ${hex(length)} wraps around`);
  }
  const firstPage = pageOf(start);
  const offset = offsetOf(start);
  const file = task.file(fd);
  if (!(file instanceof DmaBuf)) {
    const source: Source = { kind: 'file', file: task.fileMemory(fd) };
    return slice({ context, task, source, firstPage }, offset, length, prot);
  }
  if (BigInt(file.size) <= start + length - 1n || length / PAGE >= MAX_DMABUF_PAGES) {
    throw new Errno(
      'EINVAL',
      `${hex(length)} bytes from ${hex(start)} reach beyond the dma-buf of ${hex(file.size)} bytes`,
    );
  }
  const source: Source = { kind: 'dmabuf', buffer: file };
  const made = slice({ context, task, source, firstPage }, offset, length, prot);
  try {
    file.attach(made.pages);
  } catch (error) {
    made.pages.put();
    throw error;
  }
  return made;
}

/** The caller's memory as a source; used again, since a million page sets need not each have one of their own. */
function userSource(context: Context, { memory }: Task): Source {
  const last = context.source;
  if (last?.kind === 'user' && last.memory === memory) return last;
  return (context.source = { kind: 'user', memory });
}

/** @param offset of the first byte in the first page */
function slice(
  from: {
    readonly context: Context;
    readonly task: Task;
    readonly source: Source;
    readonly firstPage: number;
  },
  offset: number,
  length: bigint,
  prot: number,
): Slice {
  const { context, task, source, firstPage } = from;
  if (length === 0n) throw new Errno('EINVAL', 'length must not be 0');
  if (length > MAX_LENGTH) {
    throw new Errno('EINVAL', `length ${hex(length)} exceeds the address space`);
  }
  const { environment } = context;
  environment.faults.alloc('page set');
  const count = pageOf(length) + Math.ceil((offsetOf(length) + offset) / PAGE_SIZE);
  const payer = payerOf(task, context.accountMode, context.payer);
  context.payer = payer;
  const writable = (prot & PROT_WRITE) !== 0;
  const pages = new Pages(environment, source, { firstPage, count, writable, payer });
  return { pages, index: 0, offset, length };
}
