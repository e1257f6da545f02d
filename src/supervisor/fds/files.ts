/**
 * The files we hand out. Each open file of ours is a real file in the client's table, so that dup, fork, exec, SCM_RIGHTS and
 * close are the kernel's work. It is recognised by the inode: every open makes a fresh one. It is released when the kernel
 * says that the inode has no user left: neither descriptor nor mapping, in no process.
 *
 * Three kinds. Plain files are memfds; their end is told by inotify. Streams (files whose reads or writes we answer) are
 * pipes, opened for what can be done with them, at numbers from the stream floor on, where the filter sees reads and writes; a byte in the
 * pipe makes them readable for poll; their end shows as an error on our writing end. Opens of a device with regions share one
 * memfd (memory/region-file.ts) and are told apart by the label of their description; inotify tells that one of them is being
 * closed, and the label that goes with it which one.
 *
 * Invariant: these signals are queued before the close returns to its caller, or, for a file that was just handed over,
 * before the next call is received. Who drains them after receiving a call and
 * before handling it never meets a file that is already closed.
 */
import { Errno } from '../../base/errno.ts';
import type { DeviceMemory, MmapGrant, OpenFile } from '../../base/task.ts';
import {
  closeFile,
  createMemfd,
  createPipe,
  EPOLLERR,
  identifyEntry,
  identifyFile,
  identity,
  InodeWatcher,
  isLabelled,
  labelFile,
  labelOf,
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
import { RegionFile } from '../memory/region-file.ts';
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
  /** of a device */
  readonly region?: RegionFile;
  /** of the description of a device */
  readonly label?: number;
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
  /** what the mappings of a device show */
  readonly region: RegionFile | undefined;
  readonly label: number | undefined;
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

  constructor(file: OpenFile, path: string | undefined, storage: Omit<Storage, 'watch'>) {
    this.file = file;
    this.path = path;
    this.pipe = storage.pipe;
    this.region = storage.region;
    this.label = storage.label;
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
  readonly #regions = new Map<DeviceMemory, RegionFile>();
  #lastLabel = 0;
  /** until when, in milliseconds, an open of a device may be found closed */
  #closingUntil = 0;
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
    return result < 0 ? result : this.identified(`../fdinfo/${number}`, directory);
  }

  /**
   * Our file among those that os/files identified last.
   * @param info its entry of /proc/PID/fdinfo, relative to an open directory
   */
  identified(info: string, directory?: number): OpenEntry | undefined {
    const { device, inode } = identity;
    const [first, ...others] = this.#byInode.get(inode) ?? [];
    if (others.length === 0) return first?.device === device ? first : undefined;
    const entries = this.#byInode.get(inode)?.filter((entry) => entry.device === device);
    if (entries?.[0]?.region === undefined || entries.length === 1) return entries?.[0];
    const label = labelOf(info, directory);
    return entries.find((entry) => entry.label === label);
  }

  /** The file is one of ours. */
  has(device: number, inode: number): boolean {
    return this.#byInode.get(inode)?.some((entry) => entry.device === device) ?? false;
  }

  /** Mappings of devices can be touched exactly while the device permits it: called before the answer to each call. */
  followRegions(): void {
    for (const region of this.#regions.values()) region.follow();
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
      if (isStream(file)) return this.#pipe(file);
      const { memory } = file;
      return memory === undefined ? this.#memfd(file, flags) : this.#region(memory, flags);
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

  /** A file is being closed that {@link drain} may not have found closed yet: it is to be called again soon. */
  get settling(): boolean {
    return this.#closingUntil > 0;
  }

  /** Releases the files whose last user has gone. */
  drain(): void {
    if (this.#watcher.drain(this.#gone, this.#watched)) {
      this.#closingUntil = performance.now() + LABELS_GO;
    }
    if (this.#closingUntil > 0) this.#removeUnlabelled();
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

  // The kernel tells of a close before the label goes: asked again until it must have.
  #removeUnlabelled(): void {
    if (performance.now() > this.#closingUntil) this.#closingUntil = 0;
    for (const entry of this.open) {
      const { region, label } = entry;
      if (region === undefined || label === undefined || isLabelled(region.fd, label)) continue;
      this.#remove(entry);
      if (this.has(entry.device, entry.inode)) continue;
      this.#regions.delete(region.memory);
      region.close();
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
    throw noWatch(file.name, watch);
  }

  #region(memory: DeviceMemory, flags: number): Storage {
    const region = this.#regions.get(memory) ?? this.#createRegion(memory);
    const fd = openPath(`/proc/self/fd/${region.fd}`, flags & (O_ACCMODE | STATUS_FLAGS));
    if (fd < 0) throw new Errno('ENOMEM', `no description for ${memory.name}: errno ${-fd}`);
    const label = ++this.#lastLabel;
    const failed = labelFile(fd, label, (flags & O_ACCMODE) !== O_RDONLY);
    if (failed === 0) return { fd, pipe: undefined, watch: undefined, region, label };
    closeFile(fd);
    throw new Errno('ENOMEM', `no lock for ${memory.name}: errno ${-failed}`);
  }

  #createRegion(memory: DeviceMemory): RegionFile {
    const fd = createMemfd(memory.name);
    if (fd < 0) throw new Errno('ENOMEM', `no memfd for ${memory.name}: errno ${-fd}`);
    const watch = this.#watcher.addCloses(fd);
    if (watch < 0) {
      closeFile(fd);
      throw noWatch(memory.name, watch);
    }
    const region = new RegionFile(memory, fd);
    this.#regions.set(memory, region);
    return region;
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

/** Milliseconds in which a description that is being closed has lost its label. */
const LABELS_GO = 50;

const noWatch = (name: string, watch: number): Errno =>
  new Errno(
    'ENOMEM',
    `no inotify watch for ${name} (errno ${-watch}); fs.inotify.max_user_watches may be used up`,
  );

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
