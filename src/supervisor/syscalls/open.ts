/** open, openat, openat2, creat of nodes of ours (after fs/namei.c, do_last and may_open). */
import { Errno, errnoName } from '../../base/errno.ts';
import type { OpenFile } from '../../base/task.ts';
import type { DeviceNode } from '../../kernel/kernel.ts';
import {
  NR,
  O_ACCMODE,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECT,
  O_DIRECTORY,
  O_EXCL,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
} from '../../os/numbers.ts';
import { reopen } from '../../os/entry.ts';
import { closeFile } from '../../os/files.ts';
import { beginCall, type Call } from '../call.ts';
import { readPath } from '../memory/client-string.ts';
import { CONTINUE, type Context } from '../context.ts';
import { answerWith } from '../fds/limit.ts';
import { holdMirrored, type Mirrored } from '../names/mirror.ts';
import { findPath, type Found } from '../names/paths.ts';
import { openStatus } from '../names/proc-status.ts';
import { checkOwner, checkPermission, READ, WRITE } from '../names/permission.ts';
import { openingOf } from './opening.ts';
import { flagText, pathText } from './text.ts';

type NamedNode = { readonly path: string; readonly node: DeviceNode };
type NodeOrFile = Extract<Found, { kind: 'node' | 'file' }>;

function wanted(flags: number): number {
  return accessOf(flags) | ((flags & O_TRUNC) === 0 ? 0 : WRITE);
}

function accessOf(flags: number): number {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return READ;
    case O_WRONLY:
      return WRITE;
    default:
      return READ | WRITE;
  }
}

/** Something in a directory of the machine: the file itself goes to the client, with what it asked for. */
function openReal(
  { listener }: Context,
  { path, real }: Extract<Found, { kind: 'real' }>,
  flags: number,
): number {
  const held = holdReal(path, real, flags);
  // A place (O_PATH) cannot be handed over; whoever reads it gets more than Linux gives.
  const wanted = (flags & O_PATH) === 0 ? flags & ~BY_NAME : O_RDONLY;
  const fd = reopen(held, wanted);
  closeFile(held);
  if (fd < 0) throw new Errno(errnoName(-fd) ?? 'EIO', `${path} cannot be opened`);
  return answerWith(listener, fd, { cloexec: (flags & O_CLOEXEC) !== 0 });
}

/** What concerns the way to a file, not the open file. */
const BY_NAME = O_CLOEXEC | O_CREAT | O_EXCL | O_NOFOLLOW;

function holdReal(path: string, real: Mirrored, flags: number): number {
  let held: number;
  try {
    held = holdMirrored(path, real);
  } catch (error) {
    const absent = error instanceof Errno && error.code === 'ENOENT';
    if (!absent || (flags & O_CREAT) === 0) throw error;
    throw new Errno('EACCES', `${path}: the file system of the machine creates no files`);
  }
  if ((flags & O_CREAT) === 0 || (flags & O_EXCL) === 0) return held;
  closeFile(held);
  throw new Errno('EEXIST', `${path} exists`);
}

// Reopening /proc/PID/fd/N of a device opens the device anew; other files of ours cannot be opened by name.
function nodeOf(context: Context, found: NodeOrFile): NamedNode {
  if (found.kind === 'node') return found;
  const { entry } = found;
  const node = entry.path === undefined ? undefined : context.names.lookup(entry.path);
  if (node === undefined) throw new Errno('ENXIO', `${entry.link} cannot be opened by name`);
  return { path: entry.path ?? '', node };
}

// A place in the tree of names, without the device behind it.
function place(path: string): OpenFile {
  const refuse = (): never => {
    throw new Errno('EBADF', `${path} was opened as a place (O_PATH), not as the device`);
  };
  return { name: path, ioctl: refuse, mmap: refuse, release: () => undefined };
}

export function open(context: Context): number {
  const opening = openingOf(context);
  if (opening === undefined) return CONTINUE;
  const { directory, address, flags } = opening;
  const path = readPath(context.listener.tid, address);
  if (path === undefined) return CONTINUE;
  // Whatever is there, nothing can be made under such a name.
  const asDirectory = (flags & O_CREAT) !== 0 && path.endsWith('/');
  const found = findPath(context, {
    directory,
    path: asDirectory ? path.replace(/\/+$/, '') : path,
    follow: (flags & O_NOFOLLOW) === 0,
  });
  if (found === undefined) return CONTINUE;
  if (found.kind === 'status') return openStatus(context, found.pid, flags);
  if (found.kind === 'real') return openReal(context, found, flags);
  // The link itself is the host's, and what cannot be opened is a place there as well as here.
  if (found.kind === 'file' && (flags & O_PATH) !== 0) {
    if (!found.followed || found.entry.path === undefined) return CONTINUE;
  }
  const call = beginCall(context, undefined, () => [
    ...pathText(context.listener.nr === NR.open, directory, path),
    flagText(flags),
  ]);
  if (asDirectory) throw new Errno('EISDIR', `${path} has the name of a directory (O_CREAT)`);
  checkKind(found, path, flags);
  return openNode(context, call, nodeOf(context, found), flags);
}

function checkKind(found: NodeOrFile, path: string, flags: number): void {
  if ((flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL)) {
    throw new Errno('EEXIST', `${path} exists`);
  }
  if ((flags & O_DIRECTORY) !== 0) throw new Errno('ENOTDIR', `${path} is not a directory`);
  if (found.kind === 'file' && !found.followed) {
    throw new Errno('ELOOP', `${path} is a symbolic link, and O_NOFOLLOW asked for`);
  }
}

function openNode(context: Context, call: Call, node: NamedNode, flags: number): number {
  const { path } = node;
  const options = { cloexec: (flags & O_CLOEXEC) !== 0, flags };
  if ((flags & O_PATH) !== 0) return call.hand(place(path), path, options);
  checkPermission(context, call, node, wanted(flags));
  if ((flags & O_NOATIME) !== 0) checkOwner(context, call, path);
  const file = node.node.open(call);
  if ((flags & O_DIRECT) === 0) return call.hand(file, path, options);
  file.release();
  throw new Errno('EINVAL', `${path} is a device without pages to bypass (O_DIRECT)`);
}
