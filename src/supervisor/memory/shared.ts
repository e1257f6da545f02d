/**
 * Memory that processes share: shared anonymous memory, memfds, files. One backing for each (device, inode), whoever maps
 * it. Bytes are reached through a descriptor of ours where one can be had (a privileged process opens
 * /proc/PID/map_files, an ordinary one a descriptor that the client still holds), else through the memory of a
 * process that maps them.
 *
 * Bytes are written only by a right that a client has itself: a shared mapping that can be written, or an fd that is open
 * for writing. Files that are passed by an fd without it are backings of their own, which DMA cannot write.
 *
 * Identity must last as long as the engine uses the object: it is found again through a weak reference, and while we hold a
 * descriptor the inode number cannot come to mean another file.
 */
import { readdirSync } from 'node:fs';

import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import type { Backing, FileMemory, PageRun } from '../../base/task.ts';
import {
  closeFile,
  identifyFile,
  identifyPath,
  identity,
  readAt,
  writeAt,
} from '../../os/files.ts';
import { allocate } from '../../os/arena.ts';
import { heldAccess, holdLink, openSame, reopen } from '../../os/entry.ts';
import { sys } from '../../os/libc.ts';
import { O_RDONLY, O_RDWR } from '../../os/numbers.ts';
import type { Mapping } from '../../os/process.ts';
import type { PinnedMemory } from '../../kernel/kernel.ts';
import { preservePages, type PreservedPages } from './preserve.ts';
import type { ClientSpace } from './process.ts';
import { forgetReadAhead } from './read-ahead.ts';

const S_IFMT = 0o170000;
// A client that owns the file can open it again for reading and writing itself, through /proc/self/fd.
const OWNER_READ_WRITE = 0o600;
const S_IFREG = 0o100000;
const EPERM = 1;
const NR_FSTATFS = 138;
const TMPFS_MAGIC = 0x01021994;
const HUGETLBFS_MAGIC = 0x958458f6;
const SWEEP_ABOVE = 64;

/** What is known of a file when a backing is made of it. */
type FileTraits = {
  readonly name: string;
  readonly unit: number;
  readonly readOnly?: boolean;
};

type HeldFile = FileTraits & { readonly device: number; readonly inode: number };

/** Where a process shows a part of the file. */
type MappingSite = { readonly space: ClientSpace; readonly mapping: Mapping };

// Descriptors are closed when the engine has let go of the backing.
const abandoned = new FinalizationRegistry<{ fd: number }>((held) => {
  if (held.fd >= 0) closeFile(held.fd);
});

export class SharedMemory implements Backing {
  readonly name: string;
  readonly unit: number;
  /** passed by an fd that is not open for writing */
  readonly readOnly: boolean;
  /** by process and start of the mapping, as last seen */
  readonly sights = new Map<ClientSpace, Map<number, Mapping>>();
  readonly #held = { fd: -1 };
  #writable = false;
  #inMemory = false;
  #store: PreservedPages | undefined;

