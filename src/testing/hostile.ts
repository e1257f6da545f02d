/**
 * Hostile clients: four processes that throw everything at one machine's /dev/iommu. Half of the ioctls carry structs that
 * are nearly right (sizes, ids that live, addresses that are mapped, mixed with garbage, wrapping ranges and huge lengths),
 * the rest random bytes; processes fork, share files, close, unmap their memory and exit in between.
 *
 * What must hold: a call returns or throws Errno; everything else that is thrown is a bug. The seed determines all.
 */
import { Errno } from '../base/errno.ts';
import type { FieldType, Struct, Union } from '../base/struct.ts';
import { SparseBacking } from '../base/sparse-backing.ts';
import { InProcessClient } from '../client/in-process.ts';
import { PAGE_SIZE } from '../machine/memory.ts';
import { IOMMUFD_IOCTLS, type IoctlSpec } from '../uapi/ioctls.ts';
import * as mock from '../uapi/iommufd-test.ts';
import * as uapi from '../uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../uapi/vfio-ioctls.ts';
import * as vfio from '../uapi/vfio.ts';
import { IommufdFile } from '../iommufd/file.ts';
import type { ObjectType } from '../iommufd/object.ts';
import type { Context } from '../iommufd/context.ts';
import { AccessHandle, Session, type Lab } from './lab.ts';
import { Random } from './random.ts';

const PROCESSES = 4;
const MAX_FILES = 24;
const PAGE = BigInt(PAGE_SIZE);
const ARENA = 0x10_0000_0000n;
const HUGE = 0x20_0000_0000n;
const SCRATCH = 0x30_0000_0000n;
const DATA = 0x40_0000_0000n;
const ARENA_PAGES = 256;
const HUGE_PAGES = 1024;
const SCRATCH_PAGES = 4;
const MAX = 2n ** 64n - 1n;

const SPECS: readonly IoctlSpec[] = Object.values(IOMMUFD_IOCTLS);
const VFIO_COMMANDS = Object.values(VFIO_IOCTLS).filter(
  ({ file, argument }) => file === 'container' && argument === 'address',
);
const TEST_OPS = [...mock.TEST_OPS];
const ACCESS_OPS: readonly number[] = [
  mock.IOMMU_TEST_OP_ACCESS_PAGES,
  mock.IOMMU_TEST_OP_ACCESS_RW,
  mock.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
  mock.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
];

/** Small numbers that mean something in some field. */
const WORDS = [
  0,
  0,
  0,
  1,
  2,
  3,
  4,
  5,
  6,
  7,
  8,
  12,
  40,
  PAGE_SIZE,
  0xffff_ffff,
  mock.IOMMU_TEST_PASID_RESERVED,
  mock.IOMMU_HWPT_DATA_SELFTEST,
  mock.IOMMU_VIOMMU_TYPE_SELFTEST,
  mock.IOMMU_VEVENTQ_TYPE_SELFTEST,
];
const LONGS = [
  0n,
  1n,
  PAGE,
  2n * PAGE,
  0x800n,
  0x1000_0000n,
  MAX,
  MAX - 1n,
  MAX - PAGE + 1n,
  2n ** 63n,
];

/** What lives behind an id that a field or an operation of the mock driver names. */
const KIND_OF_FIELD: Readonly<Record<string, readonly ObjectType[]>> = {
  ioas_id: ['IOAS'],
  src_ioas_id: ['IOAS'],
  dst_ioas_id: ['IOAS'],
  dev_id: ['DEVICE'],
  hwpt_id: ['HWPT_PAGING', 'HWPT_NESTED', 'VIOMMU'],
  pt_id: ['IOAS', 'HWPT_PAGING', 'HWPT_NESTED', 'VIOMMU'],
  viommu_id: ['VIOMMU'],
  fault_id: ['FAULT'],
  object_id: ['IOAS'],
};
const KIND_OF_OP: Readonly<Record<number, readonly ObjectType[]>> = {
  [mock.IOMMU_TEST_OP_ADD_RESERVED]: ['IOAS'],
  [mock.IOMMU_TEST_OP_MOCK_DOMAIN]: ['IOAS', 'HWPT_PAGING'],
  [mock.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS]: ['IOAS', 'HWPT_PAGING'],
  [mock.IOMMU_TEST_OP_MD_CHECK_MAP]: ['HWPT_PAGING'],
  [mock.IOMMU_TEST_OP_MD_CHECK_IOTLB]: ['HWPT_NESTED'],
  [mock.IOMMU_TEST_OP_DIRTY]: ['HWPT_PAGING'],
  [mock.IOMMU_TEST_OP_CREATE_ACCESS]: ['IOAS'],
  [mock.IOMMU_TEST_OP_DEV_CHECK_CACHE]: ['DEVICE'],
};

