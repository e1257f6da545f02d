/**
 * The engine and the plain model side by side: two contexts, three processes. A step is done on both; what they answer and
 * what they are afterwards has to be the same.
 */
import assert from 'node:assert/strict';
import { Errno } from '../../src/base/errno.ts';
import { firstOf, lastOf } from '../../src/base/position.ts';
import { PROT_READ, PROT_WRITE } from '../../src/iommu/page-table.ts';
import { HwptPaging } from '../../src/iommufd/hw-pagetable.ts';
import { Ioas } from '../../src/iommufd/ioas.ts';
import { SparseBacking } from '../../src/base/sparse-backing.ts';
import { type InProcessClient } from '../../src/client/in-process.ts';
import { Lab, Session, type AccessHandle } from '../../src/testing/lab.ts';
import { PlainMachine } from './plain-machine.ts';
import { PlainContext } from './plain-model.ts';
import { MEMORY, PAGE, READ_ONLY_PAGES, Refused, WRITABLE_PAGES } from './plain-objects.ts';
import type { PlainHwpt, PlainIoas, PlainProcess } from './plain-objects.ts';

/** Pages that each of the two unprivileged processes may have locked, both together. */
const LOCK_LIMIT = 12;

export type Process = {
  readonly plain: PlainProcess;
  readonly client: InProcessClient;
  readonly backing: SparseBacking;
};

/** One open of /dev/iommu, in both worlds. */
export type Both = {
  readonly plain: PlainContext;
  /** of the process that opened it */
  readonly session: Session;
  /** of the third process, which got the file passed */
  readonly guest: Session;
  readonly owner: Process;
  /** by object id */
  readonly accesses: Map<number, AccessHandle>;
  /** descriptors of event queues and fault queues, by object id */
  readonly queues: Map<number, number>;
};

type Answer = { readonly value: unknown } | { readonly refused: string };

function answerOf(act: () => unknown): Answer {
  try {
    return { value: act() };
  } catch (error) {
    if (error instanceof Errno || error instanceof Refused) return { refused: error.code };
    throw error;
  }
}

export class World {
  readonly lab = new Lab();
  readonly machine = new PlainMachine();
  readonly processes: readonly [Process, Process, Process];
  readonly contexts: readonly [Both, Both];

  constructor() {
    const root = this.#process({ uid: 0 });
    const limited = { uid: 1000, memlockLimit: LOCK_LIMIT * Number(PAGE), capabilities: [] };
    const [user, other] = [this.#process(limited), this.#process(limited)];
    this.processes = [root, user, other];
    this.contexts = [this.#context(root, other), this.#context(user, other)];
  }

  /** Does the same in both worlds. */
  step(plain: () => unknown, real: () => unknown): void {
    const expected = answerOf(plain);
    assert.deepEqual(answerOf(real), expected);
    this.compare();
  }

  /** Both worlds look the same, and the engine's own invariants hold. */
  compare(): void {
    this.lab.check();
    for (const both of this.contexts) this.#compareContext(both);
    for (const { plain, client } of this.processes) {
      if (plain.limit === undefined) continue;
      const { accounting } = this.lab.iommufd.environment;
      assert.equal(accounting.lockedBy(client.uid), this.machine.locked(plain.uid), 'locked pages');
    }
    this.#comparePins();
  }

  end(): void {
    this.lab.end();
  }

  #process(options: {
    readonly uid: number;
    readonly memlockLimit?: number;
    readonly capabilities?: readonly never[];
  }): Process {
    const client = this.lab.client(options);
    const backing = new SparseBacking(`memory of process ${client.pid}`);
    const count = Number(WRITABLE_PAGES);
    client.memory.map(MEMORY, { backing, page: 0, count });
    const end = MEMORY + WRITABLE_PAGES * PAGE;
    const readOnly = { backing, page: count, count: Number(READ_ONLY_PAGES) };
    client.memory.map(end, readOnly, { readOnly: true });
    const limit = options.memlockLimit === undefined ? undefined : LOCK_LIMIT;
    return { plain: { uid: options.uid, limit, alive: true }, client, backing };
  }

