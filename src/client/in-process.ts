/**
 * A client in this process: what the engine sees of a program, made of buffers. For tests here and for programs that use the
 * engine as a library (docs/library.md). Its memory is what was put into it by `map` or `allocate`; nothing else can be
 * read. A fork shares the open files and copies the view of memory, so pages of one backing are shared, as with MAP_SHARED.
 *
 * Invariant: an open file is released when the last client that has it closes it.
 */
/* eslint-disable @typescript-eslint/unbound-method -- methods are named as the place where a stack ends, never called so */
import { answerAtOnce, type Start } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES, hex } from '../base/position.ts';
import type { Events } from '../base/events.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type { Capability, FileMemory, MmapGrant, OpenFile, Signal, Task } from '../base/task.ts';
import type { CallEvent, CallRecord } from '../base/trace.ts';
import { IOMMUFD_IOCTLS } from '../uapi/ioctls.ts';
import { VFIO_IOCTLS } from '../uapi/vfio-ioctls.ts';
import { SparseBacking } from '../base/sparse-backing.ts';
import { BufferMemory } from './buffer-memory.ts';
import { Eventfd } from './eventfd.ts';

export type InProcessClientOptions = {
  readonly pid?: number;
  readonly uid?: number;
  /** RLIMIT_MEMLOCK in bytes; no limit unless given */
  readonly memlockLimit?: number;
  /** RLIMIT_NOFILE */
  readonly fileLimit?: number;
  /** all that there are unless given */
  readonly capabilities?: readonly Capability[];
  /** refusals carry the stack of whoever made the call; false for programs that make millions of refused calls */
  readonly stacks?: boolean;
};

/** Where a client keeps the structs of its calls, and where `allocate` begins. */
const ARGUMENTS = 0x7000_0000_0000n;
const ARGUMENT_PAGES = 64;
const ALLOCATIONS = 0x7100_0000_0000n;
const ALL: readonly Capability[] = [
  'CAP_SYS_ADMIN',
  'CAP_SYS_RAWIO',
  'CAP_SYS_RESOURCE',
  'CAP_IPC_LOCK',
];

/** An open file of ours with the number of descriptors, of whatever client, that name it. */
type Description = {
  readonly file: OpenFile;
  /** of the machine that it was opened on */
  readonly events: Events<CallEvents> | undefined;
  references: number;
};
type Entry = Description | { readonly memory: FileMemory } | { readonly eventfd: Eventfd };

/** What can be listened to: `kernel.on('call', …)`. */
export type CallEvents = { readonly call: CallEvent };

/** What has device nodes to open: a Kernel. */
export type Opener = {
  readonly events?: Events<CallEvents>;
  open(path: string, task: Task): OpenFile;
};

/** One call, as an event tells it. */
type Described = {
  readonly syscall: string;
  readonly arguments: readonly string[];
  /** C name, where the client knows it */
  readonly call?: string | undefined;
};

/** A public function, whose caller is where a refusal is shown to come from. */
type Caller = (...args: never[]) => unknown;

export type Ioctls = typeof IOMMUFD_IOCTLS & typeof VFIO_IOCTLS;
const IOCTLS: Ioctls = { ...IOMMUFD_IOCTLS, ...VFIO_IOCTLS };
export type IoctlName = keyof Ioctls;
/** The struct of an ioctl, decoded, under the C names. What is no struct in C has a field too: `extension`, `container`, `name`. */
export type IoctlStruct<N extends IoctlName> = Static<Ioctls[N]['struct']>;

export class InProcessClient implements Task {
  readonly pid: number;
  readonly tid: number;
  readonly uid: number;
  readonly memory: BufferMemory;
  /** a program may change them */
  readonly limits: { memlock: number };
  /** RLIMIT_NOFILE; a program may change it */
  fileLimit: number;
  /** the call under way, while somebody listens */
  record: CallRecord | undefined;
  readonly #stacks: boolean;
  readonly #capabilities: readonly Capability[];
  #events: Events<CallEvents> | undefined;
  readonly #files = new Map<number, Entry>();
  #nextFd = 3;
  #nextAddress = ALLOCATIONS;