/** How often each outcome came, for the report. */
export type Outcomes = Map<string, number>;

export class Hostile {
  readonly outcomes: Outcomes = new Map();
  readonly #random: Random;
  readonly #lab: Lab;
  readonly #mappings: (() => void)[] = [];
  #processes: InProcessClient[] = [];
  #nextPid = 1;

  constructor(lab: Lab, seed: number) {
    this.#lab = lab;
    this.#random = new Random(seed);
    for (let i = 0; i < PROCESSES; i++) this.#processes.push(this.#spawn());
  }

  /** One call, or something that a process does to itself. @returns what it was, for the report of a bug */
  step(): string {
    const random = this.#random;
    const process = random.pick(this.#processes);
    const [what, act] = this.#choose(process);
    try {
      act();
      this.#count(`${what}: ok`);
    } catch (error) {
      if (!(error instanceof Errno))
        throw new Error(`${what} of process ${process.pid}`, { cause: error });
      this.#count(`${what}: ${error.code}`);
    }
    return what;
  }

  /** Everybody exits, and the windows that are still mapped go. */
  end(): void {
    for (const process of this.#processes) this.#exit(process);
    for (const release of this.#mappings.splice(0)) release();
    this.#processes = [];
  }

  #count(outcome: string): void {
    this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
  }

  #choose(process: InProcessClient): [string, () => void] {
    const random = this.#random;
    const roll = random.below(1000);
    if (roll < 2) return ['exit', this.#replace.bind(this, process)];
    if (roll < 6) return ['open', this.#open.bind(this, process)];
    if (roll < 12) return ['close', this.#close.bind(this, process)];
    if (roll < 60) return ['read or write', this.#readWrite.bind(this, process)];
    if (roll < 70) return ['mmap', this.#mmap.bind(this, process)];
    if (roll < 80) return ['memory', this.#disturb.bind(this, process)];
    if (roll < 90) return ['munmap', this.#munmap.bind(this)];
    if (roll < 200) return this.#garbage(process);
    if (roll < 250) return this.#vfio(process);
    if (roll < 550) return this.#orderly(process);
    return this.#nearlyRight(process);
  }

  #spawn(): InProcessClient {
    const random = this.#random;
    const free = random.oneIn(2);
    const options = free
      ? { uid: 0 }
      : { uid: 1000 + random.below(2), capabilities: [], memlockLimit: 128 * PAGE_SIZE };
    const process = new InProcessClient({ pid: this.#nextPid++, stacks: false, ...options });
    this.#furnish(process);
    this.#lab.clients.push(process);
    this.#open(process);
    return process;
  }

  #furnish({ pid, memory }: InProcessClient): void {
    const arena = new SparseBacking(`arena of ${pid}`);
    memory.map(ARENA, { backing: arena, page: 0, count: ARENA_PAGES });
    const huge = new SparseBacking(`huge pages of ${pid}`, 512);
    memory.map(HUGE, { backing: huge, page: 0, count: HUGE_PAGES });
    const scratch = new SparseBacking(`scratch of ${pid}`);
    memory.map(SCRATCH, { backing: scratch, page: 0, count: SCRATCH_PAGES });
    memory.map(DATA, { backing: new SparseBacking('data for drivers'), page: 0, count: 1 });
  }

  #replace(process: InProcessClient): void {
    const random = this.#random;
    const others = this.#processes.filter((other) => other !== process);
    const parent = random.pick(others);
    this.#exit(process);
    let child: InProcessClient;
    if (random.oneIn(2)) {
      child = parent.fork(this.#nextPid++);
      this.#lab.clients.push(child);
    } else {
      child = this.#spawn();
    }
    this.#processes = [...others, child];
  }

  #exit(process: InProcessClient): void {
    process.exit();
    const at = this.#lab.clients.indexOf(process);
    if (process.memory.pinnedPages === 0 && process.memory.lockedPages === 0) {
      this.#lab.clients.splice(at, 1);
    }
  }

  #open(process: InProcessClient): void {
    const { iommufd } = this.#lab;
    if (process.descriptors.length > MAX_FILES) process.close(this.#fd(process));
    const { random, memfd } = { random: this.#random, memfd: new SparseBacking('memfd') };
    if (random.oneIn(3)) {
      process.installMemory({
        backing: memfd,
        size: 16 * PAGE_SIZE,
        pinnable: !random.oneIn(4),
      });
    } else {
      process.install(iommufd.open(process));
    }
  }

  #close(process: InProcessClient): void {
    process.close(this.#fd(process));
  }

  #fd(process: InProcessClient): number {
    const random = this.#random;
    if (random.oneIn(50)) return random.word();
    const fds = process.descriptors;
    return fds.length === 0 ? 0 : random.pick(fds);
  }

  /** Mostly an open /dev/iommu, else any file. */
  #iommu(process: InProcessClient): number {
    if (this.#random.oneIn(20)) return this.#fd(process);
    const found = process.descriptors.filter((fd) => process.file(fd)?.name === '/dev/iommu');
    return found.length === 0 ? this.#fd(process) : this.#random.pick(found);
  }

  #readWrite(process: InProcessClient): void {
    const random = this.#random;
    const file = process.file(this.#fd(process));
    const count = random.pick([0, 4, 8, 12, 16, 40, 80, PAGE_SIZE, 2 ** 31 - PAGE_SIZE]);
    const offset = random.oneIn(10) ? random.below(100) : 0;
    const mayCopy = (): void => {
      if (random.oneIn(10)) throw new Errno('EFAULT', 'the buffer cannot be reached');
    };
    if (random.oneIn(2)) file?.read?.(process, { length: count, put: mayCopy }, offset);
    else {
      const bytes = this.#answer(count);
      const take = (at: number, length: number): Uint8Array => {
        mayCopy();
        return bytes.slice(at, at + length);
      };
      file?.write?.(process, { length: bytes.length, take }, offset);
    }
  }

  #answer(count: number): Uint8Array {
    const random = this.#random;
    if (random.oneIn(4)) return random.bytes(count % 100);
    const bytes = new Uint8Array(uapi.iommu_hwpt_page_response.size);
    uapi.iommu_hwpt_page_response.encode({ cookie: random.below(4), code: random.below(2) }, bytes);
    return bytes;
  }

  #mmap(process: InProcessClient): void {
    const random = this.#random;
    const file = process.file(this.#iommu(process));
    const grant = file?.mmap?.(process, {
      offset: random.oneIn(4) ? random.long() : 0x5649_0000_0000_1000n,
      length: random.pick([0n, PAGE, 2n * PAGE, 3n, MAX]),
      shared: !random.oneIn(4),
      write: true,
      execute: random.oneIn(8),
    });
    if (grant !== undefined) {
      this.#mappings.push(() => {
        grant.release();
      });
    }
  }

  #munmap(): void {
    this.#mappings.pop()?.();
  }

  /** The process changes its address space under whatever is mapped. */
  #disturb(process: InProcessClient): void {
    const random = this.#random;
    const { memory, pid } = process;
    if (random.oneIn(3)) {
      memory.unmap(random.pick([ARENA, HUGE]), 1);
    } else {
      const backing = new SparseBacking(`new arena of ${pid}`);
      const readOnly = random.oneIn(3);
      memory.map(ARENA, { backing, page: random.below(4), count: ARENA_PAGES }, { readOnly });
    }
  }

  #garbage(process: InProcessClient): [string, () => void] {
    const random = this.#random;
    const spec = random.pick(SPECS);
    const anyNumber = random.oneIn(8);
    const command = anyNumber ? random.word() : spec.number;
    const bytes = random.bytes(random.pick([0, 3, 8, spec.struct.size, spec.struct.size, 200]));
    const size = random.pick([spec.struct.size, spec.minSize, bytes.length, 0, 0xffff_ffff]);
    if (bytes.length >= 4) new DataView(bytes.buffer).setUint32(0, size, true);
    return [
      anyNumber ? 'any number' : `garbage ${spec.name}`,
      () => {
        const end = SCRATCH + BigInt(SCRATCH_PAGES) * PAGE;
        const address = random.pick([SCRATCH, end - BigInt(bytes.length), random.long()]);
        if (address < end && address >= SCRATCH) process.write(address, bytes);
        process.ioctl(this.#iommu(process), command, address);
      },
    ];
  }

  #vfio(process: InProcessClient): [string, () => void] {
    const random = this.#random;
    const fd = this.#iommu(process);
    if (random.oneIn(3)) {
      const number = random.pick([
        vfio.VFIO_GET_API_VERSION,
        vfio.VFIO_CHECK_EXTENSION,
        vfio.VFIO_SET_IOMMU,
      ]);
      const argument = random.oneIn(4) ? random.long() : BigInt(random.below(12));
      return ['VFIO without a struct', () => process.ioctl(fd, number, argument)];
    }
    const { number, struct } = random.pick(VFIO_COMMANDS);
    const value = this.#fillStruct(struct);
    value['argsz'] = random.pick([struct.size, struct.size, 0, 200, 0xffff_ffff]);
    if (random.oneIn(2)) value['flags'] = random.below(4);
    return [`VFIO ${struct.name}`, () => process.call(fd, { number, struct }, value)];
  }

  /** A call as a program makes it that knows what it wants, so that there is something to be hostile to. */
  #orderly(process: InProcessClient): [string, () => void] {
    const random = this.#random;
    const fd = this.#iommu(process);
    const context = this.#contextOf(process, fd);
    if (context === undefined) return ['orderly open', this.#open.bind(this, process)];
    const s = new Session(process, fd, context);
    const id = (...kinds: ObjectType[]): number => this.#id(process, fd, kinds);
    const at = BigInt(random.below(ARENA_PAGES - 8)) * PAGE;
    const length = BigInt(1 + random.below(8)) * PAGE;
    const iova = BigInt(mock.MOCK_APERTURE_START) + BigInt(random.below(16)) * PAGE;
    const nested = {
      data_type: mock.IOMMU_HWPT_DATA_SELFTEST,
      data_len: mock.iommu_hwpt_selftest.size,
      data_uptr: DATA,
    };
    const pasid = { pasid: random.pick([1, 2, 1024]), pt_id: id('IOAS', 'HWPT_PAGING') };
    const acts: Record<string, () => unknown> = {
      alloc: () => s.ioas(),
      map: () => s.map(id('IOAS'), ARENA + at, length, random.oneIn(2) ? { iova } : {}),
      mapHuge: () => s.map(id('IOAS'), HUGE, 512n * PAGE, { iova }),
      unmap: () => s.unmap(id('IOAS'), 0n, random.oneIn(4) ? MAX : iova + length),
      device: () => s.mockDomain(id('IOAS', 'HWPT_PAGING'), random.pick([0, 0, 4, 5])),
      replace: () => s.replace(id('SELFTEST'), id('IOAS', 'HWPT_PAGING', 'HWPT_NESTED')),
      hwpt: () => s.hwpt(id('DEVICE'), id('IOAS'), { flags: random.pick([0, 1, 1, 2, 8]) }),
      nested: () => s.hwpt(id('DEVICE'), id('HWPT_PAGING', 'VIOMMU'), nested),
      viommu: () => s.viommu(id('DEVICE'), id('HWPT_PAGING')),
      vdevice: () => s.vdevice(id('VIOMMU'), id('DEVICE'), BigInt(random.below(4))),
      veventq: () => s.veventq(id('VIOMMU'), 1 + random.below(3)),
      hwQueue: () => s.hwQueue(id('VIOMMU'), random.below(2), { iova, length }),
      access: () => s.access(id('IOAS'), random.oneIn(2)),
      pin: () => new AccessHandle(s, this.#access(process)).pin(iova, length),
      pasid: () => s.test(mock.IOMMU_TEST_OP_PASID_ATTACH, id('SELFTEST'), { pasid_attach: pasid }),
      faults: () => s.faultQueue(),
      destroy: () => {
        s.destroy(random.pick([1, ...context.objects.live().map((object) => object.id)]));
      },
    };
    const name = random.pick(Object.keys(acts));
    return [`orderly ${name}`, acts[name] ?? s.ioas.bind(s)];
  }

  #contextOf(process: InProcessClient, fd: number): Context | undefined {
    const file = process.descriptors.includes(fd) ? process.file(fd) : undefined;
    return file instanceof IommufdFile ? file.context : undefined;
  }

  #nearlyRight(process: InProcessClient): [string, () => void] {
    const random = this.#random;
    const spec = random.oneIn(2) ? IOMMUFD_IOCTLS.IOMMU_TEST_CMD : random.pick(SPECS);
    const { struct, name, number } = spec;
    const value = this.#fillStruct(struct);
    value['size'] = random.oneIn(100) ? random.word() : struct.size;
    const fd = this.#iommu(process);
    this.#straighten(value);
    this.#aim(value, process, fd);
    const op = name === 'IOMMU_TEST_CMD' ? ` ${String(value['op'])}` : '';
    return [`${name}${op}`, () => process.call(fd, { number, struct }, value)];
  }

