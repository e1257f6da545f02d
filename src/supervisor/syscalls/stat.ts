/** The stat family, access and readlink of what is ours: a memfd would show itself as a regular file. */
import type { BigIntStats } from 'node:fs';
import { Errno } from '../../base/errno.ts';
import type { Entry } from '../../kernel/vfs/tree.ts';
import { identifyPath, readLink } from '../../os/files.ts';
import {
  AT_EACCESS,
  AT_EMPTY_PATH,
  AT_FDCWD,
  AT_NO_AUTOMOUNT,
  AT_STATX_SYNC_TYPE,
  AT_SYMLINK_NOFOLLOW,
  NR,
} from '../../os/numbers.ts';
import { beginCall, type Call } from '../call.ts';
import { readPath } from '../memory/client-string.ts';
import { CONTINUE, type Context } from '../context.ts';
import type { OpenEntry } from '../fds/files.ts';
import { findPath, mirroredName, type Found } from '../names/paths.ts';
import { checkPermission } from '../names/permission.ts';
import {
  entryStatus,
  fileStatus,
  hostStatus,
  statBytes,
  statxBytes,
  type Status,
} from '../names/status.ts';
import { callerAndFile } from './caller.ts';
import { pathText } from './text.ts';

const ACCESS_MODES = 7;

type Asked = {
  readonly directory: number;
  /** 0 for a call that has no path */
  readonly address: bigint;
  readonly flags: number;
  readonly buffer: bigint;
  readonly extended: boolean;
};

const KNOWN_FLAGS = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE;

function askedOf({ listener }: Context): Asked {
  const buffer = listener.word(1);
  const plain = { directory: AT_FDCWD, address: listener.word(0), buffer, extended: false };
  switch (listener.nr) {
    case NR.stat:
      return { ...plain, flags: 0 };
    case NR.lstat:
      return { ...plain, flags: AT_SYMLINK_NOFOLLOW };
    case NR.fstat:
      return { ...plain, directory: listener.int(0), address: 0n, flags: AT_EMPTY_PATH };
    case NR.newfstatat:
      return {
        directory: listener.int(0),
        address: listener.word(1),
        buffer: listener.word(2),
        flags: listener.uint(3),
        extended: false,
      };
    default:
      return {
        directory: listener.int(0),
        address: listener.word(1),
        flags: listener.uint(2),
        buffer: listener.word(4),
        extended: true,
      };
  }
}

function statusOfFd(context: Context, fd: number): Status | undefined {
  if (fd < 0) return undefined;
  const { tid } = context.listener;
  if (context.files.any && identifyPath(`/proc/${tid}/fd/${fd}`) === 0) {
    const entry = context.files.identified(`/proc/${tid}/fdinfo/${fd}`);
    if (entry !== undefined) return fileStatus(context, entry);
  }
  const path = mirroredName(context, tid, fd);
  const entry = path === undefined ? 'none' : context.names.at(path);
  return path !== undefined && typeof entry === 'object' ? entryStatus(path, entry) : undefined;
}

function statusOf(context: Context, asked: Asked, path: string): Status | BigIntStats | undefined {
  if (path === '') {
    return (asked.flags & AT_EMPTY_PATH) === 0 ? undefined : statusOfFd(context, asked.directory);
  }
  const follow = (asked.flags & AT_SYMLINK_NOFOLLOW) === 0;
  const found = findPath(context, { directory: asked.directory, path, follow });
  switch (found?.kind) {
    case undefined:
    case 'status':
      return undefined;
    case 'entry':
      return entryStatus(found.path, found.entry);
    case 'host':
      return hostStatus(context.listener.tid, found.path);
    case 'file':
      // The link itself is the host's.
      return found.followed ? fileStatus(context, found.entry) : undefined;
  }
}

export function stat(context: Context): number {
  const asked = askedOf(context);
  if ((asked.flags & ~KNOWN_FLAGS) !== 0) return CONTINUE;
  const path = asked.address === 0n ? '' : readPath(context.listener.tid, asked.address);
  if (path === undefined) return CONTINUE;
  const status = statusOf(context, asked, path);
  if (status === undefined) return CONTINUE;
  const call = beginCall(context, undefined, () =>
    path === '' ? [String(asked.directory)] : pathText(!asked.extended, asked.directory, path),
  );
  call.memory.copyOut(asked.buffer, asked.extended ? statxBytes(status) : statBytes(status));
  return 0;
}

