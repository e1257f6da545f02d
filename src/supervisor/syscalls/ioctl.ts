/** ioctl on a file of ours. The one call that must be lean: one identification, then the engine. */
import { Errno } from '../../base/errno.ts';
import { beginCall } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import type { OpenEntry } from '../files.ts';
import type { ClientThread } from '../process-table.ts';

/** The caller and our file behind its file number; undefined if the file is the host's, or none. */
export function callerAndFile(
  context: Context,
  fd: number,
): { readonly thread: ClientThread; readonly entry: OpenEntry } | undefined {
  const { processes, files, listener } = context;
  const known = processes.seen(listener.tid);
  if (known !== undefined) {
    const entry = files.find(known.files, fd);
    if (typeof entry === 'object') return { thread: known, entry };
    if (entry === undefined) return undefined;
  }
  // Not seen before, no such file, or the number means another thread by now.
  const thread = processes.thread(listener.tid);
  if (thread === undefined) return undefined;
  const entry = files.find(thread.files, fd);
  return typeof entry === 'object' ? { thread, entry } : undefined;
}

export function ioctl(context: Context): number {
  const { listener } = context;
  const fd = listener.int(0);
  const found = callerAndFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { file, link } = found.entry;
  const call = beginCall(context, found.thread, () => [`${fd}<${link}>`]);
  const command = listener.uint(1);
  if (file.ioctl === undefined) {
    throw new Errno('ENOTTY', `${link} has no ioctls (number 0x${command.toString(16)})`);
  }
  return file.ioctl(call, command, listener.word(2));
}
