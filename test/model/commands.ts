/**
 * The commands of the model test: each turns a few random numbers into one call, made on the engine and on the plain model.
 * Numbers choose among what there is; now and then they name something that is not there.
 */
import fc from 'fast-check';
import type { AccessHandle } from '../../src/testing/lab.ts';
import * as uapi from '../../src/uapi/iommufd.ts';
import { APERTURE, MEMORY, PAGE } from './plain-objects.ts';
import type { Both, World } from './world.ts';

/** What a command is made from. */
type Numbers = {
  readonly context: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** multiples of half a page or single bytes, rarely */
  readonly odd: number;
  readonly flag: boolean;
};

type Make = (
  both: Both,
  numbers: Numbers,
  world: World,
) => [plain: () => unknown, real: () => unknown];

const NOBODY = 99;

function pick(ids: readonly number[], n: number): number {
  return n % 16 === 15 ? NOBODY : (ids[n % Math.max(1, ids.length)] ?? NOBODY);
}

function odd(n: number): bigint {
  if (n % 8 === 6) return 2048n;
  return n % 16 === 7 ? 1n : 0n;
}

function iovaAt(n: number, oddness = 0): bigint {
  return APERTURE.first + PAGE * BigInt(n % 20) + odd(oddness);
}

/** A range of an IOAS: mostly one that begins where an area does or in it, and ends there or a little further on. */
function rangeIn(
  { plain }: Both,
  ioasId: number,
  numbers: Numbers,
): { iova: bigint; length: bigint } {
  const { b, c, odd: oddness } = numbers;
  const ioas = plain.objects.get(ioasId);
  const areas =
    ioas !== undefined && ioas !== 'tombstone' && ioas.kind === 'IOAS' ? ioas.areas : [];
  const area = areas[b % Math.max(1, areas.length)];
  if (area === undefined || c % 8 === 7) {
    return { iova: iovaAt(b, oddness), length: PAGE * BigInt(c % 4) + odd(oddness >> 2) };
  }
  const whole = area.last - area.first + 1n;
  const skip = c % 4 === 3 ? PAGE + odd(oddness) : odd(oddness);
  const more = c % 5 === 4 ? PAGE : c % 5 === 3 && whole > PAGE ? -PAGE : 0n;
  const length = whole - skip + more;
  return { iova: area.first + skip, length: length > 0n ? length : PAGE };
}

function flagsOf(n: number): { flags: number; read: boolean; write: boolean } {
  const read = n % 5 !== 0;
  const write = n % 5 < 4 && n % 5 !== 1;
  const readable = read ? uapi.IOMMU_IOAS_MAP_READABLE : 0;
  return { flags: readable | (write ? uapi.IOMMU_IOAS_MAP_WRITEABLE : 0), read, write };
}

/** Ids of page tables and address spaces: what a device can be attached to. */
function pts({ plain }: Both): number[] {
  const nested = plain.ids('HWPT_NESTED');
  return [...plain.ids('IOAS'), ...plain.ids('HWPT_PAGING'), ...nested];
}

/** Runs a call that makes an object of which only a file is told. @returns the new object's id */
function newId({ session }: Both, type: string, act: () => void): number {
  const ids = (): number[] =>
    session.context.objects
      .live()
      .filter((object) => object.type === type)
      .map(({ id }) => id);
  const before = ids();
  act();
  return ids().find((id) => !before.includes(id)) ?? NOBODY;
}

