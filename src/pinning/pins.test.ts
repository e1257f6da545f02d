import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { PhysicalMemory, type FrameRun } from '../machine/memory.ts';
import { SparseBacking } from '../testing/fake-client.ts';
import { Pins } from './pins.ts';

const PAGES = 24;
/** Page 0 of the set is this page of the memory behind it. */
const BASE = 100;

/** Pages of one memory, a few to a run, so that ranges have several. */
function pinner(physical: PhysicalMemory, backing: SparseBacking) {
  return (first: number, last: number): readonly FrameRun[] => {
    const runs: FrameRun[] = [];
    for (let page = first; page <= last; page += 5) {
      const count = Math.min(5, last - page + 1);
      runs.push(...physical.frames({ backing, page: BASE + page, count }));
    }
    for (const run of runs) physical.pin(run);
    return runs;
  };
}

const framesOf = (pieces: ReturnType<Pins['pinned']>): number[] =>
  typeof pieces === 'string'
    ? []
    : pieces.flatMap(({ page, count }) => Array.from({ length: count }, (_, i) => page + i));

const pagesOf = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => BASE + first + i);

function shuffledDrops(users: readonly (readonly [number, number])[], order: readonly number[]) {
  return users
    .map((range, i) => ({ range, key: order[i] ?? i }))
    .sort((a, b) => a.key - b.key)
    .map(({ range }) => range);
}

test('pins: every page has the users that were added, is pinned once, and is let go with the last of them', () => {
  const range = fc
    .tuple(fc.nat(PAGES - 1), fc.nat(PAGES - 1))
    .map(([a, b]): [number, number] => (a < b ? [a, b] : [b, a]));
  const order = fc.array(fc.nat(1000), { minLength: 12, maxLength: 12 });
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), order, (users, keys) => {
      const physical = new PhysicalMemory();
      const backing = new SparseBacking('memory');
      const pins = new Pins(physical);
      const pin = pinner(physical, backing);
      const counts = new Array<number>(PAGES).fill(0);
      const change = ([first, last]: readonly [number, number], by: number): number => {
        let crossed = 0;
        for (let page = first; page <= last; page++) {
          const before = counts[page] ?? 0;
          counts[page] = before + by;
          if (before === 0 || counts[page] === 0) crossed++;
        }
        return crossed;
      };
      const check = (): void => {
        const seen = new Array<number>(PAGES).fill(0);
        let previous = -1;
        for (const { first, last, users: number } of pins.ranges) {
          assert.ok(first > previous && last >= first && number > 0);
          seen.fill(number, first, last + 1);
          previous = last;
        }
        assert.deepEqual(seen, counts);
        assert.equal(
          pins.isEmpty,
          counts.every((count) => count === 0),
        );
        for (const [first, last] of users) {
          const used = counts.slice(first, last + 1).filter((count) => count > 0).length;
          const pinned = pins.pinned(first, last);
          if (used === 0) assert.equal(pinned, 'none');
          else if (used <= last - first) assert.equal(pinned, 'some');
          else assert.deepEqual(framesOf(pinned), pagesOf(first, last));
        }
        counts.forEach((count, page) => {
          assert.equal(physical.pinCount(backing, BASE + page), count > 0 ? 1 : 0);
        });
      };
      for (const [first, last] of users) {
        assert.equal(pins.add(first, last, pin), change([first, last], 1));
        check();
        assert.deepEqual(framesOf(pins.pieces(first, last)), pagesOf(first, last));
      }
      for (const [first, last] of shuffledDrops(users, keys)) {
        assert.equal(pins.drop(first, last), change([first, last], -1));
        check();
      }
      assert.equal(physical.pinCountTotal, 0);
    }),
  );
});

test('pins: where pinning a part fails, the parts before it are let go and nobody became a user', () => {
  const physical = new PhysicalMemory();
  const backing = new SparseBacking('memory');
  const pins = new Pins(physical);
  const pin = pinner(physical, backing);
  pins.add(4, 5, pin);
  pins.add(10, 12, pin);
  const before = physical.pinCountTotal;
  assert.throws(
    () =>
      pins.add(0, 20, (first, last) => {
        if (first > 12) throw new Error('no more memory');
        return pin(first, last);
      }),
    /no more memory/,
  );
  assert.equal(physical.pinCountTotal, before);
  assert.deepEqual(pins.ranges, [
    { first: 4, last: 5, users: 1 },
    { first: 10, last: 12, users: 1 },
  ]);
});
