/**
 * Who calls: what the engine may know about, and ask of, the program that makes a system call. The supervisor implements
 * these types over a real process, the tests over plain buffers.
 *
 * Words: an address space is what Linux calls an mm; a backing is whatever keeps bytes (the private memory of one address
 * space, the pages of one file, a buffer of ours). A page of memory has one identity, (backing, page number in it), however
 * often and from wherever it is mapped. Copying follows copy_from_user and copy_to_user: EFAULT, never a partial answer.
 */
import type { Start } from './answer-later.ts';
import type { CallRecord } from './trace.ts';

/** A closed set: the capabilities that this part of Linux asks for. */
export type Capability = 'CAP_SYS_ADMIN' | 'CAP_SYS_RAWIO' | 'CAP_SYS_RESOURCE' | 'CAP_IPC_LOCK';

/** Bytes at the addresses of a client. Addresses are untrusted u64 values. */
export type UserMemory = {
  /** Fills `into` from client memory at `address`; EFAULT if any byte cannot be read. */
  copyIn(address: bigint, into: Uint8Array): void;
  /** Nothing but zeros; EFAULT if a byte that cannot be read comes before any other. May be long: up to 4 GiB. */
  isZero(address: bigint, length: number): boolean;
  /** Writes `bytes` to client memory at `address`; EFAULT if any byte cannot be written. */
  copyOut(address: bigint, bytes: Uint8Array): void;
};

/** Something that keeps bytes, addressed from 0. Identity matters: one object for one memory, for as long as it is used. */
export type Backing = {
  /** For people, in reasons: "private memory of process 4711", "memfd:guest-ram". */
  readonly name: string;
  /** Pages that are one physically contiguous piece, a power of two: 1 for ordinary memory, 512 for 2 MiB huge pages. */
  readonly unit: number;
  /** Fills `into` from byte `offset`; EFAULT where the memory has gone. */
  read(offset: number, into: Uint8Array): void;
  /** Writes at byte `offset`; EFAULT where the memory has gone. */
  write(offset: number, bytes: Uint8Array): void;
  /** The bytes live in `home` from now on, which gets them first. Absent: they cannot be moved. */
  moveTo?(home: MemoryHome): void;
  /** Undoes {@link moveTo}: the bytes come from there. */
  moveBack?(): void;
};

/** Bytes from `offset` on. */
export type WrittenPiece = { readonly offset: number; readonly bytes: Uint8Array };

/** Where somebody else keeps the bytes of a backing for a while. */
export type MemoryHome = Pick<Backing, 'read' | 'write'> & {
  /** All that may be other than zero. */
  contents(): Iterable<WrittenPiece>;
};

/**
 * Memory that all opens of a device share, as mappings see it. Identity matters: one object for each device.
 */
export type DeviceMemory = {
  /** For people: "0000:01:00.0". */
  readonly name: string;
  /** A mapping can be touched now; elsewhere that raises SIGBUS. */
  readonly usable: boolean;
};

/** Pages that follow one another in one backing. */
export type PageRun = {
  readonly backing: Backing;
  /** number of the first page within the backing */
  readonly page: number;
  /** in pages, at least 1 */
  readonly count: number;
};

/** One address space (mm). One object for one mm: two tasks that share memory share it, fork and exec make another. */
export type AddressSpace = UserMemory & {
  /** The mm has no user any more: exit of its last process, or exec. */
  readonly exited: boolean;
  /** As far as that is known without a look at the process: true stays true, false has to be asked again. */
  readonly knownExited: boolean;
  /**
   * What lies behind `count` pages from page number `page`, in order and without gaps, as pin_user_pages would take it.
   * EFAULT if any page is not mapped, may not be read, or (with `write`) may not be written, and after exit.
   */
  resolve(page: number, count: number, write: boolean): PageRun[];
  /** Memory of a device may be mapped in it: it can be copied from and to, and not be pinned. */
  readonly mayShowDevices: boolean;
  /** Pages that are pinned on behalf of this mm (mm->pinned_vm, VmPin); kept by pinning/accounting.ts. */
  pinnedPages: number;
  /** Pages that are charged to this mm's limit (mm->locked_vm, VmLck); kept by pinning/accounting.ts. */
  lockedPages: number;
  /** Pages that the process has locked itself (mlock), which count with the others. */
  readonly lockedByItself: number;
};

/** A file of the host that a client passes by number, seen as memory (memfd, shared memory). */
export type FileMemory = {
  readonly backing: Backing;
  /** in bytes; live, a file may be truncated while it is mapped */
  readonly size: number;
  /** only these can be pinned (memfd_pin_folios): memfd, shmem, hugetlbfs */
  readonly pinnable: boolean;
};

/** Where the bytes of a read go. A file copies what it has when it is sure of it, and finds out then if that works. */
export type ReadBuffer = {
  /** in bytes */
  readonly length: number;
  /** Copies to the bytes from `at` on; EFAULT. */
  put(at: number, bytes: Uint8Array): void;
};