  #context(owner: Process, other: Process): Both {
    const session = this.lab.open(owner.client);
    const file = owner.client.file(session.fd);
    assert.ok(file);
    const passed = other.client.install({
      name: file.name,
      ioctl: (task, command, argument) => file.ioctl?.(task, command, argument) ?? 0,
      release: () => undefined,
    });
    const plain = new PlainContext(this.machine);
    this.machine.contexts.push(plain);
    const guest = new Session(other.client, passed, session.context);
    return { plain, session, guest, owner, accesses: new Map(), queues: new Map() };
  }

  #compareContext({ plain, session }: Both): void {
    const real = session.context.objects.live();
    const ids = [...plain.objects].filter(([, object]) => object !== 'tombstone');
    assert.deepEqual(
      real.map(({ id, type }) => [id, type]),
      ids.map(([id, object]) => [id, object === 'tombstone' ? '' : object.kind]).sort(byId),
      'objects',
    );
    for (const object of real) {
      const expected = plain.objects.get(object.id);
      if (expected === undefined || expected === 'tombstone') continue;
      if (object instanceof Ioas && expected.kind === 'IOAS') {
        this.#compareIoas(object, expected, plain);
      }
      if (object instanceof HwptPaging && expected.kind === 'HWPT_PAGING') {
        assert.equal(object.automatic, expected.automatic);
        this.#compareTable(object, expected);
      }
    }
  }

  #compareIoas({ iopt }: Ioas, plain: PlainIoas, context: PlainContext): void {
    const areas = [...plain.areas].sort((a, b) => (a.first < b.first ? -1 : 1));
    assert.deepEqual(
      [...iopt.areas].map((area) => [firstOf(area), lastOf(area), area.prot, area.pageOffset]),
      areas.map(({ first, last, read, write, from }) => [
        first,
        last,
        (read ? PROT_READ : 0) | (write ? PROT_WRITE : 0),
        Number(from % PAGE),
      ]),
      'areas',
    );
    assert.equal(BigInt(iopt.alignment), context.alignment(plain), 'alignment');
    assert.deepEqual(
      iopt.reserved.holes().map((hole) => ({ first: firstOf(hole), last: lastOf(hole) })),
      context.holes(plain),
      'holes between reservations',
    );
  }

  /** The page table shows each byte of each area where it is, and nothing else. */
  #compareTable({ domain }: HwptPaging, { ioas }: PlainHwpt): void {
    const { table } = domain;
    let bytes = 0n;
    for (const { first, last, from, set } of ioas.areas) {
      bytes += last - first + 1n;
      const process = this.processes.find(({ plain }) => plain === set.process);
      for (let at = first; at <= last; at += 2048n) {
        const found = table.walk(Number(at / PAGE), Number(at % PAGE));
        assert.equal(found?.backing, process?.backing, 'whose memory a device sees');
        assert.equal(
          BigInt(found?.offset ?? -1),
          from - MEMORY + (at - first),
          'what a device sees',
        );
        assert.equal(table.translate(Number(at / PAGE), Number(at % PAGE)), found?.phys);
      }
    }
    assert.ok('extents' in table && Symbol.iterator in (table.extents as object));
    let shown = 0n;
    for (const extent of table.extents as Iterable<Parameters<typeof firstOf>[0]>) {
      shown += lastOf(extent) - firstOf(extent) + 1n;
    }
    assert.equal(shown, bytes, 'bytes that the page table shows');
  }

  #comparePins(): void {
    const pinned = [...this.machine.pinned()];
    for (const { plain, backing } of this.processes) {
      const mine = pinned.filter(([set]) => set.process === plain).map(([, pages]) => pages);
      for (let page = 0n; page < WRITABLE_PAGES + READ_ONLY_PAGES; page++) {
        const expected = mine.filter((pages) => pages.has(MEMORY / PAGE + page)).length;
        assert.equal(
          this.lab.physical.pinCount(backing, Number(page)),
          expected,
          `pins of page ${page} of user ${plain.uid}`,
        );
      }
    }
  }
}

function byId(a: readonly (number | string)[], b: readonly (number | string)[]): number {
  return Number(a[0]) - Number(b[0]);
}
