/** Who calls, and with which file of ours. */
import { Errno } from '../../base/errno.ts';
import { identifyPath, identity } from '../../os/files.ts';
import { fileOf, type Context } from '../context.ts';
import type { OpenEntry } from '../fds/files.ts';
import type { ClientThread } from '../process-table.ts';

const ENOENT = 2;

export type Caller = { readonly thread: ClientThread; readonly entry: OpenEntry };

/** The caller and our file behind its file number; undefined if the file is the host's, or none. */
export function callerAndFile(context: Context, fd: number): Caller | undefined {
  const found = lookUp(context, fd);
  return typeof found === 'object' ? found : undefined;
}

/**
 * The same for a call that asks for the file before anything else. By the time that the kernel looks, a number that was
 * closed may be the memfd of another file of ours: EBADF.
 */
export function openFile(context: Context, fd: number): Caller | undefined {
  const found = lookUp(context, fd);
  if (found === -ENOENT) throw new Errno('EBADF', `fd ${fd} is not open`);
  return typeof found === 'object' ? found : undefined;
}

/** @returns a negative errno for a number that is not open, and for a caller that has ended */
function lookUp(context: Context, fd: number): Caller | undefined | number {
  const { processes, listener } = context;
  const known = processes.seen(listener.tid);
  if (known !== undefined) {
    const entry = fileOf(context, known, fd);
    if (typeof entry === 'object') return { thread: known, entry };
    if (entry === undefined) return undefined;
  }
  // Not seen before, no such file, or the number means another thread by now. Who uses none of our files is not looked after.
  const there = identifyPath(`/proc/${listener.tid}/fd/${fd}`);
  if (there < 0) return there;
  if (!context.files.has(identity.device, identity.inode)) return undefined;
  const thread = processes.thread(listener.tid);
  if (thread === undefined) return undefined;
  const entry = fileOf(context, thread, fd);
  return typeof entry === 'object' ? { thread, entry } : entry;
}
