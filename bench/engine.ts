/**
 * The engine in process: mapping, unmapping, translating with up to a million live areas, against what a plain program
 * would keep for the same keys (a Map; a sorted Float64Array; a B+ tree in C).
 *
 * Measured is what an ioctl does after its struct was decoded: page set, io_pagetable, pins, the domain's page table.
 */
import { Faults } from '../src/base/faults.ts';
import { firstOf } from '../src/base/position.ts';
import type { Backing, PageRun } from '../src/base/task.ts';
import type { IommuOps } from '../src/iommu/domain.ts';
import { GroupTable } from '../src/iommu/group.ts';
import { ExtentTable, PROT_READ, PROT_WRITE } from '../src/iommu/page-table.ts';
import { PagingDomain } from '../src/iommu/paging-domain.ts';
import type { Context } from '../src/iommufd/context.ts';
import { IoPagetable } from '../src/iommufd/io-pagetable.ts';
import { Iommufd } from '../src/iommufd/iommufd.ts';
import { userPages } from '../src/iommufd/pages-source.ts';
import { PhysicalMemory } from '../src/machine/memory.ts';
import { FakeAddressSpace, FakeClient } from '../src/testing/fake-client.ts';
import { btreeOf } from './btree.ts';
import {
  binarySearch,
  compare,
  compareAll,
  growthFigure,
  numbers,
  OPERATIONS,
  ratioFigure,
  scatteredPages,
  timed,
  type Bench,
  type Figure,
  type Slice,
  type Timed,
} from './measure.ts';

const SIZES = [1_000, 100_000, 1_000_000];
const PAGE = 4096n;
const RW = PROT_READ | PROT_WRITE;
const BUFFER = 2n ** 46n;
const TEBIBYTE = 2n ** 40n;