  /** Makes fields right that would end the call before it does anything. */
  #straighten(value: Record<string, unknown>): void {
    const random = this.#random;
    if ('__reserved' in value && typeof value['__reserved'] === 'number' && !random.oneIn(30)) {
      value['__reserved'] = 0;
    }
    if ('flags' in value && !random.oneIn(10)) {
      value['flags'] = random.pick([0, 0, 2, 4, 6, 7, random.below(16)]);
    }
    if ('u' in value) {
      const [op, member] = random.pick(TEST_OPS);
      value['op'] = random.oneIn(50) ? random.word() : op;
      const union = value['u'] as Union;
      const type = union.members[member];
      if (type !== undefined) union.write(member, this.#fill(type));
    }
    if ('type' in value && !random.oneIn(8)) {
      value['type'] = random.pick([
        mock.IOMMU_VIOMMU_TYPE_SELFTEST,
        mock.IOMMU_VEVENTQ_TYPE_SELFTEST,
      ]);
    }
    if ('data_type' in value && typeof value['data_type'] === 'number') {
      const some = random.oneIn(2);
      value['data_type'] = some ? mock.IOMMU_HWPT_DATA_SELFTEST : 0;
      value['data_len'] = some ? mock.iommu_hwpt_selftest.size : 0;
    }
  }