export const COMMANDS: Readonly<Record<string, Make>> = {
  ioasAlloc: ({ plain, session }) => [() => plain.ioasAlloc(), () => session.ioas()],

  destroy: ({ plain, session }, { a }) => {
    const id = pick([...plain.objects.keys()], a);
    return [
      () => {
        plain.destroy(id);
      },
      () => {
        session.destroy(id);
      },
    ];
  },

  map: (both, { a, b, c, odd: oddness, flag }, world) => {
    const { plain, session, guest, owner } = both;
    const ioas = pick(plain.ids('IOAS'), a);
    const [process, by] = flag ? [world.processes[2], guest] : [owner, session];
    const usable = process.plain.alive;
    const [who, from] = usable ? [process, by] : [owner, session];
    const address = MEMORY + PAGE * BigInt(c % 21) + odd(oddness);
    const length = PAGE * BigInt(1 + (b % 5)) + odd(oddness >> 3);
    const iova = b % 7 === 6 ? undefined : iovaAt(a + b + c, oddness >> 2);
    const { flags, read, write } = flagsOf(c + b);
    return [
      () => plain.map(ioas, who.plain, { address, length, iova, read, write }),
      () => from.map(ioas, address, length, { flags, ...(iova !== undefined && { iova }) }),
    ];
  },

  unmap: (both, numbers) => {
    const { plain, session } = both;
    const ioas = pick(plain.ids('IOAS'), numbers.a);
    const { iova: first, length } = rangeIn(both, ioas, numbers);
    return [
      () => plain.unmap(ioas, { first, last: first + length - 1n }),
      () => session.unmap(ioas, first, length),
    ];
  },

  unmapAll: ({ plain, session }, { a }) => {
    const ioas = pick(plain.ids('IOAS'), a);
    return [() => plain.unmapAll(ioas), () => session.unmap(ioas, 0n, 2n ** 64n - 1n)];
  },

  copy: (both, numbers) => {
    const { plain, session } = both;
    const { a, b, c, flag } = numbers;
    const ids = plain.ids('IOAS');
    const [from, to] = [pick(ids, a), pick(ids, b + c)];
    const { iova: source, length } = rangeIn(both, from, numbers);
    const iova = flag ? iovaAt(a + b + c) : undefined;
    const { flags, read, write } = flagsOf(a);
    const fixed = iova === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
    return [
      () => plain.copy({ ioas: from, iova: source }, { ioas: to, iova }, { length, read, write }),
      () =>
        session.ioctl('IOMMU_IOAS_COPY', {
          flags: flags | fixed,
          src_ioas_id: from,
          dst_ioas_id: to,
          length,
          src_iova: source,
          dst_iova: iova ?? 0n,
        }).dst_iova,
    ];
  },

  allow: ({ plain, session }, { a, b, c, flag }) => {
    const ioas = pick(plain.ids('IOAS'), a);
    const at = (n: number): { start: bigint; last: bigint } => ({
      start: iovaAt(n),
      last: iovaAt(n) + PAGE * BigInt(1 + (c % 9)) - (n % 7 === 6 ? 8n * PAGE : 1n),
    });
    const ranges = c % 3 === 0 ? [] : flag ? [at(b)] : [at(b), at(b + c)];
    return [
      () => {
        plain.allow(
          ioas,
          ranges.map(({ start, last }) => ({ first: start, last })),
        );
      },
      () => {
        const { size } = uapi.iommu_iova_range;
        const bytes = new Uint8Array(Math.max(1, ranges.length * size));
        ranges.forEach((range, i) => {
          uapi.iommu_iova_range.encode(range, bytes.subarray(i * size));
        });
        const given = { num_iovas: ranges.length, allowed_iovas: session.put(bytes) };
        session.ioctl('IOMMU_IOAS_ALLOW_IOVAS', { ioas_id: ioas, ...given });
      },
    ];
  },

  reserve: ({ plain, session }, { a, b, c }) => {
    const ioas = pick(plain.ids('IOAS'), a);
    const [start, length] = [iovaAt(b), PAGE * BigInt(c % 4)];
    return [
      () => {
        plain.reserve(ioas, start, length);
      },
      () => {
        session.reserve(ioas, start, length);
      },
    ];
  },

  hugePages: ({ plain, session }, { a, flag }) => {
    const ioas = pick(plain.ids('IOAS'), a);
    return [
      () => {
        plain.smallPages(ioas, flag);
      },
      () => {
        session.ioctl('IOMMU_OPTION', {
          option_id: uapi.IOMMU_OPTION_HUGE_PAGES,
          op: uapi.IOMMU_OPTION_OP_SET,
          object_id: ioas,
          val64: flag ? 0n : 1n,
        });
      },
    ];
  },

  vfioIoas: ({ plain, session }, { a, flag }) => {
    const ioas = pick(plain.ids('IOAS'), a);
    const real = (op: number): number =>
      session.ioctl('IOMMU_VFIO_IOAS', { ioas_id: ioas, op }).ioas_id;
    if (flag) return [() => plain.vfioGet(), () => real(uapi.IOMMU_VFIO_IOAS_GET)];
    return [
      () => {
        plain.vfioSet(ioas);
      },
      () => {
        real(uapi.IOMMU_VFIO_IOAS_SET);
      },
    ];
  },

  mockDevice: (both, { a }) => {
    const { plain, session } = both;
    const pt = pick(pts(both), a);
    return [
      () => plain.mockDevice(pt),
      () => {
        const { stdev, device, hwpt } = session.mockDomain(pt);
        return [stdev, device, hwpt];
      },
    ];
  },

  replace: (both, { a, b }) => {
    const { plain, session } = both;
    const [test, pt] = [pick(plain.ids('SELFTEST'), a), pick(pts(both), b)];
    return [() => plain.replace(test, pt), () => session.replace(test, pt)];
  },

  hwptAlloc: ({ plain, session }, { a, b, c, flag }) => {
    const [device, ioas] = [pick(plain.ids('DEVICE'), a), pick(plain.ids('IOAS'), b)];
    const faultId = c % 3 === 0 ? pick(plain.ids('FAULT'), c) : undefined;
    const nest = flag ? uapi.IOMMU_HWPT_ALLOC_NEST_PARENT : 0;
    const flags = nest | (faultId === undefined ? 0 : uapi.IOMMU_HWPT_FAULT_ID_VALID);
    return [
      () => plain.hwptAlloc(device, ioas, { nestParent: flag, faultId, data: false }),
      () => session.hwpt(device, ioas, { flags, fault_id: faultId ?? 0 }),
    ];
  },

  nestedAlloc: ({ plain, session }, { a, b, c }) => {
    const device = pick(plain.ids('DEVICE'), a);
    const pt = pick([...plain.ids('VIOMMU'), ...plain.ids('HWPT_PAGING')], b);
    const data = c % 8 !== 0;
    return [
      () => plain.hwptAlloc(device, pt, { nestParent: false, faultId: undefined, data }),
      () => (data ? session.nested(device, pt) : session.hwpt(device, pt)),
    ];
  },

  faultAlloc: ({ plain, session, queues }) => [
    () => plain.faultAlloc(),
    () => {
      const { id, file } = session.faultQueue();
      queues.set(id, file.fd);
      return id;
    },
  ],

  veventqAlloc: ({ plain, session, queues }, { a }) => {
    const viommu = pick(plain.ids('VIOMMU'), a);
    return [
      () => plain.veventqAlloc(viommu),
      () => {
        const { id, file } = session.veventq(viommu, 2);
        queues.set(id, file.fd);
        return id;
      },
    ];
  },

  queueClose: ({ plain, session, queues }, { a }) => {
    const id = pick([...queues.keys()], a);
    const fd = queues.get(id);
    if (fd === undefined) return [() => undefined, () => undefined];
    queues.delete(id);
    return [
      () => {
        plain.queueClose(id);
      },
      () => {
        session.client.close(fd);
      },
    ];
  },

  viommuAlloc: ({ plain, session }, { a, b }) => {
    const [device, hwpt] = [pick(plain.ids('DEVICE'), a), pick(plain.ids('HWPT_PAGING'), b)];
    return [() => plain.viommuAlloc(device, hwpt), () => session.viommu(device, hwpt)];
  },

  vdeviceAlloc: ({ plain, session }, { a, b, c }) => {
    const [viommu, device] = [pick(plain.ids('VIOMMU'), a), pick(plain.ids('DEVICE'), b)];
    const virtId = BigInt(1 + (c % 3));
    return [
      () => plain.vdeviceAlloc(viommu, device, virtId),
      () => session.vdevice(viommu, device, virtId),
    ];
  },

  hwQueueAlloc: (both, numbers) => {
    const { plain, session } = both;
    const viommu = pick(plain.ids('VIOMMU'), numbers.a);
    const found = plain.all('VIOMMU').find((object) => plain.idOf(object) === viommu);
    const ioas = found === undefined ? NOBODY : plain.idOf(found.hwpt.ioas);
    const { iova } = rangeIn(both, ioas, { ...numbers, odd: 0 });
    const index = numbers.flag ? 1 : 0;
    return [
      () => plain.queueAlloc(viommu, index, iova),
      () => session.hwQueue(viommu, index, { iova, length: PAGE }),
    ];
  },

  accessCreate: (both, { a, flag }) => {
    const { plain, session, accesses } = both;
    const ioas = pick(plain.ids('IOAS'), a);
    return [
      () => plain.accessCreate(ioas, flag),
      () => {
        let handle: AccessHandle | undefined;
        const id = newId(both, 'ACCESS', () => {
          handle = session.access(ioas, flag);
        });
        if (handle !== undefined) accesses.set(id, handle);
        return id;
      },
    ];
  },

  accessPin: (both, numbers) => {
    const { plain, accesses } = both;
    const { a, flag } = numbers;
    const id = pick([...accesses.keys()], a);
    const handle = accesses.get(id);
    if (handle === undefined) return [() => undefined, () => undefined];
    const access = plain.all('ACCESS').find((object) => plain.idOf(object) === id);
    const ioas = access === undefined ? NOBODY : plain.idOf(access.ioas);
    const { iova, length } = rangeIn(both, ioas, numbers);
    return [
      () => plain.accessPin(id, { first: iova, last: iova + length - 1n }, flag),
      () => handle.pin(iova, length, { write: flag }),
    ];
  },

  accessUnpin: ({ plain, accesses }, { a, b }) => {
    const id = pick([...accesses.keys()], a);
    const handle = accesses.get(id);
    if (handle === undefined) return [() => undefined, () => undefined];
    return [
      () => {
        plain.accessUnpin(id, b % 4);
      },
      () => {
        handle.unpin(b % 4);
      },
    ];
  },

  accessReplace: ({ plain, accesses }, { a, b }) => {
    const id = pick([...accesses.keys()], a);
    const handle = accesses.get(id);
    const ioas = pick(plain.ids('IOAS'), b);
    if (handle === undefined) return [() => undefined, () => undefined];
    return [
      () => {
        plain.accessReplace(id, ioas);
      },
      () => {
        handle.replace(ioas);
      },
    ];
  },

  accessClose: ({ plain, accesses }, { a }) => {
    const id = pick([...accesses.keys()], a);
    const handle = accesses.get(id);
    if (handle === undefined) return [() => undefined, () => undefined];
    accesses.delete(id);
    return [
      () => {
        plain.accessClose(id);
      },
      () => {
        handle.close();
      },
    ];
  },

  /** The third process dies; memory that it gave and that is pinned stays. */
  exit: (_both, { a }, { processes }) => [
    () => {
      if (a % 8 === 0) processes[2].plain.alive = false;
    },
    () => {
      if (a % 8 === 0 && !processes[2].client.memory.exited) processes[2].client.exit();
    },
  ],
};