  constructor({ name, unit, readOnly = false }: FileTraits) {
    this.name = name;
    this.unit = unit;
    this.readOnly = readOnly;
    abandoned.register(this, this.#held);
  }

  /** Reachable without the help of a process. */
  get held(): boolean {
    return this.#held.fd >= 0;
  }

  get writable(): boolean {
    return this.#writable;
  }

  /** In bytes, now; undefined where nobody can say. */
  get size(): number | undefined {
    return this.held && identifyFile(this.#held.fd) === 0 ? identity.size : undefined;
  }

  /** Pages of it exist in memory alone (tmpfs, hugetlbfs). */
  inMemory(mapping: Mapping): boolean {
    if (this.held) return this.#inMemory;
    return /^\/(dev\/zero|memfd:|SYSV|dev\/shm\/|anon_hugepage)/.test(mapping.name());
  }

  /** Takes over a descriptor of the file. */
  hold(fd: number, writable: boolean): void {
    if (this.held) closeFile(this.#held.fd);
    this.#held.fd = fd;
    this.#writable = writable;
    this.#inMemory = fileSystemOf(fd).pinnable;
  }

  read(offset: number, into: Uint8Array): void {
    if (this.held && readAt(this.#held.fd, into, offset) === into.length) return;
    const sight = this.#sight(offset, into.length);
    if (sight?.space.readLive(addressIn(sight, offset), into) === true) return;
    if (this.#store === undefined) throw this.#gone(offset);
    this.#store.read(offset, into);
  }

  write(offset: number, bytes: Uint8Array): void {
    forgetReadAhead();
    if (this.readOnly) {
      throw new Errno('EFAULT', `${this.name} was not passed with the right to write it`);
    }
    if (this.held && writeAt(this.#held.fd, bytes, offset) === bytes.length) return;
    const sight = this.#sight(offset, bytes.length);
    if (sight?.space.writeLive(addressIn(sight, offset), bytes) === true) return;
    if (this.#store === undefined) throw this.#gone(offset);
    this.#store.write(offset, bytes);
  }

  /** The last process that shows these pages is about to end. */
  preserve(pages: readonly { readonly page: number; readonly count: number }[]): void {
    const buffer = new Uint8Array(PAGE_BYTES);
    const store = preservePages(this.name, { memory: -1, pagemap: '' }, pages);
    for (const { page, count } of pages) {
      for (let at = page; at < page + count; at++) {
        try {
          this.read(at * PAGE_BYTES, buffer);
        } catch {
          continue; // what nobody shows any more cannot be kept
        }
        store.write(at * PAGE_BYTES, buffer);
      }
    }
    this.#store?.close();
    this.#store = store;
  }

  #sight(offset: number, length: number): MappingSite | undefined {
    for (const sight of this.#allSights()) {
      const { mapping, space } = sight;
      const inFile = mapping.offset + mapping.end - mapping.start;
      if (offset < mapping.offset || offset + length > inFile) continue;
      // It may show something else by now.
      const now = space.mappingAt(Math.floor(addressIn(sight, offset) / PAGE_BYTES));
      if (now?.inode === mapping.inode && now.device === mapping.device) return sight;
    }
    return undefined;
  }

  *#allSights(): Generator<MappingSite> {
    for (const [space, mappings] of this.sights) {
      for (const mapping of mappings.values()) yield { space, mapping };
    }
  }

  /** Notes where a process shows a part of the file. */
  seenIn(space: ClientSpace, mapping: Mapping): void {
    let mappings = this.sights.get(space);
    if (mappings === undefined) {
      mappings = new Map();
      this.sights.set(space, mappings);
    }
    mappings.set(mapping.start, mapping);
  }

  #gone(offset: number): Errno {
    return new Errno(
      'EFAULT',
      `${this.name} has nothing at 0x${offset.toString(16)} that can still be reached`,
    );
  }
}

function addressIn({ mapping }: MappingSite, offset: number): number {
  return mapping.start + (offset - mapping.offset);
}

const keyOf = (device: number, inode: number, readOnly = false): string =>
  `${device}:${inode}${readOnly ? ' read-only' : ''}`;

/** All shared memory of a run. */
export class SharedMemories {
  readonly #byFile = new Map<string, WeakRef<SharedMemory>>();
  readonly #pins: PinnedMemory;
  readonly #spaces = new Set<ClientSpace>();

  /** some program of the run has mapped memory of a device */
  windowsShown = false;
  readonly #isOurs: (device: number, inode: number) => boolean;

  /** @param isOurs the file is one of ours: a mapping of it shows memory of a device, which nobody pins (VM_PFNMAP) */
  constructor(
    pins: PinnedMemory,
    isOurs: (device: number, inode: number) => boolean = () => false,
  ) {
    this.#pins = pins;
    this.#isOurs = isOurs;
  }

  /** Pages that a mapping of `space` shows; EFAULT if they cannot be held for long. */
  locate(
    space: ClientSpace,
    mapping: Mapping,
    { page, count, write }: { page: number; count: number; write: boolean },
  ): PageRun {
    if (this.#isOurs(mapping.device, mapping.inode)) {
      throw new Errno(
        'EFAULT',
        `page at 0x${(page * PAGE_BYTES).toString(16)} is memory of a device (${mapping.name()}): it cannot be pinned`,
      );
    }
    const backing = this.#backing(keyOf(mapping.device, mapping.inode), () => ({
      name: nameOf(mapping.name()),
      unit: mapping.pageSize / PAGE_BYTES,
    }));
    backing.seenIn(space, mapping);
    if (!backing.held || (mapping.writable && !backing.writable)) acquire(backing, space, mapping);
    if (write && !backing.inMemory(mapping)) {
      // FOLL_LONGTERM refuses what the file system writes back (mm/gup.c, writable_file_mapping_allowed).
      throw new Errno(
        'EFAULT',
        `${backing.name} is written back by its file system: it cannot be pinned`,
      );
    }
    const inFile = mapping.offset / PAGE_BYTES + page - mapping.start / PAGE_BYTES;
    if (!hasPage(backing, inFile + count - 1) && !isReadable(space, page + count - 1)) {
      throw new Errno('EFAULT', `the mapping of ${backing.name} goes beyond the end of the file`);
    }
    return { backing, page: inFile, count };
  }

  /**
   * A file that a client passes by fd.
   * @param directory open /proc/TID/fd of the client
   * @param uid the client's file-system user
   */
  file(directory: number, fd: number, uid: number): FileMemory {
    const held = holdLink(String(fd), directory);
    if (held < 0) throw notOpen(fd);
    try {
      const access = heldAccess(held, directory, fd);
      if (access < 0) throw notOpen(fd);
      return this.#heldFile(held, fd, (owner, mode) =>
        owner === uid && (mode & OWNER_READ_WRITE) === OWNER_READ_WRITE ? O_RDWR : access,
      );
    } finally {
      closeFile(held);
    }
  }

  /** @param accessOf with which access mode, by owner and mode of the file */
  #heldFile(
    held: number,
    fd: number,
    accessOf: (owner: number, mode: number) => number,
  ): FileMemory {
    identifyFile(held);
    const { device, inode, mode, uid, size } = identity;
    const access = accessOf(uid, mode);
    const name = `fd ${fd}`;
    if ((mode & S_IFMT) !== S_IFREG || this.#isOurs(device, inode)) {
      return { backing: new SharedMemory({ name, unit: 1 }), size: 0, pinnable: false };
    }
    const { pinnable, unit } = fileSystemOf(held);
    const backing = this.#fileBacking({ device, inode, name, unit }, held, access);
    return {
      backing,
      get size(): number {
        return backing.size ?? size;
      },
      pinnable,
    };
  }

  #fileBacking(file: HeldFile, held: number, access: number): SharedMemory {
    const { device, inode, name, unit } = file;
    const readOnly = access !== O_RDWR;
    const backing = this.#backing(keyOf(device, inode, readOnly), () => ({ name, unit, readOnly }));
    if (backing.held && (readOnly || backing.writable)) return backing;
    const own = reopen(held, access);
    if (own >= 0) {
      backing.hold(own, !readOnly);
      return backing;
    }
    // What somebody else opened for this user to write, who may only read it by name.
    if (!readOnly) return this.#fileBacking(file, held, O_RDONLY);
    throw new Errno('EBADF', `${name} cannot be opened: errno ${-own}`);
  }

