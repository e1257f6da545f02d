/** Who calls, and with which file of ours. */
import { Errno } from '../../base/errno.ts';
import { fileOf, type Context } from '../context.ts';
import type { OpenEntry } from '../files.ts';
import type { ClientThread } from '../process-table.ts';

const ENOENT = 2;

/** The caller and our file behind its file number; undefined if the file is the host's. EBADF if there is none. */
export function callerAndFile(
  context: Context,
  fd: number,
): { readonly thread: ClientThread; readonly entry: OpenEntry } | undefined {
  const { processes, listener } = context;
  const known = processes.seen(listener.tid);
  if (known !== undefined) {
    const entry = fileOf(context, known, fd);
    if (typeof entry === 'object') return { thread: known, entry };
    if (entry === undefined) return undefined;
  }
  // Not seen before, no such file, or the number means another thread by now.
  const thread = processes.thread(listener.tid);
  if (thread === undefined) return undefined;
  const entry = fileOf(context, thread, fd);
  // By the time that the kernel looks the number may be the memfd of another file of ours.
  if (entry === -ENOENT) throw new Errno('EBADF', `file number ${fd} is not open`);
  return typeof entry === 'object' ? { thread, entry } : undefined;
}
