/** Other processes: their memory, mappings, limits and end. Answers are values or negative errnos. */
import { readFileSync } from 'node:fs';

import { allocate } from './arena.ts';
import { readText } from './files.ts';
import { sys, sys6 } from './libc.ts';
import { NR } from './numbers.ts';

const ESRCH = 3;
const EFAULT = 14;

/** The largest piece that {@link readMemory} and {@link writeMemory} move at once, in bytes. */
export const PIECE = 1 << 18;

/** what the high half of a 64-bit word counts */
const WORD = 2 ** 32;

const piece = allocate(PIECE);
const local = allocate(16);
const remote = allocate(16);
local.view.setBigUint64(0, BigInt(piece.address), true);
const localLength = new Uint32Array(local.bytes.buffer, local.bytes.byteOffset, 4);
const remoteWords = new Uint32Array(remote.bytes.buffer, remote.bytes.byteOffset, 4);

/** Where {@link readMemory} leaves its bytes and {@link writeMemory} takes them. */
export const pieceBytes = piece.bytes;
export const pieceView = piece.view;

/** The page is not there: who writes to it waits for another program (EAGAIN). */
export const HELD_BACK = 11;

/**
 * Asked before memory is copied.
 * @returns 0, or the negative errno that the copy is to have: {@link HELD_BACK} for a write only
 */
export type MemoryGuard = (tid: number, address: bigint, length: number, write: boolean) => number;

let guard: MemoryGuard | undefined;

/** From now on all copies ask first. */
export function guardMemory(asked: MemoryGuard | undefined): void {
  guard = asked;
}

/** Memory of a thread can be reached without waiting, as far as is known. */
export function isAtHand(tid: number, address: number, length: number): boolean {
  return guard === undefined || guard(tid, BigInt(address), length, false) === 0;
}

function move(nr: number, tid: number, address: bigint, length: number): number {
  if (guard !== undefined) {
    const refused = guard(tid, address, length, nr === NR.process_vm_writev);
    if (refused !== 0) return refused;
  }
  localLength[2] = length;
  remoteWords[2] = length;
  remote.view.setBigUint64(0, address, true);
  // process_vm_readv and process_vm_writev take the same arguments.
  return sys6(nr, tid, local.address, 1, remote.address, 1, 0);
}

/** Copies at most PIECE bytes of a thread's memory to {@link pieceBytes}; page protections hold. */
export function readMemory(tid: number, address: bigint, length: number): number {
  return move(NR.process_vm_readv, tid, address, length);
}

/** Copies at most PIECE bytes from {@link pieceBytes} to a thread's memory; page protections hold. */
export function writeMemory(tid: number, address: bigint, length: number): number {
  return move(NR.process_vm_writev, tid, address, length);
}

/** {@link readBlock} moves at most two of these, in bytes. */
export const READ_BLOCK = 512;

const block = allocate(2 * READ_BLOCK);
const blockLocal = allocate(16);
blockLocal.view.setBigUint64(0, BigInt(block.address), true);
const blockWords = new Uint32Array(blockLocal.bytes.buffer, blockLocal.bytes.byteOffset, 4);

/** Where {@link readBlock} leaves its bytes, apart from all other copies. */
export const blockBytes = block.bytes;

/** Copies bytes of a thread's memory to {@link blockBytes}; page protections hold. */
export function readBlock(tid: number, address: number, length: number): number {
  if (!isAtHand(tid, address, length)) return -EFAULT;
  blockWords[2] = length;
  remoteWords[0] = address >>> 0;
  remoteWords[1] = Math.floor(address / WORD);
  remoteWords[2] = length;
  return sys6(NR.process_vm_readv, tid, blockLocal.address, 1, remote.address, 1, 0);
}

/** The same process's descriptor, readable when it has ended; it cannot come to mean another process. */
export function openProcess(pid: number): number {
  return sys(NR.pidfd_open, pid, 0);
}

export function signalProcess(pidfd: number, signal: number): number {
  return sys(NR.pidfd_send_signal, pidfd, signal, 0, 0);
}

export function signalPid(pid: number, signal: number): number {
  return sys(NR.kill, pid, signal);
}

/** The thread belongs to that process, as far as anybody may know. */
export function isThreadOf(pid: number, tid: number): boolean {
  return sys(NR.tgkill, pid, tid, 0) !== -ESRCH;
}

/** There is a thread of that number, as far as anybody may know. */
export function isThread(tid: number): boolean {
  return signalPid(tid, 0) !== -ESRCH;
}

const KCMP_VM = 1;

/** 0 if two processes share one address space, 1 or 2 if not, negative errno where this may not be asked. */
export function compareAddressSpaces(pid: number, other: number): number {
  return sys(NR.kcmp, pid, other, KCMP_VM, 0, 0);
}

const RLIMIT_NOFILE = 7;
const RLIMIT_MEMLOCK = 8;
const UNLIMITED = 0xffff_ffff_ffff_ffffn;
const limits = allocate(16);

export type Limits = { readonly soft: number; readonly hard: number };

function limitsOf(pid: number, resource: number): Limits | undefined {
  if (sys(NR.prlimit64, pid, resource, 0, limits.address) < 0) return undefined;
  const [soft = Infinity, hard = Infinity] = [0, 8].map((at) => {
    const value = limits.view.getBigUint64(at, true);
    return value === UNLIMITED ? Infinity : Number(value);
  });
  return { soft, hard };
}

/**
 * RLIMIT_MEMLOCK of a process in bytes. Asking needs the same user or CAP_SYS_RESOURCE, which root may lack; reading does
 * not.
 */
