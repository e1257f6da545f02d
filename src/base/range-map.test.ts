import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { RangeMap } from './range-map.ts';
import type { Span } from './range-map.ts';

/** The plain model: an array in no order, addresses as bigint. */
class Plain {
  items: Span[] = [];
  sorted(): Span[] {
    return [...this.items].sort((a, b) => (first(a) < first(b) ? -1 : 1));
  }
  overlaps(span: Span): Span[] {
    return this.sorted().filter((item) => first(item) <= last(span) && last(item) >= first(span));
  }
}

function first(span: Span): bigint {
  return (BigInt(span.firstPage) << 12n) + BigInt(span.firstOffset);
}

function last(span: Span): bigint {
  return (BigInt(span.lastPage) << 12n) + BigInt(span.lastOffset);
}

function span(firstAddress: bigint, lastAddress: bigint): Span {
  return {
    firstPage: Number(firstAddress >> 12n),
    firstOffset: Number(firstAddress & 0xfffn),
    lastPage: Number(lastAddress >> 12n),
    lastOffset: Number(lastAddress & 0xfffn),
  };
}

/** One page, or several. */
function pages(page: number, count = 1): Span {
  return { firstPage: page, firstOffset: 0, lastPage: page + count - 1, lastOffset: 4095 };
}

/** Numbers that look random, the same for the same seed: mulberry32. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

function nth(items: readonly Span[], index: number): Span {
  const item = items[index];
  assert.ok(item);
  return item;
}

/** Asks everything about a position of both. */
function compareAt(map: RangeMap<Span>, sorted: readonly Span[], address: bigint): void {
  const page = Number(address >> 12n);
  const offset = Number(address & 0xfffn);
  const floor = sorted.findLast((item) => first(item) <= address);
  const ceiling = sorted.find((item) => last(item) >= address);
  assert.equal(map.floor(page, offset), floor);
  assert.equal(map.ceiling(page, offset), ceiling);
  assert.equal(
    map.at(page, offset),
    floor !== undefined && last(floor) >= address ? floor : undefined,
  );
}

function compareGap(
  map: RangeMap<Span>,
  sorted: readonly Span[],
  page: number,
  bytes: bigint,
): void {
  const expected = sorted.find((item, i) => {
    const before = sorted[i - 1];
    const free = before === undefined ? first(item) : first(item) - last(before) - 1n;
    return first(item) >= BigInt(page) << 12n && free >= bytes;
  });
  assert.equal(map.nextWideGap(page, Number(bytes) / 4096), expected);
}

// Where ranges lie: a few pages with many ranges in each; bytes side by side; pages that a double holds only just; the
// end of the address space.
const arenas = [
  { base: 0n, bytes: 40n << 12n, longest: 6000 },
  { base: 0x5000n, bytes: 2000n, longest: 3 },
  { base: ((1n << 41n) + 3n) << 12n, bytes: 400n << 12n, longest: 30_000 },
  { base: (1n << 64n) - (100n << 12n), bytes: 100n << 12n, longest: 9000 },
];

const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('insert', 'insert', 'delete', 'look', 'gap'),
    where: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    length: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    aligned: fc.boolean(),
  }),
  { minLength: 1, maxLength: 300, size: 'max' },
);

test('RangeMap answers as a plain sorted array does, ranges in pages or smaller', () => {
  fc.assert(
    fc.property(fc.constantFrom(...arenas), steps, (arena, sequence) => {
      const map = new RangeMap<Span>();
      const plain = new Plain();
      for (const { kind, where, length, aligned } of sequence) {
        let low = arena.base + BigInt(Math.floor(where * Number(arena.bytes)));
        let high = low + BigInt(Math.floor(length * arena.longest));
        if (aligned) [low, high] = [low & ~0xfffn, high | 0xfffn];
        if (high >= 1n << 64n) high = (1n << 64n) - 1n;
        const range = span(low, high);
        const overlaps = plain.overlaps(range);
        const { firstPage, firstOffset, lastPage, lastOffset } = range;
        assert.equal(map.firstOverlap(firstPage, firstOffset, lastPage, lastOffset), overlaps[0]);
        if (kind === 'insert') {
          if (overlaps.length > 0) {
            assert.throws(() => {
              map.insert(range);
            }, /overlaps/);
          } else {
            map.insert(range);
            plain.items.push(range);
          }
        } else if (kind === 'delete' && plain.items.length > 0) {
          const [item] = plain.items.splice(Math.floor(where * plain.items.length), 1);
          assert.ok(item);
          map.delete(item);
          assert.throws(() => {
            map.delete(item);
          }, /not in the map/);
        } else if (kind === 'look') {
          compareAt(map, plain.sorted(), low);
          const sorted = plain.sorted();
          assert.equal(
            map.after(range),
            sorted.find((item) => first(item) > low),
          );
          assert.equal(
            map.before(range),
            sorted.findLast((item) => first(item) < low),
          );
        } else {
          compareGap(map, plain.sorted(), Math.floor(firstPage), high - low);
        }
        map.verify();
        assert.equal(map.size, plain.items.length);
      }
      assert.deepEqual([...map], plain.sorted());
    }),
    { numRuns: 100 },
  );
});

