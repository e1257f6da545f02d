/**
 * The limit of open files that the client would have had. Node raises its own to the hard limit before any of our code runs; the
 * parent, which passed it on, is the best witness.
 */
import { fileLimits } from '../os/process.ts';

const USUAL_LIMIT = 1024;

/** Soft RLIMIT_NOFILE for a client. */
export function clientFileLimit(): number {
  const parent = fileLimits(process.ppid);
  const own = fileLimits(process.pid);
  return Math.min(parent?.soft ?? USUAL_LIMIT, own?.hard ?? USUAL_LIMIT);
}
