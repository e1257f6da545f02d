/** open, openat, openat2, creat of nodes of ours (after fs/namei.c, do_last and may_open). */
import { Errno, errnoName } from '../../base/errno.ts';
import type { OpenFile } from '../../base/task.ts';
import { readAttribute, type Attribute, type Node } from '../../kernel/vfs/tree.ts';
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
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
} from '../../os/numbers.ts';
import { reopen } from '../../os/entry.ts';
import { closeFile, openPath } from '../../os/files.ts';
import { beginCall, type Call } from '../call.ts';
import { readPath } from '../memory/client-string.ts';
import { CONTINUE, type Context } from '../context.ts';
import { answerWith } from '../fds/limit.ts';
import { attributeFile } from '../names/attribute-file.ts';
import { holdMirrored, type Mirrored } from '../names/mirror.ts';
import { findPath, type Found, type PathQuestion } from '../names/paths.ts';
import { openStatus } from '../names/proc-status.ts';
import { checkOwner, checkPermission, READ, WRITE } from '../names/permission.ts';
import { openingOf } from './opening.ts';
import { flagText, pathText } from './text.ts';

type FoundEntry = Extract<Found, { kind: 'entry' }>;

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

/** A file or directory of the mirror goes to the client, with what it asked for. */
function handMirrored(
  { listener }: Context,
  path: string,
  { real, flags }: { readonly real: Mirrored; readonly flags: number },
): number {
  const held = holdMirrored(path, real);
  // A place (O_PATH) cannot be handed over; whoever reads it gets more than Linux gives.
  const fd = reopen(held, (flags & O_PATH) === 0 ? flags & ~BY_NAME : O_RDONLY);
  closeFile(held);
  if (fd < 0) throw new Errno(errnoName(-fd) ?? 'EIO', `${path} cannot be opened`);
  return answerWith(listener, fd, { cloexec: (flags & O_CLOEXEC) !== 0 });
}

/** What concerns the way to a file, not the open file. */
const BY_NAME = O_CLOEXEC | O_CREAT | O_EXCL | O_NOFOLLOW | O_TRUNC;

/**
 * A file of the host that the kernel would not find by itself, because the client asks relative to a directory of the mirror. It
 * is opened with the rights of this process, so only for clients that have the same.
 */
function openHost(context: Context, call: Call, path: string, flags: number): number {
  const { listener } = context;
  if (call.status.uid !== process.geteuid?.()) {
    throw new Errno('EACCES', `${path} belongs to the computer; use its absolute path`);
  }
  if ((flags & O_CREAT) !== 0)
    throw new Errno('EACCES', `${path}: use its absolute path to create it`);
  const fd = openPath(`/proc/${listener.tid}/root${path}`, (flags & ~BY_NAME) | O_NONBLOCK);
  if (fd < 0) throw new Errno(errnoName(-fd) ?? 'EIO', `${path} cannot be opened`);
  return answerWith(listener, fd, { cloexec: (flags & O_CLOEXEC) !== 0 });
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
  const question = {
    directory,
    path: asDirectory ? path.replace(/\/+$/, '') : path,
    follow: (flags & O_NOFOLLOW) === 0,
  };
  const found = findForOpen(context, question, flags);
  if (found === undefined) return CONTINUE;
  if (found.kind === 'status') return openStatus(context, found.pid, flags);
  // The link itself is the host's, and what cannot be opened is a place there as well as here.
  if (found.kind === 'file' && (flags & O_PATH) !== 0) {
    if (!found.followed || found.entry.path === undefined) return CONTINUE;
  }
  const call = beginCall(context, undefined, () => [
    ...pathText(context.listener.nr === NR.open, directory, path),
    flagText(flags),
  ]);
  if (found.kind === 'host') return openHost(context, call, found.path, flags);
  if (asDirectory) throw new Errno('EISDIR', `${path} has the name of a directory (O_CREAT)`);
  if (found.kind === 'file' && !found.followed) {
    refuseExisting(path, flags);
    throw linkNotFollowed(path);
  }
  return openEntry(context, call, entryOf(context, found), flags);
}

/** Nobody makes files in the file systems of the machine: EACCES instead of ENOENT, where the directory is there. */
function findForOpen(context: Context, question: PathQuestion, flags: number): Found | undefined {
  try {
    return findPath(context, question);
  } catch (error) {
    const absent = error instanceof Errno && error.code === 'ENOENT';
    if (!absent || (flags & O_CREAT) === 0) throw error;
    const { path } = question;
    const above = path.slice(0, path.lastIndexOf('/') + 1);
    if (above !== '') findPath(context, { ...question, path: above });
    throw new Errno('EACCES', `${path}: no files can be created in the machine's file systems`);
  }
}