  /** @param memory of another client whose memory this one shows; its own unless given */
  constructor(options: InProcessClientOptions = {}, memory = new BufferMemory()) {
    this.pid = options.pid ?? 1;
    this.tid = this.pid;
    this.uid = options.uid ?? 0;
    this.limits = { memlock: options.memlockLimit ?? Infinity };
    this.fileLimit = options.fileLimit ?? Infinity;
    this.#capabilities = options.capabilities ?? ALL;
    this.#stacks = options.stacks ?? true;
    this.memory = memory;
    const backing = new SparseBacking('arguments of a client');
    this.memory.map(ARGUMENTS, { backing, page: 0, count: ARGUMENT_PAGES });
  }

  capable(capability: Capability): boolean {
    return this.#capabilities.includes(capability);
  }

  eventfd(fd: number): Signal {
    const entry = this.#entry(fd);
    if (!('eventfd' in entry)) throw new Errno('EINVAL', `file ${fd} is not an eventfd`);
    return entry.eventfd.signal();
  }

  /** Makes an eventfd. @returns its fd, and the counter to read and write */
  openEventfd(): { readonly fd: number; readonly eventfd: Eventfd } {
    const fd = this.#nextFd++;
    const eventfd = new Eventfd();
    this.#files.set(fd, { eventfd });
    return { fd, eventfd };
  }

  file(fd: number): OpenFile | undefined {
    const entry = this.#entry(fd);
    return 'file' in entry ? entry.file : undefined;
  }

  fileMemory(fd: number): FileMemory {
    const entry = this.#entry(fd);
    if ('memory' in entry) return entry.memory;
    if ('eventfd' in entry) throw new Errno('EINVAL', `file ${fd} is an eventfd`);
    return { backing: new SparseBacking(entry.file.name), size: 0, pinnable: false };
  }

  get tableIsFull(): boolean {
    return this.#files.size >= this.fileLimit;
  }

  answerLater(why: string, start: Start): number {
    return answerAtOnce(why, start);
  }

  install(file: OpenFile): number {
    if (this.tableIsFull) {
      file.release();
      throw new Errno('EMFILE', `${this.#files.size} files are open (RLIMIT_NOFILE)`);
    }
    const fd = this.#nextFd++;
    this.#files.set(fd, { file, events: this.#events, references: 1 });
    return fd;
  }

  /** Gives the client a file of the host, such as a memfd. @returns its file descriptor */
  installMemory(memory: FileMemory): number {
    const fd = this.#nextFd++;
    this.#files.set(fd, { memory });
    return fd;
  }

