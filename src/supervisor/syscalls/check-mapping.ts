/**
 * What Linux refuses of an mmap before it asks the file. The host would refuse the same of the real file, but only after the
 * file's own answer, which is another one.
 *
 * Left to the host: what depends on its limits (number of mappings, locked memory, lowest address).
 * After do_mmap (mm/mmap.c), ksys_mmap_pgoff and arch_get_unmapped_area.
 */
import { Errno } from '../../base/errno.ts';
import { hex, PAGE_BYTES, USER_END } from '../../base/position.ts';
import { openFlags } from '../../os/files.ts';
import { O_ACCMODE, O_RDONLY, O_RDWR, O_WRONLY } from '../../os/numbers.ts';
import { mappingsOf } from '../../os/process.ts';
import type { OpenEntry } from '../fds/files.ts';
import type { ClientThread } from '../process-table.ts';

export type MmapArguments = {
  readonly address: bigint;
  /** in bytes */
  readonly length: bigint;
  readonly protection: number;
  readonly flags: bigint;
  /** in bytes */
  readonly offset: bigint;
};

export const PROT_WRITE = 2;
export const PROT_EXEC = 4;
export const MAP_GROWSDOWN = 0x100n;
const MAP_TYPE = 0x0fn;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_SHARED_VALIDATE = 3;
const MAP_FIXED = 0x10n;
const MAP_32BIT = 0x40n;
/** from 1 GB to 2 GB (find_start_end of arch/x86/kernel/sys_x86_64.c) */
const LOW_ROOM = 2n ** 30n;
const MAP_HUGETLB = 0x40000n;
const MAP_FIXED_NOREPLACE = 0x100000n;
/** What every file takes (LEGACY_MAP_MASK of include/linux/mman.h): flags as old as mmap, and two sizes of huge pages. */
const EVERY_FILE = 0x7f9f3n | (21n << 26n) | (30n << 26n);
const PAGE = BigInt(PAGE_BYTES);

/** Which file of ours is to be mapped. */
type Subject = {
  readonly thread: ClientThread;
  readonly fd: number;
  readonly entry: OpenEntry;
};

/**
 * @returns length of the mapping, in bytes, and whether others see what is written to it; nothing can be written, and the
 *   kernel counts it as not shared, where the file is open for reading only
 * @throws Errno EINVAL, ENOMEM, EEXIST, EOVERFLOW, EOPNOTSUPP, EACCES, EPERM
 */
export function checkMapping(
  subject: Subject,
  wanted: MmapArguments,
): { readonly length: bigint; readonly shared: boolean } {
  const { flags, offset } = wanted;
  if (offset % PAGE !== 0n) {
    throw new Errno('EINVAL', `offset ${hex(offset)} is not a multiple of a page`);
  }
  if ((flags & MAP_HUGETLB) !== 0n) {
    throw new Errno('EINVAL', `MAP_HUGETLB, but ${subject.entry.link} is not a file of huge pages`);
  }
  const length = wholePages(wanted.length);
  checkPlace(subject.thread, wanted, length);
  const last = (2n ** 64n - 1n - length) / PAGE;
  if (offset / PAGE > last) {
    throw new Errno('EOVERFLOW', `no file has ${length} bytes from ${hex(offset)} on`);
  }
  const type = Number(wanted.flags & MAP_TYPE);
  if (type < MAP_SHARED || type > MAP_SHARED_VALIDATE) {
    throw new Errno('EINVAL', `there is no mapping of type ${type}`);
  }
  const shared = type !== MAP_PRIVATE;
  if (type === MAP_SHARED_VALIDATE) checkFlags(subject, flags);
  const canWrite = checkAccess(subject, shared && (wanted.protection & PROT_WRITE) !== 0);
  if (subject.entry.path === undefined && (wanted.protection & PROT_EXEC) !== 0) {
    throw new Errno('EPERM', `${subject.entry.link} lies where nothing can be executed`);
  }
  return { length, shared: shared && canWrite };
}

function wholePages(length: bigint): bigint {
  if (length === 0n) throw new Errno('EINVAL', 'nothing is to be mapped (length 0)');
  const whole = BigInt.asUintN(64, ((length + PAGE - 1n) / PAGE) * PAGE);
  if (whole === 0n || whole > USER_END) {
    throw new Errno('ENOMEM', `no address space has ${length} bytes`);
  }
  return whole;
}

function checkPlace(
  { tid }: ClientThread,
  { address, flags }: MmapArguments,
  length: bigint,
): void {
  if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) === 0n) {
    if ((flags & MAP_32BIT) === 0n || length <= LOW_ROOM) return;
    throw new Errno('ENOMEM', `${length} bytes do not fit where MAP_32BIT goes`);
  }
  if (address > USER_END - length) {
    throw new Errno(
      'ENOMEM',
      `${length} bytes from ${hex(address)} on do not end below ${hex(USER_END)}`,
    );
  }
  if (address % PAGE !== 0n) {
    throw new Errno('EINVAL', `address ${hex(address)} is not a multiple of a page`);
  }
  if ((flags & MAP_FIXED_NOREPLACE) === 0n) return;
  const [start, end] = [Number(address), Number(address + length)];
  for (const there of mappingsOf(tid)) {
    if (there.start >= end || there.end <= start) continue;
    throw new Errno(
      'EEXIST',
      `${hex(BigInt(there.start))} to ${hex(BigInt(there.end))} is mapped, and MAP_FIXED_NOREPLACE asked for`,
    );
  }
}

function checkFlags({ entry }: Subject, flags: bigint): void {
  const unknown = flags & ~EVERY_FILE;
  if (unknown === 0n) return;
  throw new Errno('EOPNOTSUPP', `${entry.link} knows nothing of flags ${hex(unknown)}`);
}

/** @returns the file can be written */
function checkAccess({ thread, fd, entry }: Subject, writes: boolean): boolean {
  // The pipe behind a stream is open in another way than the stream.
  const flags = entry.pipe === undefined ? openFlags(thread.tid, fd) : undefined;
  const access = (flags ?? O_RDWR) & O_ACCMODE;
  const canWrite = access === O_RDWR || access === O_WRONLY;
  if (writes && !canWrite) {
    throw new Errno('EACCES', `fd ${fd} is not open for writing`);
  }
  if (access !== O_RDONLY && access !== O_RDWR) {
    throw new Errno('EACCES', `fd ${fd} is not open for reading`);
  }
  return canWrite;
}
