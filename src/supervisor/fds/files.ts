/**
 * The files we hand out. Each open file of ours is a real file in the client's table, so that dup, fork, exec, SCM_RIGHTS and
 * close are the kernel's work. It is recognised by the inode: every open makes a fresh one. It is released when the kernel
 * says that the inode has no user left: neither descriptor nor mapping, in no process.
 *
 * Two kinds. Plain files are memfds; their end is told by inotify. Streams (files whose reads or writes we answer) are
 * pipes, opened for what can be done with them, at numbers from the stream floor on, where the filter sees reads and writes; a byte in the
 * pipe makes them readable for poll; their end shows as an error on our writing end.
 *
 * Invariant: both signals are queued before the close returns to its caller, or, for a file that was just handed over,
 * before the next call is received. Who drains them after receiving a call and
 * before handling it never meets a file that is already closed.
 */
import { Errno } from '../../base/errno.ts';
import type { MmapGrant, OpenFile } from '../../base/task.ts';
import {
  closeFile,
  createMemfd,
  createPipe,
  EPOLLERR,
  identifyEntry,
  identifyFile,
  identity,
  InodeWatcher,
  openPath,
  PollSet,
  readSome,
  resizeFile,
  sealFile,
  writeByte,
} from '../../os/files.ts';
import {
  O_ACCMODE,
  O_APPEND,
  O_ASYNC,
  O_NOATIME,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
} from '../../os/numbers.ts';
import { FdPlaceholders, type Placeholder } from './placeholders.ts';

/**
 * Puts a descriptor of ours into a client's table.
 * @returns the fd there, or the negative errno
 */
export type Installer = (fd: number, at: number | undefined) => number;

/** The table that a file goes into. */
export type Table = {
  /** who has it, by identity */
  readonly owner: object;
  /** open /proc/PID/fd of it */
  readonly numbers: number;
};

/** A file of ours that a client is to get. */
export type Opened = {
  readonly file: OpenFile;
  /** what it was opened by; undefined for a file that an ioctl made */
  readonly path: string | undefined;
  /** access mode and status flags that it counts as opened with */
  readonly flags: number;
};

/** The real file behind one of ours. */
type Storage = {
  readonly fd: number;
  /** our writing end, of a stream's pipe */
  readonly pipe: number | undefined;
  /** on a memfd's inode */
  readonly watch: number | undefined;
};

/** A window that somebody may still map. */
export type Grant = {
  readonly grant: MmapGrant;
  /** what of the file the window is, in bytes */
  readonly offset: number;
  readonly length: number;
};

/** One of our open files, known by its inode. */
export class OpenEntry {
  readonly file: OpenFile;
  /** path it was opened by; undefined for a file that an ioctl made */
  readonly path: string | undefined;
  readonly device: number;
  readonly inode: number;
  /** our writing end of a stream's pipe */
  readonly pipe: number | undefined;
  /** what keeps the number that Linux would have given to a stream */
  placeholder: Placeholder | undefined;
  /** bytes in a stream's pipe */
  signals = 0;
  /** where the next read or write begins, of a file that advances */
  position = 0;
  /** its last user has gone */
  released = false;
  /** one for each window that somebody may still map */
  grants: Grant[] = [];
  /** windows whose content the file has: what a client writes there stays */
  readonly shown = new WeakSet<object>();

  constructor(file: OpenFile, path: string | undefined, storage: Pick<Storage, 'fd' | 'pipe'>) {
    this.file = file;
    this.path = path;
    this.pipe = storage.pipe;
    identifyFile(storage.fd);
    this.device = identity.device;
    this.inode = identity.inode;
  }

  /** What /proc/PID/fd shows for it on Linux. */
  get link(): string {
    return this.path ?? this.file.link ?? `anon_inode:[${this.file.name}]`;
  }
}

// A number that the limit does not allow is EBADF to who chooses it (replace_fd).
const EBADF = -9;
const EMFILE = -24;

/** Its reads or writes are answered here. */
const isRead = (file: OpenFile): boolean => file.read !== undefined || file.write !== undefined;

const isStream = (file: OpenFile): boolean => file.mmap === undefined && isRead(file);

export class FileTable {
  /** Readable whenever {@link drain} has something to do, and when a watched process ended. */
  readonly events = new PollSet();
  /** Lowest number of streams. */
  readonly streamFloor: number;
  readonly #watcher = new InodeWatcher();
  readonly #placeholders = new FdPlaceholders();
  readonly #byInode = new Map<number, OpenEntry[]>();
  readonly #byWatch = new Map<number, OpenEntry>();
  readonly #byPipe = new Map<number, OpenEntry>();
  readonly #released: (entry: OpenEntry) => void;