/** A process whose whole address space is one memory: finding out what lies behind a page costs nothing. */
class FlatSpace extends FakeAddressSpace {
  readonly #backing: Backing = {
    name: 'flat memory',
    unit: 1,
    read: (_offset, into) => into.fill(0),
    write: () => undefined,
  };

  override resolve(page: number, count: number): PageRun[] {
    return [{ backing: this.#backing, page, count }];
  }
}

class FlatClient extends FakeClient {
  override readonly memory = new FlatSpace();
}

/** A domain over all of 48 bits, with the leaf sizes of x86. */
class WideDomain extends PagingDomain {
  override readonly name = 'the domain of the benchmark';
  override readonly table = new ExtentTable([2 ** 30, 2 ** 21, 4096]);
  override readonly geometry = { first: 0n, last: 2n ** 48n - 1n };
  override readonly pageSizes = (2n ** 30n) | (2n ** 21n) | 4096n;
  override setDirtyTracking(): void {
    // writes are always recorded
  }
  override attachDevice(): void {
    // nobody does
  }
  override setDevicePasid(): void {
    // nobody does
  }
}

/** An IOAS on its own, and who maps into it. */
class Space {
  readonly client = new FlatClient();
  readonly context: Context;
  readonly iopt: IoPagetable;

  constructor() {
    const iommufd = new Iommufd({
      physical: new PhysicalMemory(),
      groups: new GroupTable(),
      faults: new Faults(),
      mock: false,
    });
    this.context = iommufd.open(this.client).context;
    this.iopt = new IoPagetable(this.context.environment.faults);
  }

  /** IOMMU_IOAS_MAP with a fixed IOVA. */
  map(iova: bigint, address: bigint, length: bigint): void {
    const slice = userPages(this.context, this.client, { address, length, prot: RW });
    this.iopt.map([slice], { iova, prot: RW });
  }

  mapPage(iova: bigint, address: bigint): void {
    this.map(iova, address, PAGE);
  }

  unmapPage(iova: bigint): void {
    this.iopt.unmap(iova, iova + PAGE - 1n);
  }

  fill(pages: readonly number[]): this {
    for (const [index, page] of pages.entries())
      this.mapPage(BigInt(page) * PAGE, bufferPage(index));
    return this;
  }
}

/** Address of a page of the client's buffer. */
function bufferPage(index: number): bigint {
  return BUFFER + BigInt(index) * PAGE;
}

function attach(iopt: IoPagetable): WideDomain {
  // No device is behind it, so nobody asks its driver for anything.
  const domain = new WideDomain({} as IommuOps, true);
  iopt.addDomain(domain);
  return domain;
}

/**
 * One of the live areas is unmapped and mapped again, whichever comes; the same is done with a Map of as many keys, and with
 * the ranges alone in a B+ tree in C.
 */
function unmapAndMap(withDomain: boolean): Figure[] {
  const what = `unmap and map of 4 KiB${withDomain ? ' with a domain' : ''}`;
  const series: Timed[] = [];
  const figures = SIZES.flatMap((size) => {
    const pages = scatteredPages(size, size);
    const tree = btreeOf(pages);
    const space = new Space().fill(pages);
    if (withDomain) attach(space.iopt);
    const plain = new Map(pages.map((page) => [page, page]));
    const next = numbers(2);
    const chosen = Int32Array.from({ length: OPERATIONS }, () => next() % size);
    // As a decoded struct holds them.
    const iovas = Array.from(chosen, (index) => BigInt(pages[index] ?? 0) * PAGE);
    const addresses = Array.from(chosen, bufferPage);
    const asked = Array.from(chosen, (index) => pages[index] ?? 0);
    const subject: Slice = (from, to) => {
      for (let i = from; i < to; i++) {
        const iova = iovas[i] ?? 0n;
        space.unmapPage(iova);
        space.mapPage(iova, addresses[i] ?? 0n);
      }
      return space.iopt.areas.size;
    };
    const baseline: Slice = (from, to) => {
      for (let i = from; i < to; i++) {
        const page = asked[i] ?? 0;
        plain.delete(page);
        plain.set(page, i);
      }
      return plain.size;
    };
    const inC = tree === undefined ? [] : [tree.changes(asked, false)];
    const [own, map, c] = compareAll([subject, baseline, ...inC], OPERATIONS);
    const toMap = timed(own, map);
    series.push(toMap);
    const [mapAtMost, cAtMost] = withDomain ? [18, 20] : [6, 7];
    const name = `${what}, ${size} areas, to`;
    return [
      ratioFigure(`${name} Map delete and set`, toMap, mapAtMost),
      ...(c === undefined ? [] : [ratioFigure(`${name} a B+ tree in C`, timed(own, c), cAtMost)]),
    ];
  });
  return [...figures, growthFigure(`${what}, growth beyond Map's`, series, 5)];
}

function translate(): Figure[] {
  const series: Timed[] = [];
  const figures = SIZES.map((size) => {
    const pages = scatteredPages(size, size);
    const space = new Space().fill(pages);
    const { table } = attach(space.iopt);
    const sorted = Float64Array.from(pages).sort();
    const frames = sorted.slice();
    const next = numbers(3);
    const asked = Float64Array.from({ length: OPERATIONS }, () => pages[next() % size] ?? 0);
    const times = compare(
      {
        subject: (from, to) => {
          let sum = 0;
          for (let i = from; i < to; i++) sum += table.translate(asked[i] ?? 0, 8);
          return sum;
        },
        baseline: (from, to) => {
          let sum = 0;
          for (let i = from; i < to; i++) sum += frames[binarySearch(sorted, asked[i] ?? 0)] ?? 0;
          return sum;
        },
      },
      OPERATIONS,
    );
    series.push(times);
    return ratioFigure(`translate, ${size} areas, to binary search`, times, 3);
  });
  return [...figures, growthFigure("translate, growth beyond binary search's", series, 5)];
}

/** The size of a mapping costs nothing. */
function large(): Figure[] {
  return [false, true].map((withDomain) => {
    const space = new Space();
    if (withDomain) attach(space.iopt);
    const mapOf =
      (length: bigint) =>
      (from: number, to: number): number => {
        for (let i = from; i < to; i++) {
          space.map(TEBIBYTE, TEBIBYTE, length);
          space.iopt.unmap(TEBIBYTE, TEBIBYTE + length - 1n);
        }
        return space.iopt.areas.size;
      };
    const times = compare({ subject: mapOf(TEBIBYTE), baseline: mapOf(PAGE) }, OPERATIONS / 4);
    const how = withDomain ? 'with a domain' : 'without a domain';
    return ratioFigure(`map and unmap of 1 TiB ${how}, to 4 KiB`, times, 2);
  });
}

/** IOMMU_IOAS_COPY of one area to another IOAS, against a Map's get and set. */
function copy(): Figure[] {
  return SIZES.slice(0, 2).map((size) => {
    const pages = scatteredPages(size, size);
    const source = new Space().fill(pages);
    const target = new IoPagetable(source.context.environment.faults);
    const plain = new Map(pages.map((page) => [page, page]));
    const other = new Map<number, number>();
    const next = numbers(4);
    const asked = Array.from({ length: OPERATIONS }, () => pages[next() % size] ?? 0);
    const iovas = asked.map((page) => BigInt(page) * PAGE);
    const times = compare(
      {
        subject: (from, to) => {
          for (let i = from; i < to; i++) {
            const iova = iovas[i] ?? 0n;
            target.map(source.iopt.slices(iova, iova + PAGE - 1n), { iova, prot: RW });
            target.unmap(iova, iova + PAGE - 1n);
          }
          return target.areas.size;
        },
        baseline: (from, to) => {
          for (let i = from; i < to; i++) {
            const page = asked[i] ?? 0;
            other.set(page, plain.get(page) ?? 0);
            other.delete(page);
          }
          return other.size;
        },
      },
      OPERATIONS,
    );
    return ratioFigure(
      `copy and unmap of 4 KiB, ${size} areas, to Map get, set, delete`,
      times,
      10,
    );
  });
}

/** A page table that is attached to an IOAS shows what is mapped there: per area, against filling a Map. */
function attachAll(): Figure[] {
  return [1, 1_000, 100_000].map((size) => {
    const pages = scatteredPages(size, size);
    const { iopt } = new Space().fill(pages);
    const whole = compare(
      {
        subject: (from, to) => {
          for (let i = from; i < to; i++) iopt.removeDomain(attach(iopt));
          return iopt.areas.size;
        },
        baseline: (from, to) => {
          let sum = 0;
          for (let i = from; i < to; i++) {
            const plain = new Map<number, number>();
            for (const page of pages) plain.set(page, page);
            for (const page of pages) plain.delete(page);
            sum += plain.size;
          }
          return sum;
        },
      },
      Math.ceil(500 / size),
      size === 100_000 ? 12 : 200,
    );
    return ratioFigure(`attach and detach of a page table, ${size} areas, to Map`, whole, 80);
  });
}

/** Reading which of the pages of 1 TiB were written, of which a hundred were. */
function dirty(): Figure[] {
  const space = new Space();
  const { table } = attach(space.iopt);
  space.map(TEBIBYTE, TEBIBYTE, TEBIBYTE);
  const [area] = [...space.iopt.areas];
  if (area === undefined) throw new Error('nothing was mapped');
  const next = numbers(5);
  const written = Array.from({ length: 100 }, () => area.firstPage + (next() % 2 ** 28));
  const plain = new Set<number>();
  const [subject, baseline] = compareAll(
    [
      (from, to) => {
        let found = 0;
        for (let i = from; i < to; i++) {
          for (const page of written) table.setDirty(page, 0);
          table.readDirty(area, true, (first) => {
            if (first >= firstOf(area)) found++;
          });
        }
        return found;
      },
      (from, to) => {
        let found = 0;
        for (let i = from; i < to; i++) {
          for (const page of written) plain.add(page);
          for (const page of plain) {
            if (page >= area.firstPage) found++;
            plain.delete(page);
          }
        }
        return found;
      },
    ],
    100,
  );
  const times = timed(subject, baseline);
  return [ratioFigure('100 writes and the dirty leaves of 1 TiB, to a Set', times, 100)];
}

export const benches: readonly Bench[] = [
  { name: 'translate', run: translate },
  { name: 'unmap and map', run: () => [...unmapAndMap(false), ...unmapAndMap(true)] },
  { name: 'large mappings', run: large },
  { name: 'copy', run: copy },
  { name: 'attach', run: attachAll },
  { name: 'dirty', run: dirty },
];