// The tree has three levels from some 2,000 ranges on; these grow and shrink it through them.
for (const order of ['scattered', 'ascending', 'descending', 'bytes'] as const) {
  test(`RangeMap keeps its invariants while it grows to 20,000 ranges and shrinks, ${order}`, () => {
    const next = numbers(order.length);
    const map = new RangeMap<Span>();
    const count = 20_000;
    const all = Array.from({ length: count }, (_, i) => {
      if (order === 'bytes') return span(BigInt(i), BigInt(i));
      return pages((order === 'descending' ? count - i : i) * 3);
    });
    const shuffled = [...all];
    if (order === 'scattered' || order === 'bytes') {
      for (let i = count - 1; i > 0; i--) {
        const j = next(i + 1);
        [shuffled[i], shuffled[j]] = [nth(shuffled, j), nth(shuffled, i)];
      }
    }
    for (const [i, item] of shuffled.entries()) {
      map.insert(item);
      if (i % 1000 === 0) map.verify();
    }
    map.verify();
    const sorted = [...all].sort((a, b) => (first(a) < first(b) ? -1 : 1));
    assert.deepEqual([...map], sorted);
    for (let i = 0; i < 2000; i++) {
      const at = next(count);
      const item = nth(sorted, at);
      assert.equal(map.at(item.firstPage, item.firstOffset), item);
      assert.equal(map.after(item), sorted[at + 1]);
      assert.equal(map.before(item), sorted[at - 1]);
    }
    // In the order they came, half of them put back once.
    for (const [i, item] of shuffled.entries()) {
      map.delete(item);
      if (i % 2 === 0) {
        map.insert(item);
        if (i % 400 === 0) compareGap(map, [...map], next(count * 3), 3n << 12n);
        map.delete(item);
      }
      if (i % 1000 === 0) map.verify();
    }
    assert.equal(map.size, 0);
    map.verify();
    assert.deepEqual([...map], []);
    assert.equal(map.nextWideGap(0, 0), undefined);
  });
}

test('RangeMap: a leaf that became small between large ones, its only parent gone, and back', () => {
  const next = numbers(7);
  const map = new RangeMap<Span>();
  const live = new Set<Span>();
  // Waves: fill, then leave one of 50, so that nodes of every filling meet.
  for (let wave = 0; wave < 6; wave++) {
    while (live.size < 9000) {
      const item = pages(next(2 ** 31) * 2 ** 10);
      if (map.at(item.firstPage, 0) !== undefined) continue;
      map.insert(item);
      live.add(item);
    }
    map.verify();
    const keepFrom = next(2 ** 31) * 2 ** 10;
    for (const item of live) {
      if (wave % 2 === 0 ? next(50) === 0 : item.firstPage > keepFrom) continue;
      map.delete(item);
      live.delete(item);
    }
    map.verify();
  }
  const sorted = [...live].sort((a, b) => a.firstPage - b.firstPage);
  assert.deepEqual([...map], sorted);
});

test('RangeMap refuses a range that ends before it starts', () => {
  const map = new RangeMap<Span>();
  assert.throws(() => {
    map.insert({ firstPage: 1, firstOffset: 5, lastPage: 1, lastOffset: 4 });
  }, /empty range \[0x1005, 0x1004\]/);
  assert.equal(map.size, 0);
});

test('RangeMap names both ranges when they overlap', () => {
  const map = new RangeMap<Span>();
  map.insert(pages(2, 3));
  assert.throws(() => {
    map.insert(pages(4, 2));
  }, /\[0x4000, 0x5fff\] overlaps \[0x2000, 0x4fff\]/);
  assert.throws(() => {
    map.insert(pages(1, 2));
  }, /\[0x1000, 0x2fff\] overlaps \[0x2000, 0x4fff\]/);
});

test('RangeMap.delete refuses an equal range that is another item', () => {
  const map = new RangeMap<Span>();
  map.insert(pages(7));
  assert.throws(() => {
    map.delete(pages(7));
  }, /not in the map/);
  assert.equal(map.size, 1);
});