  /** Puts ids of the right kind where ids belong, mostly, and files that are accesses. */
  #aim(value: Record<string, unknown>, process: InProcessClient, fd: number): void {
    const random = this.#random;
    for (const name of Object.keys(value)) {
      const kinds = KIND_OF_FIELD[name];
      if (kinds !== undefined && !random.oneIn(8)) value[name] = this.#id(process, fd, kinds);
    }
    const op = value['op'];
    if ('u' in value && typeof op === 'number' && !random.oneIn(8)) {
      value['id'] = ACCESS_OPS.includes(op)
        ? this.#access(process)
        : this.#id(process, fd, KIND_OF_OP[op] ?? ['SELFTEST']);
      const union = value['u'] as Union;
      const [, member] = TEST_OPS.find(([number]) => number === op) ?? [];
      const type = member === undefined ? undefined : union.members[member];
      if (member === undefined || type === undefined) return;
      const inner = union.read(member) as Record<string, unknown>;
      this.#aim(inner, process, fd);
      union.write(member, inner);
    }
  }

  #id(process: InProcessClient, fd: number, kinds: readonly ObjectType[]): number {
    const live = this.#contextOf(process, fd)?.objects.live() ?? [];
    const fitting = live.filter(({ type }) => kinds.includes(type));
    return fitting.length === 0 ? 0 : this.#random.pick(fitting).id;
  }

  #access(process: InProcessClient): number {
    const found = process.descriptors.filter((fd) => process.file(fd)?.name === 'test access');
    return found.length === 0 ? 0 : this.#random.pick(found);
  }

  /** A value for a field: mostly one that means something. */
  #fill(type: FieldType<unknown>): unknown {
    const random = this.#random;
    switch (type.kind) {
      case 'u8':
        return random.oneIn(20) ? random.below(256) : 0;
      case 'u16':
        return random.oneIn(20) ? random.below(65536) : random.below(3);
      case 'u32':
        return this.#word();
      case 's32':
        return random.oneIn(20) ? random.word() | 0 : random.below(40);
      case 'u64':
        return this.#long();
      case 's64':
        return BigInt.asIntN(64, this.#long());
      case 'struct':
        return this.#fillStruct(type as Struct);
      case 'array': {
        const zero = type.zero() as unknown[];
        const { element } = type as unknown as { element: FieldType<unknown> };
        return zero.map((value) => (random.oneIn(20) ? this.#fill(element) : value));
      }
      case 'union':
        return type.zero();
    }
  }

  #fillStruct(struct: Struct): Record<string, unknown> {
    const value: Record<string, unknown> = struct.make();
    for (const [name, field] of Object.entries(struct.fields)) value[name] = this.#fill(field);
    return value;
  }

  #word(): number {
    const random = this.#random;
    const roll = random.below(10);
    // Ids are small numbers: most of them live.
    if (roll < 6) return 1 + random.below(14);
    if (roll < 9) return random.pick(WORDS);
    return random.word();
  }

  #long(): bigint {
    const random = this.#random;
    const roll = random.below(20);
    const inArena = BigInt(random.below(ARENA_PAGES)) * PAGE;
    const odd = random.oneIn(5) ? BigInt(random.below(PAGE_SIZE)) : 0n;
    if (roll < 5) return ARENA + inArena + odd;
    if (roll < 7) return HUGE + BigInt(random.below(HUGE_PAGES)) * PAGE + odd;
    if (roll < 11) return BigInt(mock.MOCK_APERTURE_START) + BigInt(random.below(32)) * PAGE + odd;
    if (roll < 16) return BigInt(1 + random.below(16)) * PAGE + (random.oneIn(8) ? odd : 0n);
    if (roll < 19) return random.pick(LONGS);
    return random.long();
  }
}
