/** Files of this process: identity, memfds, pipes, notification of last use. Answers are values or negative errnos. */
import { readFileSync } from 'node:fs';

import { allocate, type Block } from './arena.ts';
import { sys, sys6, viewMemory } from './libc.ts';
import { AT_EMPTY_PATH, AT_FDCWD, NR, O_CLOEXEC, O_PATH, O_RDONLY } from './numbers.ts';

const PATH_MAX = 4096;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const IN_NONBLOCK_CLOEXEC = 0o2004000;
const IN_DELETE_SELF = 0x400;
const IN_CLOSE = 0x18;
const IN_Q_OVERFLOW = 0x4000;
const IN_IGNORED = 0x8000;

const AT_STATX_DONT_SYNC = 0x4000;
const STATX_BASIC = 0x7ff;

const path = allocate(PATH_MAX + 8);
const status = allocate(256);
const statusWords = new Uint32Array(status.bytes.buffer, status.bytes.byteOffset, 64);
const encoder = new TextEncoder();

function putPath(text: string): number {
  const { written } = encoder.encodeInto(text, path.bytes.subarray(0, PATH_MAX));
  path.bytes[written] = 0;
  return path.address;
}

function putNumber(value: number): number {
  if (value < 0) return putPath(String(value));
  let digits = 1;
  for (let rest = value; rest >= 10; rest = Math.floor(rest / 10)) digits++;
  path.bytes[digits] = 0;
  for (let rest = value, at = digits - 1; at >= 0; at--, rest = Math.floor(rest / 10)) {
    path.bytes[at] = 48 + (rest % 10);
  }
  return path.address;
}

/** Who a file is: the same pair for all descriptors of one inode. Reused by the next question: copy what must stay. */
export const identity = { device: 0, inode: 0, mode: 0, uid: 0, size: 0 };

function identify(result: number): number {
  if (result < 0) return result;
  const [major, minor] = [statusWords[34] ?? 0, statusWords[35] ?? 0];
  identity.device = ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12)) >>> 0;
  identity.inode = (statusWords[8] ?? 0) + (statusWords[9] ?? 0) * 2 ** 32;
  identity.mode = (statusWords[7] ?? 0) & 0xffff;
  identity.uid = statusWords[5] ?? 0;
  identity.size = (statusWords[10] ?? 0) + (statusWords[11] ?? 0) * 2 ** 32;
  return 0;
}

// struct statx. What a file system would have to ask a server for (FUSE, network) is told as last known: nobody is waited for.
function ask(directory: number, name: number, flags: number): number {
  const { address } = status;
  return identify(
    sys6(NR.statx, directory, name, flags | AT_STATX_DONT_SYNC, STATX_BASIC, address, 0),
  );
}

/** Fills {@link identity} for the entry named `number` of a directory that is open (of /proc/PID/fd). */
export function identifyEntry(directory: number, number: number): number {
  return ask(directory, putNumber(number), 0);
}

/** Fills {@link identity} for a path, symbolic links followed, relative to an open directory. */
export function identifyPath(name: string, directory = AT_FDCWD): number {
  return ask(directory, putPath(name), 0);
}

/** Fills {@link identity} for an open descriptor. */
export function identifyFile(fd: number): number {
  return ask(fd, putPath(''), AT_EMPTY_PATH);
}

/** Opens a path; close-on-exec. */
export function openPath(name: string, flags: number, directory = AT_FDCWD): number {
  return sys(NR.openat, directory, putPath(name), flags | O_CLOEXEC, 0);
}

const OPEN_HOW_SIZE = 24;
const RESOLVE_NO_XDEV = 1;
const RESOLVE_NO_MAGICLINKS = 2;
const RESOLVE_BENEATH = 8;
const openHow = allocate(OPEN_HOW_SIZE);

/**
 * Opens what lies below a directory and in the same file system, whatever symbolic links are planted there; close-on-exec.
 * @param below relative path
 */
