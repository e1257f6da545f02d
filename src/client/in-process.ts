/**
 * A client in this process: what the engine sees of a program, made of buffers. For tests here and for programs that use the
 * engine as a library (docs/library.md). Its memory is what was put into it by `map` or `allocate`; nothing else can be
 * read. A fork shares the open files and copies the view of memory, so pages of one backing are shared, as with MAP_SHARED.
 *
 * Invariant: an open file is released when the last client that has it closes it.
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, PAGE_BYTES, hex } from '../base/position.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type {
  AddressSpace,
  Backing,
  Capability,
  FileMemory,
  MmapGrant,
  OpenFile,
  PageRun,
  Task,
} from '../base/task.ts';
import { IOMMUFD_IOCTLS } from '../uapi/ioctls.ts';
import { VFIO_IOCTLS } from '../uapi/vfio-ioctls.ts';

type Region = {
  readonly first: number;
  readonly last: number;
  readonly run: PageRun;
  readonly write: boolean;
};

/** A piece of a copy: within one page, `length` bytes from `at`, which are bytes `done` and on of the whole. */
type Piece = {
  readonly page: number;
  readonly at: number;
  readonly done: number;
  readonly length: number;
};

/** Bytes that grow on demand, so that a test can map terabytes. */
export class SparseBacking implements Backing {
  readonly name: string;
  readonly unit: number;
  readonly #pages = new Map<number, Uint8Array>();

  constructor(name: string, unit = 1) {
    this.name = name;
    this.unit = unit;
  }

  read(offset: number, into: Uint8Array): void {
    for (const { page, at, done, length } of pieces(offset, into.length)) {
      const bytes = this.#pages.get(page);
      if (bytes === undefined) into.fill(0, done, done + length);
      else into.set(bytes.subarray(at, at + length), done);
    }
  }

  write(offset: number, from: Uint8Array): void {
    for (const { page, at, done, length } of pieces(offset, from.length)) {
      let bytes = this.#pages.get(page);
      if (bytes === undefined) {
        bytes = new Uint8Array(PAGE_BYTES);
        this.#pages.set(page, bytes);
      }
      bytes.set(from.subarray(done, done + length), at);
    }
  }
}

function pieces(offset: number, length: number): Piece[] {
  const found: Piece[] = [];
  for (let done = 0; done < length;) {
    const at = (offset + done) % PAGE_BYTES;
    const part = Math.min(PAGE_BYTES - at, length - done);
    found.push({ page: Math.floor((offset + done) / PAGE_BYTES), at, done, length: part });
    done += part;
  }
  return found;
}

/** Memory of a client in this process. */
export class BufferMemory implements AddressSpace {
  exited = false;
  pinnedPages = 0;
  lockedPages = 0;
  readonly lockedByItself = 0;
  readonly mayShowDevices = false;
  #regions: Region[] = [];

  /** Puts pages of a backing at an address, page aligned. */
  map(address: bigint, run: PageRun, options: { readonly readOnly?: boolean } = {}): void {
    const first = Number(address / BigInt(PAGE_BYTES));
    const last = first + run.count - 1;
    this.unmap(address, run.count);
    this.#regions.push({ first, last, run, write: options.readOnly !== true });
  }

  /** Takes whole regions away that start in the given pages. */
  unmap(address: bigint, pages: number): void {
    const first = Number(address / BigInt(PAGE_BYTES));
    this.#regions = this.#regions.filter(
      (region) => region.first < first || region.first >= first + pages,
    );
  }

  copyIn(address: bigint, into: Uint8Array): void {
    this.#copy({ address, length: into.length, write: false }, (run, { at, done, length }) => {
      run.backing.read(run.page * PAGE_BYTES + at, into.subarray(done, done + length));
    });
  }

  copyOut(address: bigint, bytes: Uint8Array): void {
    this.#copy({ address, length: bytes.length, write: true }, (run, { at, done, length }) => {
      run.backing.write(run.page * PAGE_BYTES + at, bytes.subarray(done, done + length));
    });
  }

  get knownExited(): boolean {
    return this.exited;
  }

  resolve(page: number, count: number, write: boolean): PageRun[] {
    if (this.exited) throw new Errno('EFAULT', 'the process is gone');
    const runs: PageRun[] = [];
    for (let next = page; next < page + count;) {
      const region = this.#regions.find(({ first, last }) => first <= next && next <= last);
      if (region === undefined || (write && !region.write)) {
        throw new Errno('EFAULT', `page ${hex(next)} is not there, or not writeable`);
      }
      const pages = Math.min(region.last, page + count - 1) - next + 1;
      const { backing } = region.run;
      runs.push({ backing, page: region.run.page + next - region.first, count: pages });
      next += pages;
    }
    return runs;
  }

  /** Another address space that shows the same pages. */
  clone(): BufferMemory {
    const copy = new BufferMemory();
    copy.#regions = [...this.#regions];
    return copy;
  }

  #copy(
    range: { readonly address: bigint; readonly length: number; readonly write: boolean },
    act: (run: PageRun, piece: Piece) => void,
  ): void {
    const { address, length, write } = range;
    if (length === 0) return;
    if (address + BigInt(length) - 1n > MAX_ADDRESS) {
      throw new Errno('EFAULT', `${hex(address)} wraps around`);
    }
    const page = Number(address / BigInt(PAGE_BYTES));
    let at = Number(address % BigInt(PAGE_BYTES));
    let done = 0;
    for (const run of this.resolve(page, Math.ceil((at + length) / PAGE_BYTES), write)) {
      const part = Math.min(run.count * PAGE_BYTES - at, length - done);
      act(run, { page: run.page, at, done, length: part });
      done += part;
      at = 0;
    }
  }
}