  constructor(streamFloor: number, released: (entry: OpenEntry) => void) {
    this.streamFloor = streamFloor;
    this.#released = released;
    this.events.add(this.#watcher.fd, 1);
  }

  /** Clients hold files of ours. */
  get any(): boolean {
    return this.#byInode.size > 0;
  }

  /** Files that clients hold open now. */
  get open(): OpenEntry[] {
    return [...this.#byInode.values()].flat();
  }

  /**
   * Our file behind entry `number` of an open /proc/PID/fd.
   * @returns undefined for a file of the host, a negative errno if there is none
   */
  find(directory: number, number: number): OpenEntry | undefined | number {
    const result = identifyEntry(directory, number);
    return result < 0 ? result : this.identified();
  }

  /** Our file among those that os/files identified last. */
  identified(): OpenEntry | undefined {
    return this.#lookup(identity.device, identity.inode);
  }

  /** The file is one of ours. */
  has(device: number, inode: number): boolean {
    return this.#lookup(device, inode) !== undefined;
  }

  #lookup(device: number, inode: number): OpenEntry | undefined {
    return this.#byInode.get(inode)?.find((entry) => entry.device === device);
  }

  /**
   * Hands a new open file to a client.
   * @param table the client's, to find a number in
   * @returns number in the client's table; if that fails the file is released and Errno is thrown
   */
  hand({ file, path, flags }: Opened, install: Installer, table: Table): number {
    const storage = this.#storage(file, flags);
    const entry = new OpenEntry(file, path, storage);
    this.#add(entry, storage.watch);
    const number = isRead(file)
      ? this.#handStream(entry, storage.fd, install, table)
      : install(storage.fd, this.#placeholders.reusable(table));
    closeFile(storage.fd);
    if (number >= 0) return number;
    // Our close was the last one: the release arrives by the usual way.
    this.drain();
    const full = number === EMFILE || number === EBADF;
    throw new Errno(full ? 'EMFILE' : 'ENOMEM', refusalOf(number, this.streamFloor));
  }

  #handStream(entry: OpenEntry, fd: number, install: Installer, table: Table): number {
    const number = install(fd, this.#freeStream(table.numbers));
    if (number >= 0) entry.placeholder = this.#placeholders.install(table, install);
    return number;
  }

  #storage(file: OpenFile, flags: number): Storage {
    try {
      return isStream(file) ? this.#pipe(file) : this.#memfd(file, flags);
    } catch (error) {
      file.release();
      throw error;
    }
  }

  /** A second description of a stream, for dup; its number, `least` or more, is again one whose reads are seen. */
  duplicate(
    entry: OpenEntry,
    install: Installer,
    { numbers, least }: { readonly numbers: number; readonly least: number },
  ): number {
    const fd = openPath(`/proc/self/fd/${entry.pipe ?? -1}`, accessOf(entry.file));
    if (fd < 0) return fd;
    const number = install(fd, this.#freeStream(numbers, least));
    closeFile(fd);
    return number === EBADF ? EMFILE : number;
  }

  /** How many files of a table only wait to be replaced by the next one. */
  replaceable(table: Table): number {
    return this.#placeholders.count(table);
  }

  /** A client is about to close a stream: the number that it stood for is free for the next file of ours. */
  closing(entry: OpenEntry, table: Table): void {
    if (entry.placeholder !== undefined) this.#placeholders.leave(table, entry.placeholder);
  }

  /** Releases the files whose last user has gone. */
  drain(): void {
    this.#watcher.drain(this.#gone, this.#watched);
    if (this.#byPipe.size === 0) return;
    for (const fd of this.events.ready()) {
      const entry = this.#byPipe.get(fd);
      if (entry === undefined) continue;
      this.events.remove(fd);
      this.#byPipe.delete(fd);
      closeFile(fd);
      this.#remove(entry);
    }
  }

  readonly #watched = (): Iterable<number> => this.#byWatch.keys();

  readonly #gone = (watch: number): void => {
    const entry = this.#byWatch.get(watch);
    this.#byWatch.delete(watch);
    if (entry !== undefined) this.#remove(entry);
  };

  #add(entry: OpenEntry, watch: number | undefined): void {
    const entries = this.#byInode.get(entry.inode);
    if (entries === undefined) this.#byInode.set(entry.inode, [entry]);
    else entries.push(entry);
    if (watch !== undefined) this.#byWatch.set(watch, entry);
    if (entry.pipe === undefined) return;
    this.#byPipe.set(entry.pipe, entry);
    this.events.add(entry.pipe, EPOLLERR);
    entry.file.onReadable = (woken) => {
      signal(entry, woken);
    };
    signal(entry, false);
  }

  #remove(entry: OpenEntry): void {
    const entries = this.#byInode.get(entry.inode)?.filter((other) => other !== entry) ?? [];
    if (entries.length === 0) this.#byInode.delete(entry.inode);
    else this.#byInode.set(entry.inode, entries);
    entry.released = true;
    for (const { grant } of entry.grants) grant.release();
    entry.file.release();
    this.#released(entry);
  }

