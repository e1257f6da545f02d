/**
 * Test operations on accesses: making one, pinning and copying through it.
 *
 * After the access part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES, addressOf, hex, pageOf } from '../../base/position.ts';
import type { Task } from '../../base/task.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import * as uapi from '../../uapi/iommufd-test.ts';
import { pfnsOf } from '../../pinning/pages.ts';
import { AccessFile } from './access-file.ts';
import { syzkallerIova } from './syzkaller.ts';
import { pfnsAt } from './client-pages.ts';
import type { TestCmd } from './test-cmd.ts';

const MAX_LENGTH = 16n * 1024n * 1024n;
const PAGE = BigInt(PAGE_BYTES);
// Nothing of a copy outlives its call: a buffer made for each takes longer than the copy.
const BUFFER = new Uint8Array(PAGE_BYTES);

export function createAccess({ context, task, cmd, checkRespond, respond }: TestCmd): undefined {
  const { flags } = cmd.u.read('create_access');
  if ((flags & ~uapi.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES) !== 0) {
    throw new Errno('EOPNOTSUPP', `unknown access flags ${hex(flags >>> 0)}`);
  }
  context.environment.faults.alloc('test access');
  const file = new AccessFile(context, flags !== 0);
  try {
    file.access.attach(cmd.id);
    context.environment.faults.alloc('file of a test access');
    checkRespond();
  } catch (error) {
    file.release();
    // The number comes first (get_unused_fd_flags), and its lack is always ENOMEM here.
    throw error instanceof Errno && task.tableIsFull ? tableFull() : error;
  }
  const fd = installAccess(task, file);
  cmd.u.write('create_access', { out_access_fd: fd, flags });
  respond();
}

function installAccess(task: Task, file: AccessFile): number {
  try {
    return task.install(file, { cloexec: true });
  } catch (error) {
    throw error instanceof Errno ? tableFull() : error;
  }
}

const tableFull = (): Errno => new Errno('ENOMEM', "the client's fd table is full (RLIMIT_NOFILE)");

export function accessReplaceIoas({ task, cmd }: TestCmd): undefined {
  accessOf(task, cmd.id).access.replace(cmd.u.read('access_replace_ioas').ioas_id);
}

export function destroyAccessPages({ task, cmd }: TestCmd): undefined {
  accessOf(task, cmd.id).dropItem(cmd.u.read('destroy_access_pages').access_pages_id);
}

export function accessPages({ context, task, cmd, respond }: TestCmd): undefined {
  const request = cmd.u.read('access_pages');
  const { length, uptr, flags } = request;
  refuseLarge(length);
  refuseFlags(flags, uapi.MOCK_FLAGS_ACCESS_WRITE | uapi.MOCK_FLAGS_ACCESS_SYZ);
  const file = accessOf(task, cmd.id);
  if (!file.pins) throw new Errno('EOPNOTSUPP', 'this access was made without NEEDS_PIN_PAGES');
  const iova = actualIova(file, request.iova, flags);
  context.environment.faults.alloc('list of pages');
  const write = (flags & uapi.MOCK_FLAGS_ACCESS_WRITE) !== 0;
  const pfns = [...pfnsOf(file.access.pin(iova, length, write))];
  let item: number | undefined;
  try {
    if (uptr !== 0n)
      comparePages(context.environment.physical, task, { first: uptr - (iova % PAGE), pfns });
    context.environment.faults.alloc('access item');
    item = file.addItem(iova, length);
    cmd.u.write('access_pages', { ...request, out_access_pages_id: item });
    respond();
  } catch (error) {
    if (item !== undefined) file.forgetItem(item);
    file.access.unpin(iova, length);
    throw error;
  }
}

export function accessRw({ context, task, cmd }: TestCmd): undefined {
  const request = cmd.u.read('access_rw');
  const { length, uptr, flags } = request;
  refuseLarge(length);
  const known =
    uapi.MOCK_ACCESS_RW_WRITE | uapi.MOCK_ACCESS_RW_SLOW_PATH | uapi.MOCK_FLAGS_ACCESS_SYZ;
  refuseFlags(flags, known);
  const file = accessOf(task, cmd.id);
  context.environment.faults.alloc('copy buffer');
  const bytes =
    length <= BUFFER.length ? BUFFER.subarray(0, Number(length)) : new Uint8Array(Number(length));
  const write = (flags & uapi.MOCK_ACCESS_RW_WRITE) !== 0;
  if (write) task.memory.copyIn(uptr, bytes);
  const slow = (flags & uapi.MOCK_ACCESS_RW_SLOW_PATH) !== 0;
  const iova = actualIova(file, request.iova, flags);
  file.access.readWrite(iova, bytes, { write, slow, caller: task.memory });
  if (!write) task.memory.copyOut(uptr, bytes);
}

/** The test driver answers EBADFD whatever is wrong with the number. */
function accessOf(task: Task, fd: number): AccessFile {
  const file = lookUp(task, fd);
  if (file instanceof AccessFile) return file;
  throw new Errno('EBADFD', `file descriptor ${fd} is not a test access`);
}

function lookUp(task: Task, fd: number): unknown {
  try {
    return task.file(fd);
  } catch (error) {
    if (error instanceof Errno) return undefined;
    throw error;
  }
}

function refuseLarge(length: bigint): void {
  if (length > MAX_LENGTH)
    throw new Errno('ENOMEM', `${hex(length)} bytes are more than a test may take`);
}

function refuseFlags(flags: number, known: number): void {
  if ((flags & ~known) !== 0)
    throw new Errno('EOPNOTSUPP', `unknown flags ${hex((flags & ~known) >>> 0)}`);
}

function actualIova(file: AccessFile, iova: bigint, flags: number): bigint {
  if ((flags & uapi.MOCK_FLAGS_ACCESS_SYZ) === 0) return iova;
  const ioas = file.access.ioas;
  return ioas === undefined ? 0n : syzkallerIova(ioas.iopt, iova);
}

/** EBADE unless the pinned frames are those of the caller's pages from `first` on. */
function comparePages(
  physical: PhysicalMemory,
  task: Task,
  { first, pfns }: { readonly first: bigint; readonly pfns: readonly number[] },
): void {
  const firstPage = pageOf(BigInt.asUintN(64, first));
  let done = 0;
  for (const pfn of pfnsAt(physical, task, { first: firstPage, count: pfns.length })) {
    if (pfn !== pfns[done]) {
      const address = addressOf(firstPage + done, 0);
      throw new Errno('EBADE', `the page at ${hex(address)} is not the one that was pinned`);
    }
    done++;
  }
}