// Reopening /proc/PID/fd/N of a device opens the device anew; other files of ours cannot be opened by name.
function entryOf(
  { names }: Context,
  found: Extract<Found, { kind: 'entry' | 'file' }>,
): FoundEntry {
  if (found.kind === 'entry') return found;
  const { path, link } = found.entry;
  const entry = path === undefined ? 'none' : names.at(path);
  if (path === undefined || typeof entry !== 'object') {
    throw new Errno('ENXIO', `${link} cannot be opened by name`);
  }
  return { kind: 'entry', path, entry };
}

function openEntry(context: Context, call: Call, found: FoundEntry, flags: number): number {
  const { path, entry } = found;
  if (entry.kind === 'directory' && (flags & EXCLUSIVE) !== EXCLUSIVE) {
    return openDirectory(context, call, path, flags);
  }
  refuseExisting(path, flags);
  if (entry.kind === 'node') return openNode(context, call, { path, node: entry }, flags);
  if ((flags & O_PATH) !== 0) {
    return call.hand(place(path), path, { cloexec: (flags & O_CLOEXEC) !== 0, flags });
  }
  if (entry.kind === 'attribute') return openAttribute(context, call, { path, entry }, flags);
  throw linkNotFollowed(path);
}

const EXCLUSIVE = O_CREAT | O_EXCL;

// What do_open asks of everything that is there, before may_open looks at what it is.
function refuseExisting(path: string, flags: number): void {
  if ((flags & EXCLUSIVE) === EXCLUSIVE) throw new Errno('EEXIST', `${path} exists`);
  if ((flags & O_DIRECTORY) !== 0) throw new Errno('ENOTDIR', `${path} is not a directory`);
}

const linkNotFollowed = (path: string): Errno =>
  new Errno('ELOOP', `${path} is a symbolic link, and O_NOFOLLOW was given`);

const DIRECTORY_MODE = 0o755;

function openDirectory(context: Context, call: Call, path: string, flags: number): number {
  if ((flags & O_CREAT) !== 0 || accessOf(flags) !== READ) {
    throw new Errno('EISDIR', `${path} is a directory`);
  }
  if ((flags & O_PATH) === 0) checkPermission(context, call, { path, mode: DIRECTORY_MODE }, READ);
  return handMirrored(context, path, { real: context.mirror.directory(path), flags });
}

/** More than this is no text of a value; it is read piece by piece. */
const MOST_AT_ONCE = 65_536;

function openAttribute(
  context: Context,
  call: Call,
  { path, entry }: { readonly path: string; readonly entry: Attribute },
  flags: number,
): number {
  const { mode } = entry;
  const access = accessOf(flags);
  checkPermission(context, call, { path, mode }, wanted(flags));
  // Nobody reads what can only be written, nor writes what can only be read (kernfs_fop_open).
  const able =
    ((access & READ) === 0 || (mode & EVERY_READ) !== 0) &&
    ((access & WRITE) === 0 || (mode & EVERY_WRITE) !== 0);
  if (!able) throw new Errno('EACCES', `${path} has mode 0${mode.toString(8)}`);
  const content = access === READ ? contentOf(entry) : undefined;
  if (content !== undefined) {
    return handMirrored(context, path, { real: context.mirror.file(path, content, mode), flags });
  }
  const file = attributeFile(context.names, path, flags);
  return call.hand(file, path, { cloexec: (flags & O_CLOEXEC) !== 0, flags });
}

const EVERY_READ = 0o444;
const EVERY_WRITE = 0o222;

/** Undefined where reading fails: the read is to fail, not the open. */
function contentOf(attribute: Attribute): Uint8Array | undefined {
  if (attribute.size > MOST_AT_ONCE) return undefined;
  try {
    return readAttribute(attribute, 0, attribute.size);
  } catch (error) {
    if (error instanceof Errno) return undefined;
    throw error;
  }
}

function openNode(
  context: Context,
  call: Call,
  { path, node }: { readonly path: string; readonly node: Node },
  flags: number,
): number {
  const options = { cloexec: (flags & O_CLOEXEC) !== 0, flags };
  if ((flags & O_PATH) !== 0) return call.hand(place(path), path, options);
  checkPermission(context, call, { path, mode: node.mode }, wanted(flags));
  if ((flags & O_NOATIME) !== 0) checkOwner(context, call, path);
  const file = node.open(call);
  if ((flags & O_DIRECT) === 0) return call.hand(file, path, options);
  file.release();
  throw new Errno('EINVAL', `${path} is a device without pages to bypass (O_DIRECT)`);
}