test('RangeMap.nextWideGap counts parts of pages and starts at address 0', () => {
  const map = new RangeMap<Span>();
  const low = pages(2);
  const close = span(0x3000n, 0x3fffn); // no gap
  const far = span(0x4800n, 0x5000n); // half a page
  for (const item of [low, close, far]) map.insert(item);
  assert.equal(map.nextWideGap(0, 2), low);
  assert.equal(map.nextWideGap(0, 2.25), undefined);
  assert.equal(map.nextWideGap(3, 0.5), far);
  assert.equal(map.nextWideGap(3, 0.75), undefined);
  assert.equal(map.nextWideGap(3, 0), close);
});

test('RangeMap.nextWideGap finds a gap again that a delete made', () => {
  const map = new RangeMap<Span>();
  const items = Array.from({ length: 10_000 }, (_, page) => pages(page));
  for (const item of items) map.insert(item);
  assert.equal(map.nextWideGap(0, 1), undefined);
  // Page 64 begins a leaf, so that the bound of a leaf other than its own has to rise.
  for (const page of [4000, 63, 64, 128]) {
    map.delete(nth(items, page));
    assert.equal(map.nextWideGap(0, 1), items[page + 1]);
    map.insert(nth(items, page));
    map.verify();
    assert.equal(map.nextWideGap(0, 1), undefined);
  }
});

test('RangeMap iterates over what is there when it gets there', () => {
  const map = new RangeMap<Span>();
  const items = Array.from({ length: 200 }, (_, i) => pages(i * 2));
  for (const item of items) map.insert(item);
  const seen: number[] = [];
  for (const item of map) {
    seen.push(item.firstPage);
    if (item.firstPage % 4 === 0) map.delete(item);
    const ahead = items[seen.length + 5];
    if (item.firstPage === 100) map.insert(pages(101));
    if (item.firstPage === 10 && ahead !== undefined) map.delete(ahead);
  }
  const expected = items.map((item) => item.firstPage).filter((page) => page !== 22);
  expected.push(101);
  assert.deepEqual(
    seen,
    expected.sort((a, b) => a - b),
  );
  map.verify();
});

test('RangeMap.numberAt gives the number of the item, wherever leaves were divided or joined', () => {
  const next = numbers(11);
  const map = new RangeMap<Span>({ numbers: true });
  const items: Span[] = [];
  const starts = new Set<number>();
  while (starts.size < 5000) starts.add(next(2 ** 31) * 64);
  for (const page of starts) {
    const item =
      page % 3 === 0 ? span(BigInt(page) << 12n, (BigInt(page) << 12n) + 99n) : pages(page);
    items.push(item);
    map.insert(item, page / 4);
  }
  const check = (): void => {
    for (const { firstPage, lastOffset } of items) {
      assert.equal(map.numberAt(firstPage, 99), firstPage / 4);
      assert.equal(map.numberAt(firstPage, 100), lastOffset === 99 ? NaN : firstPage / 4);
      assert.equal(map.numberAt(firstPage + 1, 0), NaN);
    }
  };
  check();
  for (const item of items.splice(0, 4500)) map.delete(item);
  check();
  assert.equal(map.numberAt(0, 0), NaN);
});

test('RangeMap.clear leaves an empty map that can be used', () => {
  const map = new RangeMap<Span>();
  for (let i = 0; i < 1000; i++) map.insert(pages(i));
  map.clear();
  assert.equal(map.size, 0);
  assert.equal(map.at(5, 0), undefined);
  map.insert(pages(5));
  assert.deepEqual([...map], [pages(5)]);
  map.verify();
});

test('RangeMap: an insert trusts a search that found nothing only for that range, and until the map changes', () => {
  const map = new RangeMap<Span>();
  const isFree = (page: number): boolean => map.firstOverlap(page, 0, page, 4095) === undefined;
  map.insert(pages(10));
  map.insert(pages(35));
  assert.ok(isFree(20));
  map.insert(pages(20));
  assert.throws(() => {
    map.insert(pages(20));
  }, /overlaps/);
  assert.ok(isFree(30));
  assert.throws(() => {
    map.insert(pages(30, 11));
  }, /overlaps/);
  assert.throws(() => {
    map.insert({ ...pages(30), firstPage: 20, firstOffset: 1 });
  }, /overlaps/);
  assert.ok(isFree(30));
  assert.equal(map.at(11, 0), undefined);
  map.insert(pages(30));
  assert.deepEqual(
    [...map].map(({ firstPage }) => firstPage),
    [10, 20, 30, 35],
  );
  map.verify();
});