  spaceBegan(space: ClientSpace): void {
    this.#spaces.add(space);
  }

  /** Keeps what is pinned and would be lost with `space`. */
  preserve(space: ClientSpace): void {
    for (const [key, backing] of this.#live()) {
      const seen = backing.sights.get(space);
      if (backing.held || seen === undefined) continue;
      const pages = this.#pins.pinnedPages(backing);
      if (pages.length === 0) continue;
      backing.preserve(pages);
      this.#lookElsewhere(key, backing, space);
    }
  }

  // A copy would part from what other processes still map, a parent for one: they show the memory itself from now on.
  #lookElsewhere(key: string, backing: SharedMemory, ending: ClientSpace): void {
    for (const space of this.#spaces) {
      if (space === ending) continue;
      for (const mapping of space.mappings()) {
        if (mapping.shared && keyOf(mapping.device, mapping.inode) === key) {
          backing.seenIn(space, mapping);
        }
      }
    }
  }

  /** Forgets what only `space` showed and nobody has pinned. */
  spaceEnded(space: ClientSpace): void {
    this.#spaces.delete(space);
    for (const [, backing] of this.#live()) {
      if (backing.sights.delete(space) && backing.sights.size === 0) this.#pins.forget(backing);
    }
  }

  #live(): [string, SharedMemory][] {
    return [...this.#byFile].flatMap(([key, ref]) => {
      const backing = ref.deref();
      return backing === undefined ? [] : [[key, backing]];
    });
  }

  #backing(key: string, fresh: () => FileTraits): SharedMemory {
    const known = this.#byFile.get(key)?.deref();
    if (known !== undefined) return known;
    if (this.#byFile.size >= SWEEP_ABOVE) this.#sweep();
    const backing = new SharedMemory(fresh());
    this.#byFile.set(key, new WeakRef(backing));
    return backing;
  }

  #sweep(): void {
    for (const [key, ref] of this.#byFile) {
      const backing = ref.deref();
      if (backing === undefined) this.#byFile.delete(key);
      else if (this.#pins.pinnedPages(backing).length === 0) this.#pins.forget(backing);
    }
  }
}

