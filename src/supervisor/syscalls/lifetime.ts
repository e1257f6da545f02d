/**
 * Exec and exit: the last chance to copy pinned private pages, which go with their address space. A death by SIGKILL, or by the
 * end of the last thread alone (SYS_exit; libc uses exit_group), cannot be seen in time; what was pinned is then lost
 * (docs/divergence.md).
 */
import { AT_FDCWD, NR } from '../../os/numbers.ts';
import { readPath } from '../memory/client-string.ts';
import { CONTINUE, type Context } from '../context.ts';

/** The process ends, with all its threads. */
export function exit({ listener, processes }: Context): number {
  processes.processOf(listener.tid)?.space?.preserve();
  return CONTINUE;
}

export function exec(context: Context): number {
  const { listener, processes, fdCache: numbers } = context;
  numbers.forget(listener.tid, 0, Infinity);
  const process = processes.processOf(listener.tid);
  process?.execs.add(listener.tid);
  if (process?.space === undefined) return CONTINUE;
  // A shell tries one folder of PATH after the other: most of these calls fail, and need no copy.
  if (mayStart(context)) process.space.preserve();
  return CONTINUE;
}

function mayStart({ listener, links }: Context): boolean {
  const { tid } = listener;
  const at = listener.nr === NR.execveat;
  const path = readPath(tid, listener.word(at ? 1 : 0));
  if (path === undefined) return false;
  if (path.startsWith('/')) return links.mayExist(`/proc/${tid}/root${path}`);
  const directory = at ? listener.int(0) : AT_FDCWD;
  const base = directory === AT_FDCWD ? `/proc/${tid}/cwd` : `/proc/${tid}/fd/${directory}`;
  return path === '' || links.mayExist(`${base}/${path}`);
}
