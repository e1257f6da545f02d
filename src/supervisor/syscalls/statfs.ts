/**
 * statfs and fstatfs of the machine's names: programs ask whether they are really in sysfs. And chdir, after which relative paths
 * may mean the machine's.
 *
 * After fs/statfs.c and include/uapi/linux/magic.h.
 */
import { AT_FDCWD, NR } from '../../os/numbers.ts';
import { beginCall } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import { readPath } from '../memory/client-string.ts';
import { findPath, mirroredName } from '../names/paths.ts';
import { callerAndFile } from './caller.ts';
import { pathText } from './text.ts';

const SYSFS_MAGIC = 0x6265_6572n;
const TMPFS_MAGIC = 0x0102_1994n;
const BLOCK_SIZE = 4096n;
const LONGEST_NAME = 255n;

function fileSystemBytes(path: string): Uint8Array {
  const bytes = new Uint8Array(120);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, path.startsWith('/dev') ? TMPFS_MAGIC : SYSFS_MAGIC, true);
  view.setBigUint64(8, BLOCK_SIZE, true);
  view.setBigUint64(64, LONGEST_NAME, true);
  view.setBigUint64(72, BLOCK_SIZE, true);
  return bytes;
}

/** The machine's name that the call is about. */
function nameAsked(context: Context): string | undefined {
  const { listener } = context;
  if (listener.nr === NR.fstatfs) {
    const fd = listener.int(0);
    return callerAndFile(context, fd)?.entry.path ?? mirroredName(context, listener.tid, fd);
  }
  const path = readPath(listener.tid, listener.word(0));
  if (path === undefined) return undefined;
  const found = findPath(context, { directory: AT_FDCWD, path, follow: true });
  return found?.kind === 'entry' ? found.path : undefined;
}

export function statfs(context: Context): number {
  const path = nameAsked(context);
  if (path === undefined) return CONTINUE;
  const call = beginCall(context, undefined, () => pathText(true, AT_FDCWD, path));
  call.memory.copyOut(context.listener.word(1), fileSystemBytes(path));
  return 0;
}

/** Goes on natively: where the computer has a directory of that name, relative paths are looked up in the machine's. */
export function chdir(context: Context): number {
  const path = readPath(context.listener.tid, context.listener.word(0));
  if (path === undefined) return CONTINUE;
  const found = findPath(context, { directory: AT_FDCWD, path, follow: true });
  if (found?.kind === 'entry') context.mirror.expectRelativePaths();
  return CONTINUE;
}