export function memlockLimit(pid: number): number {
  const limit = limitsOf(pid, RLIMIT_MEMLOCK)?.soft;
  if (limit !== undefined) return limit;
  const soft = /^Max locked memory +(\d+)/m.exec(readText(`/proc/${pid}/limits`) ?? '')?.[1];
  return soft === undefined ? Infinity : Number(soft);
}

/** Sets RLIMIT_NOFILE of a process; a negative errno where that is not allowed. */
export function setFileLimits(pid: number, { soft, hard }: Limits): number {
  [soft, hard].forEach((value, i) => {
    limits.view.setBigUint64(8 * i, value === Infinity ? UNLIMITED : BigInt(value), true);
  });
  return sys(NR.prlimit64, pid, RLIMIT_NOFILE, limits.address, 0);
}

/** RLIMIT_NOFILE of a process; undefined where this may not be asked. */
export function fileLimits(pid: number): Limits | undefined {
  return limitsOf(pid, RLIMIT_NOFILE);
}

/** One mapping of an address space. */
export type Mapping = {
  readonly start: number;
  readonly end: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly shared: boolean;
  /** byte in the file that `start` shows */
  readonly offset: number;
  readonly inode: number;
  /** as {@link deviceNumber} gives it; identity of a file is (device, inode) */
  readonly device: number;
  /** in bytes */
  readonly pageSize: number;
  /** Asked for only when somebody wants it: finding a path takes time. '' where something else is there by now. */
  name(): string;
};

/** Major and minor as stat(2) shows them in one number. */
export function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** All mappings of a process; none where it may not be looked at. */
export function mappingsOf(pid: number | string): Mapping[] {
  try {
    return parseMappings(readFileSync(`/proc/${pid}/maps`, 'latin1'));
  } catch {
    return [];
  }
}

/** The lines of /proc/PID/maps. */
export const parseMappings = (text: string): Mapping[] =>
  text.split('\n').flatMap((line) => parseMapping(line) ?? []);

const PROCMAP_QUERY = 0xc0686611;
const QUERY_SIZE = 104;
const NAME_SIZE = 512;
const READABLE = 1;
const WRITABLE = 2;
const SHARED = 8;

type Query = { readonly address: number; readonly bytes: Uint8Array; readonly words: Uint32Array };

let query: Query | undefined;

function queryBlock(): Query {
  if (query !== undefined) return query;
  const { address, bytes } = allocate(QUERY_SIZE + NAME_SIZE);
  query = {
    address,
    bytes,
    words: new Uint32Array(bytes.buffer, bytes.byteOffset, QUERY_SIZE / 4),
  };
  return query;
}

/** Fills a struct procmap_query; without a name the kernel wants no room for one. @returns 0 or the negative errno */
function ask(maps: number, at: number, nameSize: number): number {
  const { address, words } = queryBlock();
  words.fill(0);
  words[0] = QUERY_SIZE;
  words[4] = at >>> 0;
  words[5] = Math.floor(at / WORD);
  if (nameSize > 0) {
    words[20] = nameSize;
    words[22] = (address + QUERY_SIZE) >>> 0;
    words[23] = Math.floor((address + QUERY_SIZE) / WORD);
  }
  return sys6(NR.ioctl, maps, PROCMAP_QUERY, address, 0, 0, 0);
}

function wordAt(words: Uint32Array, index: number): number {
  return (words[index] ?? 0) + (words[index + 1] ?? 0) * WORD;
}

function answered(maps: number, words: Uint32Array): Mapping {
  const flags = words[10] ?? 0;
  const start = wordAt(words, 6);
  const inode = wordAt(words, 16);
  return {
    start,
    end: wordAt(words, 8),
    readable: (flags & READABLE) !== 0,
    writable: (flags & WRITABLE) !== 0,
    shared: (flags & SHARED) !== 0,
    offset: wordAt(words, 14),
    inode,
    device: deviceNumber(words[18] ?? 0, words[19] ?? 0),
    pageSize: wordAt(words, 12),
    name: () => askName(maps, start, inode),
  };
}

function askName(maps: number, start: number, inode: number): string {
  if (ask(maps, start, NAME_SIZE) < 0) return '';
  const { bytes, words } = queryBlock();
  if (wordAt(words, 16) !== inode) return '';
  const length = Math.max(0, (words[20] ?? 0) - 1);
  return Buffer.from(bytes.slice(QUERY_SIZE, QUERY_SIZE + length)).toString();
}

/**
 * The mapping that holds an address, asked of an open /proc/PID/maps (which stays with the address space it was opened on).
 * @returns undefined if nothing is mapped there; negative errno: ESRCH for an address space that has gone, ENOTTY for a
 * kernel that cannot be asked (before Linux 6.11)
 */
export function queryMapping(maps: number, address: number): Mapping | undefined | number {
  const result = ask(maps, address, 0);
  if (result === -2) return undefined;
  return result < 0 ? result : answered(maps, queryBlock().words);
}

/** One line of /proc/PID/maps; undefined for what is none. */
export function parseMapping(line: string): Mapping | undefined {
  const match =
    /^([0-9a-f]+)-([0-9a-f]+) (.)(.).(.) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$/.exec(
      line,
    );
  if (match === null) return undefined;
  const [, start = '', end = '', read, write, share, offset = '', major = '', minor = ''] = match;
  return {
    start: parseInt(start, 16),
    end: parseInt(end, 16),
    readable: read === 'r',
    writable: write === 'w',
    shared: share === 's',
    offset: parseInt(offset, 16),
    device: deviceNumber(parseInt(major, 16), parseInt(minor, 16)),
    inode: Number(match[9]),
    pageSize: 4096,
    name: () => match[10] ?? '',
  };
}