export type InProcessClientOptions = {
  readonly pid?: number;
  readonly uid?: number;
  /** RLIMIT_MEMLOCK in bytes; no limit unless given */
  readonly memlockLimit?: number;
  /** RLIMIT_NOFILE */
  readonly fileLimit?: number;
  /** all that there are unless given */
  readonly capabilities?: readonly Capability[];
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
type Description = { readonly file: OpenFile; references: number };
type Entry = Description | { readonly memory: FileMemory };

/** What has device nodes to open: a Kernel. */
export type Opener = { open(path: string, task: Task): OpenFile };

const IOCTLS = { ...IOMMUFD_IOCTLS, ...VFIO_IOCTLS };
export type Ioctls = typeof IOCTLS;
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
  readonly #capabilities: readonly Capability[];
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
    this.memory = memory;
    const backing = new SparseBacking('arguments of a client');
    this.memory.map(ARGUMENTS, { backing, page: 0, count: ARGUMENT_PAGES });
  }

  capable(capability: Capability): boolean {
    return this.#capabilities.includes(capability);
  }

  file(fd: number): OpenFile | undefined {
    const entry = this.#entry(fd);
    return 'file' in entry ? entry.file : undefined;
  }

  fileMemory(fd: number): FileMemory {
    const entry = this.#entry(fd);
    if ('memory' in entry) return entry.memory;
    return { backing: new SparseBacking(entry.file.name), size: 0, pinnable: false };
  }

  get tableIsFull(): boolean {
    return this.#files.size >= this.fileLimit;
  }

  install(file: OpenFile): number {
    if (this.tableIsFull) {
      file.release();
      throw new Errno('EMFILE', `${this.#files.size} files are open (RLIMIT_NOFILE)`);
    }
    const fd = this.#nextFd++;
    this.#files.set(fd, { file, references: 1 });
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
    };
    const child = new InProcessClient(options, this.memory.clone());
    for (const [fd, entry] of this.#files) {
      child.#files.set(fd, entry);
      if ('file' in entry) entry.references++;
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
    return new ClientFile(this, this.install(kernel.open(path, this)));
  }

  /**
   * Makes an ioctl with a struct as argument.
   * @returns the struct as the call left it, and what the call answered; throws Errno
   */
  call<F extends Fields>(
    fd: number,
    ioctl: { readonly number: number; readonly struct: Struct<F> },
    given: Partial<Static<Struct<F>>>,
  ): Static<Struct<F>> & { readonly result: number } {
    const { struct, number } = ioctl;
    const bytes = new Uint8Array(struct.size);
    struct.encode(struct.make(given), bytes);
    this.memory.copyOut(ARGUMENTS, bytes);
    const result = this.ioctl(fd, number, ARGUMENTS);
    this.memory.copyIn(ARGUMENTS, bytes);
    return { ...struct.decode(bytes), result };
  }

  /** Makes an ioctl with any argument; EBADF, ENOTTY, and what it answers. */
  ioctl(fd: number, command: number, argument: bigint): number {
    const file = this.file(fd);
    if (file?.ioctl === undefined) throw new Errno('ENOTTY', `file ${fd} takes no ioctl`);
    return file.ioctl(this, command, argument);
  }

  #entry(fd: number): Entry {
    const entry = this.#files.get(fd);
    if (entry === undefined) throw new Errno('EBADF', `file descriptor ${fd} is not open`);
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
      const answer = this.client.call(this.fd, { number, struct }, given);
      return answer as IoctlStruct<N> & { readonly result: number };
    }
    const value = struct.make(given);
    const [argument = 0n] = Object.values(value);
    const result = this.client.ioctl(this.fd, number, BigInt(argument as number | bigint));
    return { ...value, result } as IoctlStruct<N> & { readonly result: number };
  }

  /** @returns at most `count` bytes; EINVAL for a file that cannot be read */
  read(count: number, offset = 0): Uint8Array {
    const file = this.#file();
    if (file.read === undefined) throw new Errno('EINVAL', `${file.name} cannot be read`);
    if (offset !== 0 && file.positioned !== true) {
      throw new Errno('ESPIPE', `${file.name} cannot be read at an offset`);
    }
    const bytes = new Uint8Array(count);
    const put = (at: number, part: Uint8Array): void => {
      bytes.set(part, at);
    };
    return bytes.slice(0, file.read(this.client, { length: count, put }, offset));
  }

  /** @returns how many bytes were taken; EINVAL for a file that cannot be written */
  write(bytes: Uint8Array, offset = 0): number {
    const file = this.#file();
    if (file.write === undefined) throw new Errno('EINVAL', `${file.name} cannot be written`);
    if (offset !== 0 && file.positioned !== true) {
      throw new Errno('ESPIPE', `${file.name} cannot be written at an offset`);
    }
    const take = (at: number, count: number): Uint8Array => bytes.slice(at, at + count);
    return file.write(this.client, { length: bytes.length, take }, offset);
  }

  /** Whether poll would say POLLIN. */
  get readable(): boolean {
    return this.#file().readable?.() ?? false;
  }

  /** Maps a window of the file, shared and writeable. @returns what it shows; ENODEV, EINVAL, ENXIO */
  mmap(offset: bigint, length: bigint): MmapGrant {
    const file = this.#file();
    if (file.mmap === undefined) throw new Errno('ENODEV', `${file.name} cannot be mapped`);
    const request = { offset, length, shared: true, write: true, execute: false };
    return file.mmap(this.client, request);
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
