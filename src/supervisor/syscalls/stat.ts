/** The stat family, access and readlink of what is ours: a memfd would show itself as a regular file. */
import { Errno } from '../../base/errno.ts';
import { closeFile, identifyPath, identity } from '../../os/files.ts';
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
import { holdMirrored } from '../names/mirror.ts';
import { findPath, type Found } from '../names/paths.ts';
import { checkPermission, owner } from '../names/permission.ts';
import { pathText } from './text.ts';

const S_IFCHR = 0o020000;
const S_IFREG = 0o100000;
const ANONYMOUS_MODE = 0o600;
const DEVTMPFS_MINOR = 5;
const ANON_INODE_MINOR = 15;
const BLOCK_SIZE = 4096;
const STATX_BASIC_STATS = 0x7ff;
const ACCESS_MODES = 7;

/** What stat tells of a file of ours. */
type Status = {
  readonly device: number;
  readonly inode: number;
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
  readonly size?: number;
};

// Nodes are made when the machine starts.
const born = { seconds: BigInt(Math.floor(Date.now() / 1000)) };

function nodeStatus(context: Context, path: string): Status | undefined {
  const node = context.names.lookup(path);
  if (node === undefined) return undefined;
  const { major, minor } = node;
  // The same for the path and for what was opened by it.
  const inode = 1000 + major * 2 ** 20 + minor;
  const type = node.regular === true ? S_IFREG : S_IFCHR;
  return { device: DEVTMPFS_MINOR, inode, mode: type | node.mode, major, minor };
}

function fileStatus(context: Context, entry: OpenEntry): Status {
  const node = entry.path === undefined ? undefined : nodeStatus(context, entry.path);
  if (node !== undefined) return node;
  const { inode, file } = entry;
  const { size = 0 } = file;
  return { device: ANON_INODE_MINOR, inode, mode: ANONYMOUS_MODE, major: 0, minor: 0, size };
}

function realStatus({ path, real }: Extract<Found, { kind: 'real' }>): Status {
  closeFile(holdMirrored(path, real));
  const { device, inode, mode } = identity;
  return { device, inode, mode, major: 0, minor: 0 };
}

// struct stat of x86-64
function statBytes({ device, inode, mode, major, minor, size = 0 }: Status): Uint8Array {
  const bytes = new Uint8Array(144);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(device), true);
  view.setBigUint64(8, BigInt(inode), true);
  view.setBigUint64(16, 1n, true);
  view.setUint32(24, mode, true);
  view.setUint32(28, owner.uid, true);
  view.setUint32(32, owner.gid, true);
  view.setUint32(40, (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12), true);
  view.setBigUint64(48, BigInt(size), true);
  view.setBigUint64(56, BigInt(BLOCK_SIZE), true);
  for (const at of [72, 88, 104]) view.setBigInt64(at, born.seconds, true);
  return bytes;
}

function statxBytes({ device, inode, mode, major, minor, size = 0 }: Status): Uint8Array {
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  view.setUint32(0x00, STATX_BASIC_STATS, true);
  view.setUint32(0x04, BLOCK_SIZE, true);
  view.setUint32(0x10, 1, true);
  view.setUint32(0x14, owner.uid, true);
  view.setUint32(0x18, owner.gid, true);
  view.setUint16(0x1c, mode, true);
  view.setBigUint64(0x20, BigInt(inode), true);
  view.setBigUint64(0x28, BigInt(size), true);
  for (const at of [0x40, 0x60, 0x70]) view.setBigInt64(at, born.seconds, true);
  view.setUint32(0x80, major, true);
  view.setUint32(0x84, minor, true);
  view.setUint32(0x8c, device, true);
  return bytes;
}

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

function openFileOf(context: Context, fd: number): OpenEntry | undefined {
  if (fd < 0 || !context.files.any) return undefined;
  const path = `/proc/${context.listener.tid}/fd/${fd}`;
  return identifyPath(path) === 0 ? context.files.identified() : undefined;
}

function statusOf(context: Context, asked: Asked, path: string): Status | undefined {
  if (path === '') {
    if ((asked.flags & AT_EMPTY_PATH) === 0) return undefined;
    const entry = openFileOf(context, asked.directory);
    return entry === undefined ? undefined : fileStatus(context, entry);
  }
  const follow = (asked.flags & AT_SYMLINK_NOFOLLOW) === 0;
  const found = findPath(context, { directory: asked.directory, path, follow });
  if (found === undefined) return undefined;
  if (found.kind === 'node') return nodeStatus(context, found.path);
  if (found.kind === 'real') return realStatus(found);
  if (found.kind === 'status') return undefined;
  // The link itself is the host's.
  return found.followed ? fileStatus(context, found.entry) : undefined;
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
  if (found.kind === 'real') {
    realStatus(found);
    return 0;
  }
  const name = found.kind === 'node' ? found.path : found.entry.path;
  const node = name === undefined ? undefined : context.names.lookup(name);
  if (name === undefined || node === undefined) return CONTINUE;
  const call = beginCall(context, undefined, () => [
    ...pathText(plain, directory, path),
    String(mode),
  ]);
  checkPermission(context, call, { path: name, node }, mode);
  return 0;
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
  const found = findPath(context, { directory, path, follow: false });
  if (found === undefined) return CONTINUE;
  if (found.kind === 'status') return CONTINUE;
  const call = beginCall(context, undefined, () => pathText(first === 0, directory, path));
  if (found.kind === 'node' || found.kind === 'real')
    throw new Errno('EINVAL', `${found.path} is not a symbolic link`);
  return copyLink(call, found.entry.link, listener.word(first + 1), size);
}

/** Nodes of ours have no extended attributes: ls asks. */
export function xattr(context: Context): number {
  const { listener } = context;
  const { nr, tid } = listener;
  const path = readPath(tid, listener.word(0));
  if (path === undefined) return CONTINUE;
  const follow = nr === NR.getxattr || nr === NR.listxattr;
  const found = findPath(context, { directory: AT_FDCWD, path, follow });
  if (found?.kind !== 'node') return CONTINUE;
  beginCall(context, undefined, () => pathText(true, AT_FDCWD, path));
  if (nr === NR.listxattr || nr === NR.llistxattr) return 0;
  throw new Errno('ENODATA', `${found.path} has no extended attributes`);
}
