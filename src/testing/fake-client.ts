/**
 * A client made of buffers: what the engine sees of a process, for tests in this process and for programs that use the
 * engine as a library. Memory is what was given to it by `map`; nothing else can be read.
 */
import { Errno } from '../base/errno.ts';
import { MAX_ADDRESS, PAGE_BYTES, hex } from '../base/position.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type {
  AddressSpace,
  Backing,
  Capability,
  FileMemory,
  OpenFile,
  PageRun,
  Task,
} from '../base/task.ts';

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

export class FakeAddressSpace implements AddressSpace {
  exited = false;
  pinnedPages = 0;
  lockedPages = 0;
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

export type FakeClientOptions = {
  readonly pid?: number;
  readonly uid?: number;
  readonly memlockLimit?: number;
  readonly capabilities?: readonly Capability[];
};

/** Where a fake client keeps the structs of its calls. */
const ARGUMENTS = 0x7000_0000_0000n;
const ARGUMENT_PAGES = 64;
const ALL: readonly Capability[] = [
  'CAP_SYS_ADMIN',
  'CAP_SYS_RAWIO',
  'CAP_SYS_RESOURCE',
  'CAP_IPC_LOCK',
];

export class FakeClient implements Task {
  readonly pid: number;
  readonly tid: number;
  readonly uid: number;
  readonly memory = new FakeAddressSpace();
  readonly memlockLimit: number;
  readonly files = new Map<number, OpenFile | FileMemory>();
  readonly #capabilities: readonly Capability[];
  #nextFd = 3;

  constructor(options: FakeClientOptions = {}) {
    this.pid = options.pid ?? 1;
    this.tid = this.pid;
    this.uid = options.uid ?? 0;
    this.memlockLimit = options.memlockLimit ?? Infinity;
    this.#capabilities = options.capabilities ?? ALL;
    const backing = new SparseBacking('arguments of a fake client');
    this.memory.map(ARGUMENTS, { backing, page: 0, count: ARGUMENT_PAGES });
  }

  capable(capability: Capability): boolean {
    return this.#capabilities.includes(capability);
  }

  file(fd: number): OpenFile | undefined {
    const file = this.#fileOrBad(fd);
    return 'release' in file ? file : undefined;
  }

  fileMemory(fd: number): FileMemory {
    const file = this.#fileOrBad(fd);
    if (!('release' in file)) return file;
    return { backing: new SparseBacking(file.name), size: 0, pinnable: false };
  }

  install(file: OpenFile): number {
    const fd = this.#nextFd++;
    this.files.set(fd, file);
    return fd;
  }

  /** Gives the client a file of the host, such as a memfd. */
  installMemory(file: FileMemory): number {
    const fd = this.#nextFd++;
    this.files.set(fd, file);
    return fd;
  }

  close(fd: number): void {
    const file = this.#fileOrBad(fd);
    this.files.delete(fd);
    if ('release' in file) file.release();
  }

  /** Closes everything, as exit does. */
  exit(): void {
    for (const fd of [...this.files.keys()]) this.close(fd);
    this.memory.exited = true;
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
    const file = this.file(fd);
    if (file?.ioctl === undefined) throw new Errno('ENOTTY', `file ${fd} takes no ioctl`);
    const result = file.ioctl(this, number, ARGUMENTS);
    this.memory.copyIn(ARGUMENTS, bytes);
    return { ...struct.decode(bytes), result };
  }

  #fileOrBad(fd: number): OpenFile | FileMemory {
    const file = this.files.get(fd);
    if (file === undefined) throw new Errno('EBADF', `file descriptor ${fd} is not open`);
    return file;
  }
}
