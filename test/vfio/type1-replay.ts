/**
 * Replays the recorded output of `type1fuzz` in this process: every line says an operation with its arguments and what Linux answered;
 * the operation is made again on uiommu's machine and described in the same words. DMA is edu's, by its registers.
 *
 * A line does not say where in edu's buffer a transfer went; any place gives the same memory. Addresses of memory are those of
 * the program: A private, B and C two views of the same, R read-only, H nothing.
 */
import { Errno, ERRNO } from '../../src/base/errno.ts';
import { SparseBacking } from '../../src/base/sparse-backing.ts';
import { InProcessClient } from '../../src/client/in-process.ts';
import { pciSystem } from '../../src/kernel/system.ts';
import { parseDump } from '../../src/machine/file/recording.ts';
import { IOMMU_IOAS_ALLOC, IOMMU_VFIO_IOAS } from '../../src/uapi/iommufd.ts';
import * as uapi from '../../src/uapi/vfio.ts';

const PAGE = 4096;
const A_BYTES = 0x10_0000;
const B_BYTES = 0x4_0000;
const R_BYTES = 0x1_0000;
const BASES = {
  A: 0x2000_0000_0000n,
  B: 0x2100_0000_0000n,
  C: 0x2200_0000_0000n,
  R: 0x2300_0000_0000n,
  H: 0x2400_0000_0000n,
} as const;
const SCRATCH_PAGES = 2;
const CONFIG_COMMAND = 7 * 2 ** 40 + 4;
const EDU_BUFFER = 0x4_0000n;
const MASK = 2n ** 64n - 1n;

/** Makes an operation: the words before the answer, all of them, the answer, the line. @returns the line as it is here */
type Act = (words: string[], before: string, answer: string, text: string) => string;

type Open = { readonly fd: number; readonly device: string };

/** Memory that knows which of its pages were written since it was last asked. */
class WatchedMemory extends SparseBacking {
  readonly #written = new Set<number>();

  override write(offset: number, bytes: Uint8Array): void {
    super.write(offset, bytes);
    const last = Math.floor((offset + bytes.length - 1) / PAGE);
    for (let page = Math.floor(offset / PAGE); page <= last; page++) this.#written.add(page);
  }

  written(): number[] {
    const pages = [...this.#written].sort((a, b) => a - b);
    this.#written.clear();
    return pages;
  }
}

export class Type1Replay {
  /** why the last call was refused */
  reason = '';
  readonly #system;
  readonly #client = new InProcessClient();
  readonly #memory = {
    A: new WatchedMemory('A'),
    B: new WatchedMemory('B'),
    R: new WatchedMemory('R'),
  };
  readonly #argument: bigint;
  readonly #bitmap: bigint;
  readonly #devices: readonly string[];
  #contexts = new Map<string, number>();
  #groups = new Map<string, number>();
  #opens = new Map<string, Open>();
  readonly #hashes = new Map<string, number>();

