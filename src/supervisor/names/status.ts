/**
 * What stat(2) says of the machine's files, and how it is laid out: struct stat and struct statx of x86-64.
 *
 * After fs/kernfs/inode.c (sizes, links), drivers/base/devtmpfs.c and include/uapi/linux/stat.h.
 */
import { lstatSync, type BigIntStats } from 'node:fs';
import { Errno } from '../../base/errno.ts';
import type { Entry } from '../../kernel/vfs/tree.ts';
import type { Context } from '../context.ts';
import type { OpenEntry } from '../fds/files.ts';
import { owner } from './permission.ts';

const S_IFCHR = 0o020000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const LINK_MODE = 0o777;
const ANONYMOUS_MODE = 0o600;
/** anonymous devices of devtmpfs, sysfs and anon_inode */
const DEVTMPFS_MINOR = 5;
const SYSFS_MINOR = 22;
const ANON_INODE_MINOR = 15;
const BLOCK_SIZE = 4096;
const STATX_BASIC_STATS = 0x7ff;

export type Status = {
  readonly device: number;
  readonly inode: number;
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
  readonly links?: number;
  readonly size?: number;
};

// Names are made when the machine starts.
const born = { seconds: BigInt(Math.floor(Date.now() / 1000)) };

/** A number for each path, the same whenever it is asked for. */
const inodes = new Map<string, number>();
const FIRST_INODE = 2 ** 33;

function inodeOf(path: string): number {
  const known = inodes.get(path);
  if (known !== undefined) return known;
  const fresh = FIRST_INODE + inodes.size;
  inodes.set(path, fresh);
  return fresh;
}

/** Of an entry of the machine's tree. */
export function entryStatus(path: string, entry: Entry): Status {
  const device = path.startsWith('/dev') ? DEVTMPFS_MINOR : SYSFS_MINOR;
  const common = { device, inode: inodeOf(path), major: 0, minor: 0 };
  switch (entry.kind) {
    case 'directory':
      return { ...common, mode: S_IFDIR | entry.mode, links: 2 };
    case 'attribute':
      return { ...common, mode: S_IFREG | entry.mode, size: entry.size };
    case 'link':
      return { ...common, mode: S_IFLNK | LINK_MODE };
    case 'node': {
      const { major, minor, mode } = entry;
      const type = entry.regular === true ? S_IFREG : S_IFCHR;
      // The same for the path and for what was opened by it.
      const inode = 1000 + major * 2 ** 20 + minor;
      return { device: DEVTMPFS_MINOR, inode, mode: type | mode, major, minor };
    }
  }
}

/** Of an open file of ours. */
export function fileStatus({ names }: Context, { path, inode, file }: OpenEntry): Status {
  const entry = path === undefined ? 'none' : names.at(path);
  if (path !== undefined && typeof entry === 'object') return entryStatus(path, entry);
  const { size = 0 } = file;
  return { device: ANON_INODE_MINOR, inode, mode: ANONYMOUS_MODE, major: 0, minor: 0, size };
}

/** Of a file of the host, by the client's path. Throws Errno ENOENT. */
export function hostStatus(tid: number, path: string): BigIntStats {
  const status = lstatSync(`/proc/${tid}/root${path}`, { bigint: true, throwIfNoEntry: false });
  if (status === undefined) throw new Errno('ENOENT', `there is no ${path}`);
  return status;
}

/** What both layouts are filled from. */
type Fields = {
  readonly device: bigint;
  readonly inode: bigint;
  readonly mode: bigint;
  readonly links: bigint;
  readonly uid: bigint;
  readonly gid: bigint;
  readonly rdev: bigint;
  readonly size: bigint;
  readonly blocks: bigint;
  /** access, change of content, change of status; in ns */
  readonly times: readonly [bigint, bigint, bigint];
};

const NANOSECONDS = 1_000_000_000n;

function fieldsOf(status: Status | BigIntStats): Fields {
  if ('ino' in status) {
    const { dev, ino, mode, nlink, uid, gid, rdev, size, blocks } = status;
    const times = [status.atimeNs, status.mtimeNs, status.ctimeNs] as const;
    return { device: dev, inode: ino, mode, links: nlink, uid, gid, rdev, size, blocks, times };
  }
  const { device, inode, mode, major, minor, size = 0, links = 1 } = status;
  const time = born.seconds * NANOSECONDS;
  return {
    device: BigInt(device),
    inode: BigInt(inode),
    mode: BigInt(mode),
    links: BigInt(links),
    uid: BigInt(owner.uid),
    gid: BigInt(owner.gid),
    rdev: BigInt((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)),
    size: BigInt(size),
    blocks: 0n,
    times: [time, time, time],
  };
}

export function statBytes(status: Status | BigIntStats): Uint8Array {
  const fields = fieldsOf(status);
  const bytes = new Uint8Array(144);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, fields.device, true);
  view.setBigUint64(8, fields.inode, true);
  view.setBigUint64(16, fields.links, true);
  view.setUint32(24, Number(fields.mode), true);
  view.setUint32(28, Number(fields.uid), true);
  view.setUint32(32, Number(fields.gid), true);
  view.setBigUint64(40, fields.rdev, true);
  view.setBigUint64(48, fields.size, true);
  view.setBigUint64(56, BigInt(BLOCK_SIZE), true);
  view.setBigUint64(64, fields.blocks, true);
  for (const [place, time] of fields.times.entries()) {
    view.setBigInt64(72 + 16 * place, time / NANOSECONDS, true);
    view.setBigInt64(80 + 16 * place, time % NANOSECONDS, true);
  }
  return bytes;
}

const majorOf = (device: bigint): number => Number((device >> 8n) & 0xfffn);
const minorOf = (device: bigint): number => Number((device & 0xffn) | ((device >> 12n) & 0xfff00n));

export function statxBytes(status: Status | BigIntStats): Uint8Array {
  const fields = fieldsOf(status);
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  view.setUint32(0x00, STATX_BASIC_STATS, true);
  view.setUint32(0x04, BLOCK_SIZE, true);
  view.setUint32(0x10, Number(fields.links), true);
  view.setUint32(0x14, Number(fields.uid), true);
  view.setUint32(0x18, Number(fields.gid), true);
  view.setUint16(0x1c, Number(fields.mode), true);
  view.setBigUint64(0x20, fields.inode, true);
  view.setBigUint64(0x28, fields.size, true);
  view.setBigUint64(0x30, fields.blocks, true);
  const [access, modify, change] = fields.times;
  for (const [at, time] of [
    [0x40, access],
    [0x60, change],
    [0x70, modify],
  ] as const) {
    view.setBigInt64(at, time / NANOSECONDS, true);
    view.setUint32(at + 8, Number(time % NANOSECONDS), true);
  }
  view.setUint32(0x80, majorOf(fields.rdev), true);
  view.setUint32(0x84, minorOf(fields.rdev), true);
  view.setUint32(0x88, majorOf(fields.device), true);
  view.setUint32(0x8c, minorOf(fields.device), true);
  return bytes;
}