/** Where the bytes of a write come from. */
export type WriteBuffer = {
  /** in bytes */
  readonly length: number;
  /** The `count` bytes from `at` on; EFAULT. */
  take(at: number, count: number): Uint8Array;
};

/** The counter behind a client's eventfd, kept for longer than the call that passed the fd. */
export type Signal = {
  /** Adds 1, as eventfd_signal does: cannot fail, a full counter stays full. */
  signal(): void;
  /**
   * Calls `listener` whenever somebody signals it from now on, and takes the count then; once at once, and taking nothing, if the
   * count is not 0. At most one listener at a time. After drivers/vfio/virqfd.c.
   */
  listen(listener: () => void): void;
  /** No longer heard. */
  unlisten(): void;
  /** The last fd of it was closed: nobody can signal it any more. */
  readonly closed: boolean;
  /** Not needed any more. Cannot fail. */
  release(): void;
};

/**
 * An open file of ours, from open to the last close in whatever process. Methods that are missing answer as Linux does
 * for a file without the operation. Refusals are thrown as Errno.
 */
export type OpenFile = {
  /** For people, in traces and reasons: "/dev/iommu", "fault queue". */
  readonly name: string;
  /** What /proc/PID/fd shows for a file that was not opened by a path. */
  readonly link?: string;
  /** What stat and lseek tell of it, in bytes; 0 if absent. */
  readonly size?: number;
  /** Access mode and status flags of a file that was not opened by a path (fcntl, F_GETFL); O_RDWR if absent. */
  readonly flags?: number;
  ioctl?(task: Task, command: number, argument: bigint): number;
  /** @returns number of bytes put into the buffer */
  read?(task: Task, buffer: ReadBuffer, offset: number): number;
  /** @returns number of bytes taken from it */
  write?(task: Task, buffer: WriteBuffer, offset: number): number;
  /** It has positions (FMODE_PREAD and FMODE_PWRITE): without, pread and pwrite answer ESPIPE. */
  readonly positioned?: boolean;
  /** read and write go on where the last one ended, and move the position along; without, they begin at 0 */
  readonly advances?: boolean;
  /** There is something to read now (POLLIN); a file that has `write` can always be written (POLLOUT). */
  readable?(): boolean;
  /** Its O_NONBLOCK counts, and this is what it is at first; without this a stream never waits. */
  readonly nonBlocking?: boolean;
  /**
   * Called by the engine whenever `readable` may have changed; set by whoever installed the file.
   * @param woken something came: who waits for that is told, also where something was there before
   */
  onReadable?: (woken: boolean) => void;
  mmap?(task: Task, request: MmapRequest): MmapGrant;
  /** of the device that it is an open of, where that has regions to map */
  readonly memory?: DeviceMemory | undefined;
  /** Last reference gone. Cannot fail. */
  release(): void;
};

export type MmapRequest = {
  readonly offset: bigint;
  readonly length: bigint;
  readonly shared: boolean;
  readonly write: boolean;
  readonly execute: boolean;
};

/** The memory that a mapping shows, and what to do when the last page of the mapping is gone. */
export type MmapGrant = {
  /**
   * `copied`: pages of this open alone. `memory`: pages of a device, the same for all who map them. `trapped`: registers, each access
   * of which is the device's.
   */
  readonly kind: 'copied' | 'memory' | 'trapped';
  readonly backing: Backing;
  readonly page: number;
  /** The mapping can be touched now; elsewhere that raises SIGBUS. Absent: always. */
  usable?(): boolean;
  release(): void;
};

export type ResourceLimits = {
  /** RLIMIT_MEMLOCK in bytes; Infinity where unlimited */
  readonly memlock: number;
};

/** The calling thread during one call. */
export type Task = {
  readonly pid: number;
  readonly tid: number;
  /** real user, who pays for locked pages */
  readonly uid: number;
  readonly memory: AddressSpace;
  /** of the process; live, and as they last were once it has ended */
  readonly limits: ResourceLimits;
  capable(capability: Capability): boolean;
  /** Our open file behind `fd`; undefined if the file is the host's; EBADF if there is none. */
  file(fd: number): OpenFile | undefined;
  /** The host's file behind `fd` as memory; EBADF if there is none. */
  fileMemory(fd: number): FileMemory;
  /** The eventfd behind `fd`, to be released; EBADF if there is none, EINVAL for a file of another kind. */
  eventfd(fd: number): Signal;
  /** Puts an open file of ours into the client's table and returns its number; EMFILE, and the file is released then. */
  install(file: OpenFile, options: { readonly cloexec: boolean }): number;
  /** The client's table takes no further file: for calls that say so before anything else. */
  readonly tableIsFull: boolean;
  /**
   * Begins an operation whose outcome may come later; last thing that the call does, which returns what this returns.
   * @param why what it would wait for, for people: "unbinding 0000:01:00.0 waits for its last close"
   * @returns the value if the operation ended at once, PENDING otherwise (base/answer-later.ts)
   * @throws Errno its refusal; EAGAIN where nothing more can wait
   */
  answerLater(why: string, start: Start): number;
  /** Where the call describes itself for the trace; absent when nobody looks. */
  readonly record?: CallRecord | undefined;
};