// CAP_CHECKPOINT_RESTORE, which a process that lacks it does not get later.
let mayOpenMappings = true;

/**
 * Finds a descriptor of a mapped file, of the strength the mapping has: only who has a file open for writing gets a shared
 * mapping that can be written.
 */
function acquire(backing: SharedMemory, space: ClientSpace, mapping: Mapping): void {
  const flags = mapping.writable ? O_RDWR : O_RDONLY;
  const process = `/proc/${space.pid}`;
  if (mayOpenMappings) {
    const range = `${mapping.start.toString(16)}-${mapping.end.toString(16)}`;
    const fd = openSame(`${process}/map_files/${range}`, mapping, flags);
    if (fd >= 0) {
      backing.hold(fd, mapping.writable);
      return;
    }
    mayOpenMappings = fd !== -EPERM;
  }
  // No process has a descriptor of what mmap made without one.
  if (mapping.name().startsWith('/dev/zero')) return;
  let numbers: string[];
  try {
    numbers = readdirSync(`${process}/fd`);
  } catch {
    return;
  }
  const same = (path: string): boolean =>
    identifyPath(path) === 0 &&
    identity.inode === mapping.inode &&
    identity.device === mapping.device;
  const number = numbers.find((name) => same(`${process}/fd/${name}`));
  if (number === undefined) return;
  const own = openSame(`${process}/fd/${number}`, mapping, flags);
  if (own >= 0) backing.hold(own, mapping.writable);
}

/** Whether the file reaches the page, as far as its size can be asked; beyond its end a mapping has no page. */
function hasPage(backing: SharedMemory, inFile: number): boolean {
  const { size } = backing;
  return size !== undefined && inFile * PAGE_BYTES < size;
}

function isReadable(space: ClientSpace, page: number): boolean {
  return space.readLive(page * PAGE_BYTES, new Uint8Array(1));
}

const notOpen = (fd: number): Errno => new Errno('EBADF', `fd ${fd} is not open`);

// struct statfs
const status = allocate(120);

function fileSystemOf(fd: number): { pinnable: boolean; unit: number } {
  if (sys(NR_FSTATFS, fd, status.address) < 0) return { pinnable: false, unit: 1 };
  const type = Number(status.view.getBigUint64(0, true));
  const block = Number(status.view.getBigUint64(8, true));
  if (type === HUGETLBFS_MAGIC) return { pinnable: true, unit: block / PAGE_BYTES };
  return { pinnable: type === TMPFS_MAGIC, unit: 1 };
}

function nameOf(name: string): string {
  if (name.startsWith('/dev/zero')) return 'shared anonymous memory';
  const memfd = /^\/memfd:(.*?)(?: \(deleted\))?$/.exec(name);
  return memfd === null ? name : `memfd:${memfd[1]}`;
}
