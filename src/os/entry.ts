/**
 * Open files of other threads, taken hold of without using them: what is behind a magic link (/proc/TID/fd/N,
 * /proc/TID/map_files/A-B) at one moment, whatever the thread puts there afterwards.
 *
 * Whoever opens such a link anew opens with the rights of this process. A file may be reopened only once it is known which
 * one it is, and with no more rights than its owner has: {@link heldAccess}.
 *
 * After proc_fd_link and seq_show of fs/proc/fd.c.
 */
import { closeFile, identifyFile, identity, openPath, readText } from './files.ts';
import { AT_FDCWD, O_ACCMODE, O_PATH } from './numbers.ts';

const EBADF = -9;
const ESTALE = -116;

/** An fd of this process that stands for the file without opening it (O_PATH), or a negative errno. */
export function holdLink(link: string, directory = AT_FDCWD): number {
  return openPath(link, O_PATH, directory);
}

/** {@link holdLink} where only one file will do; ESTALE where the link leads to another one. */
export function holdSame(link: string, device: number, inode: number): number {
  const held = holdLink(link);
  if (held < 0) return held;
  identifyFile(held);
  if (identity.device === device && identity.inode === inode) return held;
  closeFile(held);
  return ESTALE;
}

/** Opens the held file itself. */
export function reopen(held: number, flags: number): number {
  return openPath(`/proc/self/fd/${held}`, flags);
}

/** Opens exactly that file; ESTALE where the link leads to another one. */
export function openSame(
  link: string,
  { device, inode }: { readonly device: number; readonly inode: number },
  flags: number,
): number {
  const held = holdSame(link, device, inode);
  if (held < 0) return held;
  const fd = reopen(held, flags);
  closeFile(held);
  return fd;
}

type FdInfo = { readonly flags: number; readonly file: string };

// Mount and inode are in the same text as the flags: all three are of one file, and a held file keeps its mount's id.
function fdInfo(name: string, directory = AT_FDCWD): FdInfo | undefined {
  const text = readText(name, directory) ?? '';
  const [flags, mount, inode] = ['flags', 'mnt_id', 'ino'].map(
    (field) => new RegExp(`^${field}:\\s*(\\d+)$`, 'm').exec(text)?.[1],
  );
  if (flags === undefined || mount === undefined || inode === undefined) return undefined;
  return { flags: parseInt(flags, 8), file: `${mount}:${inode}` };
}

/**
 * With which access mode (O_RDONLY, O_WRONLY, O_RDWR) the owner has a held file open.
 * @param directory open /proc/TID/fd
 * @param fd the owner's
 * @returns EBADF if that fd stands for another file by now, or permits neither reading nor writing (O_PATH)
 */
export function heldAccess(held: number, directory: number, fd: number): number {
  const theirs = fdInfo(`../fdinfo/${fd}`, directory);
  const own = fdInfo(`/proc/self/fdinfo/${held}`);
  if (theirs === undefined || own?.file !== theirs.file) return EBADF;
  return (theirs.flags & O_PATH) !== 0 ? EBADF : theirs.flags & O_ACCMODE;
}
