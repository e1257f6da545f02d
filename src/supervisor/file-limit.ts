/**
 * The limit of open files (RLIMIT_NOFILE) that the client would have had, and what to do when it lowers it later.
 *
 * Node raises its own limit to the hard one before any of our code runs; the parent, which passed it on, is the best witness.
 */
import { readdirSync } from 'node:fs';

import { fileLimits, setFileLimits } from '../os/process.ts';

const USUAL_LIMIT = 1024;

/** Soft RLIMIT_NOFILE for a client. */
export function clientFileLimit(): number {
  const parent = fileLimits(process.ppid);
  const own = fileLimits(process.pid);
  return Math.min(parent?.soft ?? USUAL_LIMIT, own?.hard ?? USUAL_LIMIT);
}

/**
 * Puts a file at a number that the filter looks at, though the client may have lowered its limit below: it gets room for a
 * moment. The filter of a program that runs cannot be changed.
 * @param put answers the number, or a negative errno
 */
export function aboveLimit(pid: number, number: number, put: () => number): number {
  const result = put();
  if (result >= 0) return result;
  const limits = fileLimits(pid);
  if (limits === undefined || limits.soft > number) return result;
  const hard = Math.max(limits.hard, number + 1);
  if (setFileLimits(pid, { soft: number + 1, hard }) < 0) return result;
  try {
    return put();
  } finally {
    setFileLimits(pid, limits);
  }
}

/** No number below the limit is free. */
export function isFull(pid: number): boolean {
  const limit = fileLimits(pid)?.soft ?? Infinity;
  try {
    return readdirSync(`/proc/${pid}/fd`).filter((name) => Number(name) < limit).length >= limit;
  } catch {
    return false;
  }
}