  /** File descriptors that are open, ascending. */
  get descriptors(): number[] {
    return [...this.#files.keys()].sort((a, b) => a - b);
  }

  close(fd: number): void {
    const entry = this.#entry(fd);
    this.#files.delete(fd);
    if ('eventfd' in entry) entry.eventfd.put();
    if (!('file' in entry)) return;
    entry.references--;
    if (entry.references === 0) entry.file.release();
  }

  /** Closes everything, as exit does. */
  exit(): void {
    for (const fd of this.descriptors) this.close(fd);
    this.memory.exited = true;
  }

  /** Another process with the same open files and a copy of the view of memory. */
  fork(pid: number): InProcessClient {
    const { uid, limits, fileLimit } = this;
    const options = {
      pid,
      uid,
      memlockLimit: limits.memlock,
      fileLimit,
      capabilities: this.#capabilities,
      stacks: this.#stacks,
    };
    const child = new InProcessClient(options, this.memory.clone());
    for (const [fd, entry] of this.#files) {
      child.#files.set(fd, entry);
      if ('file' in entry) entry.references++;
      if ('eventfd' in entry) entry.eventfd.get();
    }
    child.#nextFd = this.#nextFd;
    child.#nextAddress = this.#nextAddress;
    return child;
  }

  /**
   * Gives the client zeroed memory of its own.
   * @param pages how many, of 4 KiB
   * @returns its address
   */
  allocate(pages: number, options: { readonly readOnly?: boolean } = {}): bigint {
    const address = this.#nextAddress;
    const backing = new SparseBacking(`memory of process ${this.pid} at ${hex(address)}`);
    this.memory.map(address, { backing, page: 0, count: pages }, options);
    // A page that is not there, so that running over the end is noticed.
    this.#nextAddress += BigInt(pages + 1) * BigInt(PAGE_BYTES);
    return address;
  }

  /** `length` bytes at `address`; EFAULT. */
  read(address: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.memory.copyIn(address, bytes);
    return bytes;
  }

  /** Puts bytes at `address`; EFAULT. */
  write(address: bigint, bytes: Uint8Array): void {
    this.memory.copyOut(address, bytes);
  }

  /** Opens a device node of a machine; ENOENT. */
  open(kernel: Opener, path: string): ClientFile {
    const described = { syscall: 'openat', arguments: ['AT_FDCWD', JSON.stringify(path)] };
    const open = (): number => this.install(kernel.open(path, this));
    return new ClientFile(this, this.perform(kernel.events, described, open, this.open));
  }

  /**
   * Makes one call: tells it to listeners, and gives a refusal the name of the call and the stack of its maker.
   * @param caller the public function that a program called
   */
  perform(
    events: Events<CallEvents> | undefined,
    described: Described,
    act: () => number,
    caller: Caller,
  ): number {
    const listened = events?.wanted('call') === true;
    this.#events = events;
    this.record = listened ? {} : undefined;
    try {
      const result = act();
      if (listened) this.#tell(events, described, { result });
      return result;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      const { code, reason } = error;
      if (listened) this.#tell(events, described, { result: -1, error: code, reason });
      if (this.#stacks) error.attributeTo(this.record?.call ?? described.call, caller);
      throw error;
    } finally {
      this.record = undefined;
      this.#events = undefined;
    }
  }

  #tell(
    events: Events<CallEvents> | undefined,
    { syscall, arguments: args }: Described,
    outcome: Pick<CallEvent, 'result' | 'error' | 'reason'>,
  ): void {
    const { pid, tid } = this;
    events?.emit('call', { ...this.record, pid, tid, syscall, arguments: args, ...outcome });
  }

  /**
   * Makes an ioctl with a struct as argument.
   * @returns the struct as the call left it, and what the call answered; throws Errno
   */
  call<F extends Fields>(
    fd: number,
    ioctl: { readonly number: number; readonly struct: Struct<F>; readonly name?: string },
    given: Partial<Static<Struct<F>>>,
    caller: Caller = this.call,
  ): Static<Struct<F>> & { readonly result: number } {
    const { struct, number, name } = ioctl;
    const bytes = new Uint8Array(struct.size);
    struct.encode(struct.make(given), bytes);
    this.memory.copyOut(ARGUMENTS, bytes);
    const result = this.ioctl(fd, number, ARGUMENTS, { call: name, caller });
    this.memory.copyIn(ARGUMENTS, bytes);
    return { ...struct.decode(bytes), result };
  }

  /** Makes an ioctl with any argument; EBADF, ENOTTY, and what it answers. */
  ioctl(
    fd: number,
    command: number,
    argument: bigint,
    {
      call,
      caller = this.ioctl,
    }: { readonly call?: string | undefined; readonly caller?: Caller } = {},
  ): number {
    const described = { syscall: 'ioctl', arguments: [this.#shown(fd)], call };
    const act = (): number => {
      const file = this.file(fd);
      if (file?.ioctl === undefined) throw new Errno('ENOTTY', `fd ${fd} takes no ioctl`);
      return file.ioctl(this, command, argument);
    };
    return this.perform(this.eventsOf(fd), described, act, caller);
  }

  /** The listeners of the machine behind a fd. */
  eventsOf(fd: number): Events<CallEvents> | undefined {
    const entry = this.#files.get(fd);
    return entry !== undefined && 'file' in entry ? entry.events : undefined;
  }

  // As in the trace of `uiommu run`.
  #shown(fd: number): string {
    const entry = this.#files.get(fd);
    return entry !== undefined && 'file' in entry ? `${fd}<${entry.file.name}>` : String(fd);
  }

  #entry(fd: number): Entry {
    const entry = this.#files.get(fd);
    if (entry === undefined) throw new Errno('EBADF', `fd ${fd} is not open`);
    return entry;
  }
}

/** A file that a client has open, with its calls by name. */
export class ClientFile {
  readonly client: InProcessClient;
  readonly fd: number;

