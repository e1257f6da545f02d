/** ioctl on a file of ours. The one call that must be lean: one identification, then the engine. */
import { Errno } from '../../base/errno.ts';
import { beginCall } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import { openFile } from './caller.ts';
import { USERFAULTFD_IOC_NEW, userfaultfd } from './held-back.ts';
import { returnGrants } from './mmap.ts';

export function ioctl(context: Context): number {
  const { listener } = context;
  const fd = listener.int(0);
  if (listener.uint(1) === USERFAULTFD_IOC_NEW) return userfaultfd(context);
  const found = openFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { file, link } = found.entry;
  const call = beginCall(context, found.thread, () => [`${fd}<${link}>`]);
  const command = listener.uint(1);
  if (file.ioctl === undefined) {
    throw new Errno('ENOTTY', `${link} has no ioctls (number 0x${command.toString(16)})`);
  }
  try {
    return file.ioctl(call, command, listener.word(2));
  } catch (error) {
    // Nobody tells of the munmap of a window. Looking at all processes takes time: only where a window may be in the way.
    const busy = error instanceof Errno && error.code === 'EBUSY';
    if (!busy || !returnGrants(found.entry)) throw error;
    return file.ioctl(call, command, listener.word(2));
  }
}
