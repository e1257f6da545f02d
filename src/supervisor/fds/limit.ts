/**
 * The limit of open files (RLIMIT_NOFILE) that the client would have had, and what to do when it lowers it later.
 *
 * Node raises its own limit to the hard one before any of our code runs; the parent, which passed it on, is the best witness.
 */
import { readdirSync } from 'node:fs';

import { Errno } from '../../base/errno.ts';
import { closeFile } from '../../os/files.ts';
import { fileLimits, setFileLimits } from '../../os/process.ts';
import type { FileOptions, Listener } from '../../os/seccomp.ts';

const USUAL_LIMIT = 1024;
/** fds of uiommu that stay free for what it opens in the course of a call. */
const SPARE = 32;
const NONE_LEFT: readonly number[] = [-23, -24]; // ENFILE, EMFILE

let ownLimit: number | undefined;

/**
 * An fd of uiommu that is kept for as long as a client lives. There are a few for each client, and no more clients than there
 * are fds for: the calls of those that came before must go on to work.
 * @param fd just opened, or the negative errno
 * @throws Errno ENFILE, and the fd is closed
 */
export function kept(fd: number): number {
  ownLimit ??= fileLimits(process.pid)?.soft ?? USUAL_LIMIT;
  if (!NONE_LEFT.includes(fd) && fd < ownLimit - SPARE) return fd;
  if (fd >= 0) closeFile(fd);
  throw new Errno(
    'ENFILE',
    `uiommu has no fd left for one more client (its limit, RLIMIT_NOFILE, is ${ownLimit})`,
  );
}

/** Soft RLIMIT_NOFILE for a client. */
export function clientFileLimit(): number {
  const parent = fileLimits(process.ppid);
  const own = fileLimits(process.pid);
  return Math.min(parent?.soft ?? USUAL_LIMIT, own?.hard ?? USUAL_LIMIT);
}

/**
 * Puts a file at a number that the filter looks at, though the client's limit may lie below: it gets room for a moment, as
 * long as it has fewer files open than it may. The filter of a program that runs cannot be changed.
 *
 * Another thread of the client that reads or sets the limit in that moment reads the higher one, or sets it in vain.
 * @returns the number, or a negative errno
 */
export function putFile(listener: Listener, pid: number, fd: number, options: FileOptions): number {
  const result = listener.addFile(fd, options);
  const { at } = options;
  if (result >= 0 || at === undefined) return result;
  const limits = fileLimits(pid);
  if (limits === undefined || limits.soft > at || countFiles(pid) >= limits.soft) return result;
  const hard = Math.max(limits.hard, at + 1);
  if (setFileLimits(pid, { soft: at + 1, hard }) < 0) return result;
  try {
    return listener.addFile(fd, options);
  } finally {
    setFileLimits(pid, limits);
  }
}

/** A file whose fd is the answer to a call: goes into the caller's table, and no longer is ours. EMFILE. */
export function answerWith(listener: Listener, fd: number, options: { cloexec: boolean }): number {
  const number = listener.addFile(fd, options);
  closeFile(fd);
  if (number < 0) throw tableFull();
  return number;
}

export const tableFull = (): Errno =>
  new Errno('EMFILE', "the client's fd table is full (RLIMIT_NOFILE)");

/**
 * No number below the limit is free.
 * @param left files of ours there that a new one may replace
 */
export function isFull(pid: number, left: number): boolean {
  const limit = fileLimits(pid)?.soft ?? Infinity;
  return countFiles(pid, limit) - left >= limit;
}

/** Files that a process has open at numbers below `end`; 0 where nobody may look. */
function countFiles(pid: number, end = Infinity): number {
  try {
    return readdirSync(`/proc/${pid}/fd`).filter((name) => Number(name) < end).length;
  } catch {
    return 0;
  }
}