  constructor(client: InProcessClient, fd: number) {
    this.client = client;
    this.fd = fd;
  }

  /**
   * Makes an ioctl of /dev/iommu or VFIO.
   * @param name its C name
   * @param given fields that are not 0, under their C names; `size` and `argsz` are filled in
   * @returns the struct as the call left it, and as `result` what the call answered; throws Errno
   */
  ioctl<N extends IoctlName>(
    name: N,
    given: Partial<IoctlStruct<N>> = {},
  ): IoctlStruct<N> & { readonly result: number } {
    const row = IOCTLS[name];
    const { number } = row;
    // One row of the table: its struct is the one that the name stands for.
    const struct = row.struct as Struct;
    if (!('argument' in row) || row.argument === 'address') {
      const answer = this.client.call(this.fd, { name, number, struct }, given, this.ioctl);
      return answer as IoctlStruct<N> & { readonly result: number };
    }
    const value = struct.make(given);
    const [argument = 0n] = Object.values(value);
    const made = { call: name, caller: this.ioctl };
    const result = this.client.ioctl(this.fd, number, BigInt(argument as number | bigint), made);
    return { ...value, result } as IoctlStruct<N> & { readonly result: number };
  }

  /** @returns at most `count` bytes; EINVAL for a file that cannot be read */
  read(count: number, offset = 0): Uint8Array {
    const bytes = new Uint8Array(count);
    const put = (at: number, part: Uint8Array): void => {
      bytes.set(part, at);
    };
    const act = (file: OpenFile): number => {
      if (file.read === undefined) throw new Errno('EINVAL', `${file.name} cannot be read`);
      refuseOffset(file, offset);
      return file.read(this.client, { length: count, put }, offset);
    };
    return bytes.slice(0, this.#perform('read', act, this.read));
  }

  /** @returns how many bytes were taken; EINVAL for a file that cannot be written */
  write(bytes: Uint8Array, offset = 0): number {
    const take = (at: number, count: number): Uint8Array => bytes.slice(at, at + count);
    const act = (file: OpenFile): number => {
      if (file.write === undefined) throw new Errno('EINVAL', `${file.name} cannot be written`);
      refuseOffset(file, offset);
      return file.write(this.client, { length: bytes.length, take }, offset);
    };
    return this.#perform('write', act, this.write);
  }

  /** Whether poll would say POLLIN. */
  get readable(): boolean {
    return this.#file().readable?.() ?? false;
  }

  /** Maps a window of the file, shared and writeable. @returns what it shows; ENODEV, EINVAL, ENXIO */
  mmap(offset: bigint, length: bigint): MmapGrant {
    let grant: MmapGrant | undefined;
    const act = (file: OpenFile): number => {
      if (file.mmap === undefined) throw new Errno('ENODEV', `${file.name} cannot be mapped`);
      const request = { offset, length, shared: true, write: true, execute: false };
      grant = file.mmap(this.client, request);
      return 0;
    };
    this.#perform('mmap', act, this.mmap);
    if (grant === undefined) throw new Error(`a mapping of fd ${this.fd} came without its memory`);
    return grant;
  }

  #perform(syscall: string, act: (file: OpenFile) => number, caller: Caller): number {
    const { client, fd } = this;
    const file = this.#file();
    const described = { syscall, arguments: [`${fd}<${file.name}>`], call: syscall };
    return client.perform(client.eventsOf(fd), described, () => act(file), caller);
  }

  close(): void {
    this.client.close(this.fd);
  }

  #file(): OpenFile {
    const file = this.client.file(this.fd);
    if (file === undefined) throw new Error(`file ${this.fd} is a file of the host`);
    return file;
  }
}

function refuseOffset(file: OpenFile, offset: number): void {
  if (offset !== 0 && file.positioned !== true) {
    throw new Errno('ESPIPE', `${file.name} has no positions (offset ${offset})`);
  }
}