  constructor(machine: string, name: string) {
    this.#system = pciSystem(parseDump(machine, name));
    const { core } = this.#system.pci;
    this.#devices = core.devices.map((device) => device.name).sort();
    const show = (base: bigint, backing: SparseBacking, bytes: number, readOnly = false): void => {
      this.#client.memory.map(base, { backing, page: 0, count: bytes / PAGE }, { readOnly });
    };
    show(BASES.A, this.#memory.A, A_BYTES);
    show(BASES.B, this.#memory.B, B_BYTES);
    show(BASES.C, this.#memory.B, B_BYTES);
    show(BASES.R, this.#memory.R, R_BYTES, true);
    this.#argument = this.#client.allocate(1);
    this.#bitmap = this.#client.allocate(SCRATCH_PAGES);
  }

  /** Begins a program: everything closed, endpoints bound to vfio-pci, memory filled from the seed. */
  begin(seed: number): void {
    for (const fd of this.#client.descriptors.reverse()) this.#client.close(fd);
    this.#contexts = new Map();
    this.#groups = new Map();
    this.#opens = new Map();
    for (const name of this.#devices) this.#bind(name);
    let x = (firstWord(seed) | 1) >>> 0;
    for (const [backing, bytes] of [
      [this.#memory.A, A_BYTES],
      [this.#memory.B, B_BYTES],
      [this.#memory.R, R_BYTES],
    ] as const) {
      const words = new Uint32Array(bytes / 4);
      for (let i = 0; i < words.length; i++) {
        words[i] = x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
      }
      backing.write(0, new Uint8Array(words.buffer));
    }
    this.#changes();
  }

  #bind(name: string): void {
    const { core } = this.#system.pci;
    const device = core.device(name);
    const isEndpoint = device !== undefined && device.identity.class >> 16 !== 6;
    if (!isEndpoint || device.iommu.group === undefined || device.driver?.name === 'vfio-pci') {
      return;
    }
    core.setOverride(device, 'vfio-pci');
    if (device.driver !== undefined) core.unbind(device.driver.name, name, () => undefined);
    core.bind('vfio-pci', name, (error) => {
      if (error !== undefined) throw error;
    });
  }

  /** Makes the operation of a line. @returns the line as it is here */
  line(text: string): string {
    this.reason = '';
    const [before = '', answer = ''] = text.split(' -> ');
    const words = before.split(' ');
    const [operation = ''] = words;
    const act = this.#operations.get(operation);
    if (act === undefined) throw new Error(`no operation "${operation}": ${text}`);
    return act(words, before, answer, text);
  }

  readonly #operations = new Map<string, Act>([
    [
      'open',
      (_words, before, answer) => {
        const { vfio, iommufd } = this.#system;
        const file = answer.startsWith('k') ? vfio.openContainer() : iommufd.open(this.#client);
        this.#contexts.set(answer, this.#client.install(file));
        return `${before} -> ${answer}`;
      },
    ],
    [
      'open_group',
      (words, before, answer) => {
        const group = this.#system.vfio.group((words[1] ?? '').slice(1));
        const fd = this.#try(() => {
          if (group === undefined) throw new Errno('ENOENT', 'there is no such node');
          return this.#client.install(this.#system.vfio.openGroup(group, this.#client));
        });
        if (fd < 0) return `${before} -> E${-fd}`;
        this.#groups.set(answer, fd);
        return `${before} -> ${answer.startsWith('f') ? answer : 'opened'}`;
      },
    ],
    [
      'set_container',
      (words, before) => {
        this.#put32(0, this.#context(words[2]));
        const fd = this.#group(words[1]);
        return `${before}${ended(this.#ioctl(fd, uapi.VFIO_GROUP_SET_CONTAINER))}`;
      },
    ],
    [
      'unset_container',
      (words, before) =>
        `${before}${ended(this.#ioctl(this.#group(words[1]), uapi.VFIO_GROUP_UNSET_CONTAINER))}`,
    ],
    [
      'status',
      (words, before) => {
        this.#put(8, { 0: 8 });
        const result = this.#ioctl(this.#group(words[1]), uapi.VFIO_GROUP_GET_STATUS);
        if (result < 0) return `${before}${ended(result)}`;
        return `${before} -> flags=${this.#view(8).getUint32(4, true).toString(16)}`;
      },
    ],
    ['set_iommu', (words, before) => `${before}${ended(this.#value(words, uapi.VFIO_SET_IOMMU))}`],
    [
      'check',
      (words, before) => `${before}${counted(this.#value(words, uapi.VFIO_CHECK_EXTENSION))}`,
    ],
    [
      'api',
      (words, before) => `${before}${counted(this.#value(words, uapi.VFIO_GET_API_VERSION))}`,
    ],
    [
      'other',
      (words, before) => {
        this.#put(64, { 0: 64 });
        const number = 0x3b00 | parseInt(words[2] ?? '', 16);
        const result = this.#ioctl(this.#context(words[1]), number);
        return `${before}${ended(Math.min(result, 0))}`;
      },
    ],
    ['get_device', (words, before, answer, text) => this.#getDevice(words, before, answer, text)],
    [
      'close',
      (words, before) => {
        const name = (words[1] ?? '').replace(/\(.*/, '');
        const group = this.#groups.get(name);
        this.#client.close(group ?? this.#open(name).fd);
        const moved = /, (\w+) is now (\w+)$/.exec(before);
        if (group === undefined) rename(this.#opens, name, moved?.[1]);
        else rename(this.#groups, name, moved?.[1]);
        return before;
      },
    ],
    [
      'command',
      (words, before) => {
        const value = BigInt(`0x${words[2] ?? '0'}`);
        return `${before} -> ${this.#write(this.#open(words[1]), CONFIG_COMMAND, value, 2)}`;
      },
    ],
    ['info', (words, before) => this.#info(words, before)],
    ['map', (words, before) => this.#map(words, before)],
    ['unmap', (words, before, _answer, text) => this.#unmap(words, before, text)],
    ['dirty', (words, before) => this.#dirty(words, before)],
    [
      'ioas',
      (words, before) => {
        this.#put(12, { 0: 12 });
        const result = this.#ioctl(this.#context(words[1]), IOMMU_IOAS_ALLOC);
        return `${before}${this.#idAt(result, 8)}`;
      },
    ],
    [
      'vfio_ioas',
      (words, before) => {
        const view = this.#put(12, { 0: 12, 4: Number(field(words, 'id')) });
        view.setUint16(8, Number(field(words, 'op')), true);
        this.#store(view);
        const result = this.#ioctl(this.#context(words[1]), IOMMU_VFIO_IOAS);
        return `${before}${this.#idAt(result, 4)}`;
      },
    ],
    ['dma', (words, _before, _answer, text) => this.#dma(words, text)],
    [
      'memory',
      () => {
        const { A, B } = this.#memory;
        return `memory ${hash(bytesOf(A, 0, A_BYTES))} ${hash(bytesOf(B, 0, B_BYTES))}`;
      },
    ],
  ]);

  #getDevice(words: string[], before: string, answer: string, text: string): string {
    const device = this.#devices[Number((words[2] ?? '').slice(1))] ?? '';
    this.#client.write(this.#argument, new TextEncoder().encode(`${device}\0`));
    const fd = this.#ioctl(this.#group(words[1]), uapi.VFIO_GROUP_GET_DEVICE_FD);
    if (fd < 0) return `${before} -> E${-fd}`;
    const [name = ''] = answer.split(' ');
    const open = { fd, device };
    this.#opens.set(name, open);
    const line = `${before} -> ${name.startsWith('v') ? name : 'opened'}`;
    const identity = this.#system.pci.core.device(device)?.identity;
    if (identity?.vendor !== 0x1234 || identity.device !== 0x11e8) return line;
    // A mapping of BAR 0 needs a supervisor; in process all registers go by offset.
    const mapped = text.endsWith(' mmap') ? ' mmap' : '';
    return `${line} command -> ${this.#write(open, CONFIG_COMMAND, 6n, 2)}${mapped}`;
  }

  #info(words: string[], before: string): string {
    const argsz = Number(field(words, 'argsz'));
    this.#put(512, { 0: argsz });
    const result = this.#ioctl(this.#context(words[1]), uapi.VFIO_IOMMU_GET_INFO);
    if (result < 0) return `${before}${ended(result)}`;
    const view = this.#view(512);
    const info = uapi.vfio_iommu_type1_info.decode(view);
    const chain = argsz >= 20 ? info.cap_offset : 0;
    const sizes = `flags=${info.flags.toString(16)} pgsizes=${info.iova_pgsizes.toString(16)}`;
    let line = `${before} -> argsz=${info.argsz} ${sizes} cap=${chain}`;
    for (let at = chain; at !== 0;) {
      const { id, version, next } = uapi.vfio_info_cap_header.decode(view, at);
      line += ` cap${id}.${version}@${at}>${next}${capability(view, id, at)}`;
      at = next;
    }
    return line;
  }

  #map(words: string[], before: string): string {
    const [iova = 0n, size = 0n] = range(words[2]);
    const struct = uapi.vfio_iommu_type1_dma_map;
    const argsz = Number(field(words, 'argsz') ?? struct.size);
    const flags = parseInt(field(words, 'flags') ?? '0', 16);
    const bytes = new Uint8Array(struct.size);
    struct.encode({ argsz, flags, vaddr: address(words[3]), iova, size }, bytes);
    this.#client.write(this.#argument, bytes);
    const result = this.#ioctl(this.#context(words[1]), uapi.VFIO_IOMMU_MAP_DMA);
    return `${before}${ended(result)}`;
  }

  #unmap(words: string[], before: string, text: string): string {
    const [iova = 0n, size = 0n] = range(words[2]);
    const struct = uapi.vfio_iommu_type1_dma_unmap;
    const flags = parseInt(field(words, 'flags') ?? '0', 16);
    const argsz = Number(field(words, 'argsz') ?? struct.size);
    const bytes = new Uint8Array(struct.size + uapi.vfio_bitmap.size);
    struct.encode(struct.make({ argsz, flags, iova, size }), bytes);
    this.#bitmapInto(words, bytes, struct.size);
    this.#client.write(this.#argument, bytes);
    const result = this.#ioctl(this.#context(words[1]), uapi.VFIO_IOMMU_UNMAP_DMA);
    const out = this.#view(32).getBigUint64(struct.offsetOf('size'), true);
    const bits = result >= 0 && (flags & 1) !== 0 && text.includes('bits=') ? this.#bits() : '';
    return `${before}${ended(result)} size=${out.toString(16)}${bits}`;
  }

  #dirty(words: string[], before: string): string {
    const head = uapi.vfio_iommu_type1_dirty_bitmap;
    const get = uapi.vfio_iommu_type1_dirty_bitmap_get;
    const flags = parseInt(field(words, 'flags') ?? '0', 16);
    const bytes = new Uint8Array(head.size + get.size);
    head.encode(head.make({ argsz: Number(field(words, 'argsz')), flags }), bytes);
    const [iova = 0n, size = 0n] = range(words[4]);
    get.encode({ iova, size, bitmap: { pgsize: 0n, size: 0n, data: 0n } }, bytes, head.size);
    this.#bitmapInto(words, bytes, head.size + get.offsetOf('bitmap'));
    this.#client.write(this.#argument, bytes);
    const result = this.#ioctl(this.#context(words[1]), uapi.VFIO_IOMMU_DIRTY_PAGES);
    const bits = result >= 0 && (flags & 4) !== 0 ? this.#bits() : '';
    return `${before}${ended(result)}${bits}`;
  }

  #bitmapInto(words: string[], bytes: Uint8Array, at: number): void {
    this.#client.write(this.#bitmap, new Uint8Array(SCRATCH_PAGES * PAGE));
    const [pgsize, size] = (field(words, 'bitmap') ?? '').split('/');
    if (pgsize === undefined || size === undefined) return;
    const data = this.#bitmap;
    const bitmap = { pgsize: BigInt(`0x${pgsize}`), size: BigInt(`0x${size}`), data };
    uapi.vfio_bitmap.encode(bitmap, bytes, at);
  }

  #bits(): string {
    const bytes = this.#client.read(this.#bitmap, 64);
    const set = [...bytes.keys()].flatMap((byte) =>
      [0, 1, 2, 3, 4, 5, 6, 7]
        .filter((bit) => ((bytes[byte] ?? 0) >> bit) & 1)
        .map((bit) => byte * 8 + bit),
    );
    const shown = Array.from(bytes.subarray(0, 8), (byte) => byte.toString(16).padStart(2, '0'));
    return ` bits=${set.length} last=${set.at(-1) ?? -1} ${shown.join('')}`;
  }

  #dma(words: string[], text: string): string {
    const open = this.#open((words[1] ?? '').replace(/\(.*/, ''));
    // A transfer that stopped at a register says so in place of its range; the recording tells which mode that was.
    const parts = /^dma \S+ in(?: -> E\d+| (\w+)\+(\w+)) out(?: -> E\d+| (\w+)\+(\w+)) ->/.exec(
      text,
    );
    if (parts?.[1] === undefined || parts[3] === undefined) return this.#stopped(open, text);
    const length = BigInt(`0x${parts[2] ?? '0'}`);
    this.#copy(open, { source: BigInt(`0x${parts[1]}`), destination: EDU_BUFFER, length }, 1n);
    this.#copy(open, { source: EDU_BUFFER, destination: BigInt(`0x${parts[3]}`), length }, 3n);
    const faults = this.#system.dmaFaults.last.slice(-3);
    this.reason = faults.map((fault) => fault.text).join('; ');
    return `${text.slice(0, text.lastIndexOf(' ->'))} ->${this.#changes()}`;
  }

  /** Registers that cannot be reached: memory decode is off, or the device is gone. */
  #stopped(open: Open, text: string): string {
    const outcome = this.#write(open, 0x80, 0n, 8);
    const code = /-> E(\d+)/.exec(text)?.[1] ?? '';
    // Through a mapping it is a signal, 1000 and its number; SIGBUS is 7.
    const seen = outcome < 0 && code === '1007' ? 1007 : -outcome;
    return text.replace(/E\d+/g, `E${seen}`);
  }

  #copy(
    open: Open,
    transfer: { readonly source: bigint; readonly destination: bigint; readonly length: bigint },
    command: bigint,
  ): void {
    this.#write(open, 0x80, transfer.source, 8);
    this.#write(open, 0x88, transfer.destination, 8);
    this.#write(open, 0x90, transfer.length, 8);
    this.#write(open, 0x98, command, 8);
  }

  /** Pages that have other contents than when they were last looked at. */
  #changes(): string {
    const { A, B } = this.#memory;
    return [['A', A] as const, ['B', B] as const]
      .flatMap(([name, memory]) =>
        memory.written().map((page) => {
          const key = `${name}[${page.toString(16)}]`;
          const now = hashOf(bytesOf(memory, page * PAGE, PAGE));
          if (this.#hashes.get(key) === now) return '';
          this.#hashes.set(key, now);
          return ` ${key}=${shown(now)}`;
        }),
      )
      .join('');
  }

  #write(open: Open, offset: number, value: bigint, count: number): number {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    const file = this.#client.file(open.fd);
    const take = (at: number, length: number): Uint8Array => bytes.slice(at, at + length);
    return this.#try(() => file?.write?.(this.#client, { length: count, take }, offset) ?? 0);
  }

  #value(words: string[], command: number): number {
    const value = BigInt(words[2] ?? '0');
    return this.#try(() => this.#client.ioctl(this.#context(words[1]), command, value));
  }

  #ioctl(fd: number, command: number): number {
    return this.#try(() => this.#client.ioctl(fd, command, this.#argument));
  }

  /** @returns what the call answers, or minus the errno */
  #try(act: () => number): number {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.reason = error.message;
      return -ERRNO[error.code];
    }
  }

  #context(name = ''): number {
    return known(this.#contexts, name);
  }

  #group(name = ''): number {
    return known(this.#groups, name.replace(/\(.*/, ''));
  }

  #open(name = ''): Open {
    return known(this.#opens, name);
  }

  #put(bytes: number, words: Readonly<Record<number, number>>): DataView {
    const view = new DataView(new ArrayBuffer(bytes));
    for (const [at, value] of Object.entries(words)) view.setUint32(Number(at), value, true);
    this.#store(view);
    return view;
  }

  #put32(at: number, value: number): void {
    this.#put(4, { [at]: value });
  }

  #store({ buffer }: DataView): void {
    this.#client.write(this.#argument, new Uint8Array(buffer as ArrayBuffer));
  }

  #view(bytes: number): DataView {
    return new DataView(this.#client.read(this.#argument, bytes).buffer);
  }

  #idAt(result: number, at: number): string {
    return result < 0 ? ended(result) : ` -> id=${this.#view(12).getUint32(at, true)}`;
  }
}