export function openBeneath(directory: string, below: string, flags: number): number {
  const root = openPath(directory, O_PATH);
  if (root < 0) return root;
  openHow.view.setBigUint64(0, BigInt(flags | O_CLOEXEC), true);
  const resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH;
  openHow.view.setBigUint64(16, BigInt(resolve), true);
  const fd = sys(NR.openat2, root, putPath(below), openHow.address, OPEN_HOW_SIZE);
  closeFile(root);
  return fd;
}

const RESOLVE_CACHED = 0x20;

/** Takes hold of what a path means (O_PATH) if the kernel need not ask a disk or another program for that; else EAGAIN. */
export function openCached(name: string, flags: number, directory: number): number {
  openHow.view.setBigUint64(0, BigInt(flags | O_PATH | O_CLOEXEC), true);
  openHow.view.setBigUint64(16, BigInt(RESOLVE_CACHED), true);
  return sys(NR.openat2, directory, putPath(name), openHow.address, OPEN_HOW_SIZE);
}

export function closeFile(fd: number): void {
  sys(NR.close, fd);
}

export function createMemfd(name: string): number {
  return sys(NR.memfd_create, putPath(name), MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

const MFD_EXEC = 0x10;

/** A memfd that can be executed; a negative errno where this computer forbids that (sysctl vm.memfd_noexec). */
export function createProgramFile(name: string, program: Uint8Array): number {
  const fd = sys(NR.memfd_create, putPath(name), MFD_CLOEXEC | MFD_EXEC);
  if (fd >= 0) writeAt(fd, program, 0);
  return fd;
}

export function resizeFile(fd: number, length: number): number {
  return sys(NR.ftruncate, fd, length);
}

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const PAGE = 4096;

/** Zeroed bytes of a memfd of their own, at most a page, for the life of the process. */
export function allocateShared(name: string, length: number): Block & { readonly fd: number } {
  const fd = createMemfd(name);
  resizeFile(fd, PAGE);
  const address = sys6(NR.mmap, 0, PAGE, PROT_READ_WRITE, MAP_SHARED, fd, 0);
  if (address < 0) throw new Error(`no shared memory: errno ${-address}`);
  const buffer = viewMemory(address, PAGE);
  return {
    fd,
    address,
    bytes: new Uint8Array(buffer, 0, length),
    view: new DataView(buffer, 0, length),
  };
}

/** 32 hexadecimal digits that nobody can guess; node:crypto takes longer to load than a run to start. */
export function randomName(): string {
  sys(NR.getrandom, transfer.address, 16, 0);
  return Buffer.from(transfer.bytes.slice(0, 16)).toString('hex');
}

const F_ADD_SEALS = 1033;
const F_SEAL_ALL = 0xf; // SEAL, SHRINK, GROW, WRITE

/** Content and size of a memfd stay as they are, for good. */
export function sealFile(fd: number): number {
  return sys(NR.fcntl, fd, F_ADD_SEALS, F_SEAL_ALL);
}

/** A pipe whose ends are close-on-exec: [read end, write end], or a negative errno. */
export function createPipe(): readonly [number, number] | number {
  const ends = allocate(8);
  const result = sys(NR.pipe2, ends.address, O_CLOEXEC);
  return result < 0 ? result : [ends.view.getInt32(0, true), ends.view.getInt32(4, true)];
}

const TRANSFER = 1 << 18;
const transfer = allocate(TRANSFER);

/**
 * Fills `into` from byte `offset` of a file.
 * @returns bytes read, fewer at the end or at a hole in what can be read, or a negative errno if none could
 */
export function readAt(fd: number, into: Uint8Array, offset: number): number {
  let done = 0;
  while (done < into.length) {
    const want = Math.min(TRANSFER, into.length - done);
    const got = sys6(NR.pread64, fd, transfer.address, want, offset + done, 0, 0);
    if (got <= 0) return done > 0 ? done : got;
    into.set(transfer.bytes.subarray(0, got), done);
    done += got;
  }
  return done;
}

/** Writes at byte `offset` of a file; answers like {@link readAt}. */
export function writeAt(fd: number, bytes: Uint8Array, offset: number): number {
  let done = 0;
  while (done < bytes.length) {
    const piece = bytes.subarray(done, done + TRANSFER);
    transfer.bytes.set(piece);
    const got = sys6(NR.pwrite64, fd, transfer.address, piece.length, offset + done, 0, 0);
    if (got <= 0) return done > 0 ? done : got;
    done += got;
  }
  return done;
}

/**
 * A small file of /proc in one read, as Latin-1; undefined if there is none. Node's readFileSync takes four times as long,
 * and clients start processes by the hundred.
 */
export function readText(name: string, directory = AT_FDCWD): string | undefined {
  const fd = openPath(name, O_RDONLY, directory);
  if (fd < 0) return undefined;
  const got = sys(NR.read, fd, transfer.address, TRANSFER);
  closeFile(fd);
  const { buffer, byteOffset } = transfer.bytes;
  return got < 0 ? undefined : Buffer.from(buffer, byteOffset, got).toString('latin1');
}

/** With which flags of open a thread has a file open; undefined where that cannot be learnt. */
export function openFlags(tid: number, number: number): number | undefined {
  const flags = /^flags:\s*([0-7]+)/m.exec(readText(`/proc/${tid}/fdinfo/${number}`) ?? '')?.[1];
  return flags === undefined ? undefined : parseInt(flags, 8);
}

/** One read(2) of at most 4096 bytes without a position. */
export function readSome(fd: number, count: number): Uint8Array | number {
  const got = sys(NR.read, fd, transfer.address, Math.min(count, 4096));
  return got < 0 ? got : transfer.bytes.slice(0, got);
}

/** One byte into a pipe. */
export function writeByte(fd: number): number {
  transfer.bytes[0] = 0;
  return sys(NR.write, fd, transfer.address, 1);
}

// struct flock of include/uapi/asm-generic/fcntl.h
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const LABELS = 0x7000_0000_0000_0000n;
const lock = allocate(32);

function putLock(type: number, label: number): number {
  lock.bytes.fill(0);
  lock.view.setInt16(0, type, true);
  lock.view.setBigInt64(8, LABELS + BigInt(label), true);
  lock.view.setBigInt64(16, 1n, true);
  return lock.address;
}

/**
 * Labels an open file description until its last close, by a lock of one byte where no data is. It shows in
 * /proc/PID/fdinfo (see {@link labelOf}).
 * @param label distinct for each description
 * @param writable the description can be written
 */
export function labelFile(fd: number, label: number, writable: boolean): number {
  return sys(NR.fcntl, fd, F_OFD_SETLK, putLock(writable ? F_WRLCK : F_RDLCK, label));
}

/** Some description of the file of `fd`, which is not that of `fd` itself, has the label. */
export function isLabelled(fd: number, label: number): boolean {
  if (sys(NR.fcntl, fd, F_OFD_GETLK, putLock(F_WRLCK, label)) < 0) return true;
  return lock.view.getInt16(0, true) !== F_UNLCK;
}

/** The label of the description behind an entry of /proc/PID/fdinfo. */
export function labelOf(name: string, directory = AT_FDCWD): number | undefined {
  const text = readText(name, directory) ?? '';
  // A client may have locks of its own beside the label, at places that a file can reach.
  const starts = [...text.matchAll(/^lock:.*\sOFDLCK\s.*\s(\d+)\s\d+$/gm)].map((found) =>
    BigInt(found[1] ?? ''),
  );
  const label = starts.find((start) => start >= LABELS);
  return label === undefined ? undefined : Number(label - LABELS);
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** The parts of [from, to) of a file that may hold something but zeros, in bytes. */
export function* dataOf(
  fd: number,
  from: number,
  to: number,
): Generator<{ readonly start: number; readonly end: number }> {
  for (let at = from; at < to;) {
    const start = sys(NR.lseek, fd, at, SEEK_DATA);
    if (start < 0 || start >= to) return;
    const end = Math.min(to, sys(NR.lseek, fd, start, SEEK_HOLE));
    if (end <= start) return;
    yield { start, end };
    at = end;
  }
}

/** Tells when inodes go away, the last descriptor and the last mapping in whatever process, and of closes. */
export class InodeWatcher {
  readonly fd: number;
  readonly #events = allocate(4096);

  constructor() {
    this.fd = sys(NR.inotify_init1, IN_NONBLOCK_CLOEXEC);
    if (this.fd < 0) {
      throw new Error(
        `no inotify instance (errno ${-this.fd}); fs.inotify.max_user_instances may be used up`,
      );
    }
  }

  /** @returns number of the watch, or a negative errno */
  add(fd: number): number {
    return this.#watch(fd, IN_DELETE_SELF);
  }

  /** Tells of each last close of a description of the file. */
  addCloses(fd: number): number {
    return this.#watch(fd, IN_CLOSE);
  }

  #watch(fd: number, mask: number): number {
    return sys(NR.inotify_add_watch, this.fd, putPath(`/proc/self/fd/${fd}`), mask);
  }

  /**
   * Tells what has gone since the last time.
   * @param gone called with the number of each watch whose inode has gone
   * @param watched numbers of all watches; asked for if the kernel lost some of the events
   * @returns a description of a file of {@link addCloses} is being closed, or may be
   */
  drain(gone: (watch: number) => void, watched: () => Iterable<number>): boolean {
    let closing = false;
    for (;;) {
      const length = sys6(NR.read, this.fd, this.#events.address, 4096, 0, 0, 0);
      if (length <= 0) return closing;
      const { view } = this.#events;
      const ended: number[] = [];
      let lost = false;
      for (let at = 0; at < length; at += 16 + view.getUint32(at + 12, true)) {
        const mask = view.getUint32(at + 4, true);
        if ((mask & IN_IGNORED) !== 0) ended.push(view.getInt32(at, true));
        if ((mask & IN_Q_OVERFLOW) !== 0) lost = true;
        if ((mask & (IN_CLOSE | IN_Q_OVERFLOW)) !== 0) closing = true;
      }
      ended.forEach(gone);
      if (lost) this.#missing(watched()).forEach(gone);
    }
  }

  // The queue holds so many events (fs.inotify.max_queued_events); which watches are left is still known.
  #missing(watched: Iterable<number>): number[] {
    const text = readFileSync(`/proc/self/fdinfo/${this.fd}`, 'latin1');
    const left = new Set(
      [...text.matchAll(/^inotify wd:(\S+)/gm)].map((line) => parseInt(line[1] ?? '', 16)),
    );
    return [...watched].filter((watch) => !left.has(watch));
  }
}

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;

export const EPOLLIN = 1;
/** told of once for each event, not as long as it lasts */
export const EPOLLET = 0x8000_0000;
export const EPOLLERR = 8;

/** A set of descriptors that is itself one descriptor, readable when any of them is. */
export class PollSet {
  readonly fd: number;
  readonly #event = allocate(16);
  readonly #events = allocate(12 * 64);

  constructor() {
    this.fd = sys(NR.epoll_create1, O_CLOEXEC);
    if (this.fd < 0) throw new Error(`no epoll instance: errno ${-this.fd}`);
  }

  /** @param events EPOLLIN; errors and hang-ups are always told */
  add(fd: number, events: number): number {
    // struct epoll_event is packed on x86-64: events at 0, data at 4.
    this.#event.view.setUint32(0, events, true);
    this.#event.view.setUint32(4, fd, true);
    this.#event.view.setUint32(8, 0, true);
    return sys(NR.epoll_ctl, this.fd, EPOLL_CTL_ADD, fd, this.#event.address);
  }

  remove(fd: number): void {
    sys(NR.epoll_ctl, this.fd, EPOLL_CTL_DEL, fd, this.#event.address);
  }

  /** The descriptors that are ready now. */
  ready(): number[] {
    const count = sys6(NR.epoll_wait, this.fd, this.#events.address, 64, 0, 0, 0);
    const fds: number[] = [];
    for (let i = 0; i < count; i++) fds.push(this.#events.view.getUint32(12 * i + 4, true));
    return fds;
  }
}

/** What readlink says of a path relative to an open directory, or a negative errno. */
export function readLink(name: string, directory = AT_FDCWD): string | number {
  const got = sys(NR.readlinkat, directory, putPath(name), transfer.address, PATH_MAX);
  return got < 0 ? got : new TextDecoder().decode(transfer.bytes.slice(0, got));
}