export function access(context: Context): number {
  const { listener } = context;
  const plain = listener.nr === NR.access;
  const directory = plain ? AT_FDCWD : listener.int(0);
  const mode = listener.uint(plain ? 1 : 2);
  const flags = listener.nr === NR.faccessat2 ? listener.uint(3) : 0;
  if ((mode & ~ACCESS_MODES) !== 0) return CONTINUE;
  if ((flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) !== 0) return CONTINUE;
  const path = readPath(listener.tid, listener.word(plain ? 0 : 1));
  if (path === undefined) return CONTINUE;
  const follow = (flags & AT_SYMLINK_NOFOLLOW) === 0;
  const found = findPath(context, { directory, path, follow });
  if (found === undefined || found.kind === 'status') return CONTINUE;
  if (found.kind === 'host') {
    hostStatus(listener.tid, found.path);
    return 0;
  }
  const target = found.kind === 'entry' ? found : entryBehind(context, found.entry);
  if (target === undefined) return CONTINUE;
  const call = beginCall(context, undefined, () => [
    ...pathText(plain, directory, path),
    String(mode),
  ]);
  checkPermission(context, call, { path: target.path, mode: modeOf(target.entry) }, mode);
  return 0;
}

type Named = { readonly path: string; readonly entry: Entry };

function entryBehind({ names }: Context, { path }: OpenEntry): Named | undefined {
  const entry = path === undefined ? 'none' : names.at(path);
  return path !== undefined && typeof entry === 'object' ? { path, entry } : undefined;
}

const LINK_MODE = 0o777;

function modeOf(entry: Entry): number {
  return entry.kind === 'link' ? LINK_MODE : entry.mode;
}

function copyLink(call: Call, link: string, buffer: bigint, size: number): number {
  const bytes = new TextEncoder().encode(link).subarray(0, size);
  call.memory.copyOut(buffer, bytes);
  return bytes.length;
}

export function readlink(context: Context): number {
  const { listener } = context;
  const first = listener.nr === NR.readlink ? 0 : 1;
  const directory = first === 0 ? AT_FDCWD : listener.int(0);
  const size = listener.int(first + 2);
  const path = readPath(listener.tid, listener.word(first));
  if (path === undefined || size <= 0) return CONTINUE;
  const found =
    path === ''
      ? placeOf(context, directory)
      : findPath(context, { directory, path, follow: false });
  if (found === undefined || found.kind === 'status') return CONTINUE;
  const call = beginCall(context, undefined, () => pathText(first === 0, directory, path));
  return copyLink(call, targetOf(context, found), listener.word(first + 1), size);
}

/** A link that is open as a place (O_PATH), for a readlinkat without a path. */
function placeOf(context: Context, fd: number): Found | undefined {
  const entry = callerAndFile(context, fd)?.entry;
  const named = entry && entryBehind(context, entry);
  return named && { kind: 'entry', ...named };
}

function targetOf({ listener }: Context, found: Exclude<Found, { kind: 'status' }>): string {
  if (found.kind === 'file') return found.entry.link;
  if (found.kind === 'entry' && found.entry.kind === 'link') return found.entry.target;
  const link = found.kind === 'host' ? readLink(`/proc/${listener.tid}/root${found.path}`) : '';
  if (typeof link === 'string' && link !== '') return link;
  throw new Errno('EINVAL', `${found.path} is not a symbolic link`);
}

/** Names of ours have no extended attributes: ls asks. */
export function xattr(context: Context): number {
  const { listener } = context;
  const { nr, tid } = listener;
  const path = readPath(tid, listener.word(0));
  if (path === undefined) return CONTINUE;
  const follow = nr === NR.getxattr || nr === NR.listxattr;
  const found = findPath(context, { directory: AT_FDCWD, path, follow });
  if (found?.kind !== 'entry') return CONTINUE;
  beginCall(context, undefined, () => pathText(true, AT_FDCWD, path));
  if (nr === NR.listxattr || nr === NR.llistxattr) return 0;
  throw new Errno('ENODATA', `${found.path} has no extended attributes`);
}