function known<T>(names: ReadonlyMap<string, T>, name: string): T {
  const found = names.get(name);
  if (found === undefined) throw new Error(`"${name}" is not open`);
  return found;
}

/** The last name takes the place of the one that went. */
function rename<T>(names: Map<string, T>, gone: string, last: string | undefined): void {
  const moved = last === undefined ? undefined : names.get(last);
  names.delete(gone);
  if (last === undefined || moved === undefined) return;
  names.delete(last);
  names.set(gone, moved);
}

function ended(result: number): string {
  return result < 0 ? ` -> E${-result}` : ' -> ok';
}

function counted(result: number): string {
  return result < 0 ? ` -> E${-result}` : ` -> ${result}`;
}

function field(words: readonly string[], name: string): string | undefined {
  return words.find((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);
}

/** "1000+4000" */
function range(word = ''): bigint[] {
  return word.split('+').map((part) => (part === '' ? 0n : BigInt(`0x${part}`)));
}

/** "A+1000", or an address in none of the program's memory */
function address(word = ''): bigint {
  const [base = '', offset] = word.split('+');
  if (offset === undefined) return BigInt(`0x${base}`);
  return BASES[base as keyof typeof BASES] + BigInt(`0x${offset}`);
}

function capability(view: DataView, id: number, at: number): string {
  switch (id) {
    case uapi.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: {
      const count = view.getUint32(at + 8, true);
      const ranges = Array.from({ length: count }, (_, i) =>
        uapi.vfio_iova_range.decode(view, at + 16 + 16 * i),
      );
      const texts = ranges.map(({ start, end }) => ` ${start.toString(16)}-${end.toString(16)}`);
      return ` n=${count}${texts.join('')}`;
    }
    case uapi.VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION: {
      const cap = uapi.vfio_iommu_type1_info_cap_migration.decode(view, at);
      const sizes = `pgsizes=${cap.pgsize_bitmap.toString(16)}`;
      return ` flags=${cap.flags.toString(16)} ${sizes} max=${cap.max_dirty_bitmap_size.toString(16)}`;
    }
    default:
      return ` avail=${uapi.vfio_iommu_type1_info_dma_avail.decode(view, at).avail}`;
  }
}

function bytesOf(backing: SparseBacking, offset: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  backing.read(offset, bytes);
  return bytes;
}

/** FNV-1a over words, as the program hashes pages. */
function hashOf({ buffer }: Uint8Array): number {
  let value = 2_166_136_261;
  for (const word of new Uint32Array(buffer)) value = Math.imul(value ^ word, 16_777_619);
  return value >>> 0;
}

const shown = (value: number): string => value.toString(16).padStart(8, '0');
const hash = (bytes: Uint8Array): string => shown(hashOf(bytes));

/** The first number that the program draws (splitmix64), cut to 32 bits: what it fills memory from. */
function firstWord(seed: number): number {
  const state = (BigInt(seed) * 0x2545_f491_4f6c_dd1dn + 13n + 0x9e37_79b9_7f4a_7c15n) & MASK;
  let z = ((state ^ (state >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK;
  return Number((z ^ (z >> 31n)) & 0xffff_ffffn);
}