  #memfd(file: OpenFile, flags: number): Storage {
    const fd = openMemfd(file, flags);
    if (fd < 0) throw new Errno('ENOMEM', `no memfd for ${file.name}: errno ${-fd}`);
    const watch = this.#watcher.add(fd);
    if (watch >= 0) return { fd, pipe: undefined, watch };
    closeFile(fd);
    throw new Errno(
      'ENOMEM',
      `no inotify watch for ${file.name} (errno ${-watch}); fs.inotify.max_user_watches may be used up`,
    );
  }

  #pipe(file: OpenFile): Storage {
    const ends = createPipe();
    if (typeof ends === 'number') {
      throw new Errno('ENOMEM', `no pipe for ${file.name}: errno ${-ends}`);
    }
    const [reading, writing] = ends;
    const fd = openPath(`/proc/self/fd/${reading}`, accessOf(file));
    closeFile(reading);
    if (fd >= 0) return { fd, pipe: writing, watch: undefined };
    closeFile(writing);
    throw new Errno('ENOMEM', `no pipe for ${file.name}: errno ${-fd}`);
  }

  #freeStream(numbers: number, least = 0): number {
    let number = Math.max(this.streamFloor, least);
    while (identifyEntry(numbers, number) === 0) number++;
    return number;
  }
}

/** What F_GETFL tells of an open file, apart from its access mode. */
const STATUS_FLAGS = O_APPEND | O_NONBLOCK | O_ASYNC | O_SYNC | O_NOATIME;

function openMemfd(file: OpenFile, flags: number): number {
  const fd = createMemfd(file.name);
  if (fd < 0) return fd;
  // A file that has a size keeps it, and its zeros.
  if (file.size !== undefined) {
    resizeFile(fd, file.size);
    sealFile(fd);
  }
  const wanted = flags & (O_ACCMODE | STATUS_FLAGS);
  if (wanted === O_RDWR) return fd;
  const again = openPath(`/proc/self/fd/${fd}`, wanted);
  closeFile(fd);
  return again;
}

/** Far below what a pipe takes. */
const MOST_SIGNALS = 1024;

/** How a client has a stream open: poll says that it can be written only where that is so. */
const accessOf = (file: OpenFile): number =>
  (file.write === undefined ? O_RDONLY : O_RDWR) | (file.nonBlocking === false ? 0 : O_NONBLOCK);

function refusalOf(number: number, streamFloor: number): string {
  if (number === EBADF) {
    return `the client's RLIMIT_NOFILE leaves no number from ${streamFloor} on, where queues have to be, and may not be raised`;
  }
  return `the client's fd table is full (errno ${-number})`;
}

/**
 * Makes the pipe hold bytes exactly while the file is readable: that is what poll and select of the client see. One more for
 * each event wakes those who wait for edges.
 */
function signal(entry: OpenEntry, woken: boolean): void {
  const wanted = entry.file.readable?.() ?? false;
  if (entry.pipe === undefined) return;
  if (wanted && !woken && entry.signals > 0) return;
  if (entry.signals > 0 && (!wanted || entry.signals === MOST_SIGNALS))
    takeSignals(entry, entry.pipe);
  if (!wanted) return;
  writeByte(entry.pipe);
  entry.signals++;
}

function takeSignals(entry: OpenEntry, pipe: number): void {
  // A reading end of our own, for a moment only: while we hold one, the last close of the client stays unseen.
  const reading = openPath(`/proc/self/fd/${pipe}`, O_RDONLY | O_NONBLOCK);
  if (reading < 0) return;
  readSome(reading, entry.signals);
  closeFile(reading);
  entry.signals = 0;
}