/** One command, with the numbers that made it. */
export class ModelCommand {
  readonly name: string;
  readonly numbers: Numbers;

  constructor(name: string, numbers: Numbers) {
    this.name = name;
    this.numbers = numbers;
  }

  run(world: World): void {
    const both = world.contexts[this.numbers.context % 2];
    const make = COMMANDS[this.name];
    if (both === undefined || make === undefined) throw new Error(`no command ${this.name}`);
    const [plain, real] = make(both, this.numbers, world);
    world.step(plain, real);
  }

  toString(): string {
    const { context, a, b, c, odd: oddness, flag } = this.numbers;
    return `${this.name}(context ${context}: ${a}, ${b}, ${c}, ${oddness}, ${String(flag)})`;
  }
}

// What the situations below say often enough to have a name.
const QUIET: Numbers = { context: 0, a: 0, b: 0, c: 1, odd: 0, flag: false };

/** Where a sequence begins: with nothing, with address spaces, with a device, or with all that a vIOMMU needs. */
const SITUATIONS: readonly (readonly [name: string, numbers: Partial<Numbers>][])[] = [
  [],
  [
    ['ioasAlloc', {}],
    ['ioasAlloc', {}],
    ['accessCreate', { flag: true }],
  ],
  [
    ['ioasAlloc', {}],
    ['mockDevice', {}],
    ['ioasAlloc', {}],
    ['accessCreate', { flag: true }],
  ],
  [
    ['ioasAlloc', {}],
    ['mockDevice', {}],
    ['hwptAlloc', { flag: true }],
    ['mockDevice', { a: 2 }],
    ['viommuAlloc', { b: 1 }],
    ['vdeviceAlloc', {}],
    ['nestedAlloc', {}],
    ['ioasAlloc', {}],
  ],
];

/** Brings both contexts into a situation. */
export function prepare(world: World, situation: number): void {
  for (const [name, numbers] of SITUATIONS[situation] ?? []) {
    for (const context of [0, 1])
      new ModelCommand(name, { ...QUIET, ...numbers, context }).run(world);
  }
}

export const situations = fc.constantFrom(0, 1, 2, 3, 1, 2, 2, 3, 3, 3);

const OFTEN = ['map', 'map', 'map', 'map', 'mockDevice', 'accessPin', 'accessPin', 'copy', 'unmap'];

/** Sequences of commands, of which fast-check takes away what a difference does not need. */
export const sequences = fc.array(
  fc
    .tuple(
      fc.constantFrom(...OFTEN, ...Object.keys(COMMANDS)),
      fc.record({
        context: fc.nat(1),
        a: fc.nat(31),
        b: fc.nat(31),
        c: fc.nat(31),
        odd: fc.nat(127),
        flag: fc.boolean(),
      }),
    )
    .map(([name, numbers]) => new ModelCommand(name, numbers)),
  { minLength: 1, maxLength: 80, size: 'max' },
);
