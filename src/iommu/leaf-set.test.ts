/** Dirty leaves beside a plain set. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Random } from '../testing/random.ts';
import { LeafSet } from './leaf-set.ts';

const UNIT = 2048;

test('nothing is in an empty set', () => {
  assert.deepEqual([...new LeafSet(UNIT).starts(0, 2 ** 50)], []);
});

test('what starts at the borders of a range is in it, what starts beside it is not', () => {
  const set = new LeafSet(UNIT);
  for (const bit of [3, 4, 31, 32, 32_767, 32_768, 2 ** 30]) set.add(bit * UNIT);
  assert.deepEqual(
    [...set.starts(4 * UNIT, 32_768 * UNIT)].map((start) => start / UNIT),
    [4, 31, 32, 32_767, 32_768],
  );
  assert.deepEqual([...set.starts(4 * UNIT + 1, 31 * UNIT - 1)], []);
  set.clear(4 * UNIT, 32_767 * UNIT);
  assert.deepEqual(
    [...set.starts(0, 2 ** 50)].map((start) => start / UNIT),
    [3, 32_768, 2 ** 30],
  );
});

test('more leaves than a Set can hold are possible', () => {
  const set = new LeafSet(UNIT);
  const count = 2 ** 24 + 10;
  for (let bit = 0; bit < count; bit++) set.add(bit * UNIT);
  let found = 0;
  for (const start of set.starts(0, count * UNIT)) {
    assert.equal(start, found * UNIT);
    found++;
  }
  assert.equal(found, count);
});

test('random leaves: as a plain set', () => {
  const random = new Random(1);
  const set = new LeafSet(UNIT);
  const plain = new Set<number>();
  for (let round = 0; round < 2000; round++) {
    const from = random.below(100_000);
    const to = from + random.below(3000);
    if (random.oneIn(10)) {
      set.clear(from * UNIT, to * UNIT);
      for (const bit of [...plain]) if (from <= bit && bit <= to) plain.delete(bit);
    } else {
      set.add(from * UNIT);
      plain.add(from);
    }
    if (!random.oneIn(20)) continue;
    const wanted = [...plain].filter((bit) => from <= bit && bit <= to).sort((a, b) => a - b);
    assert.deepEqual(
      [...set.starts(from * UNIT, to * UNIT)].map((start) => start / UNIT),
      wanted,
    );
  }
});
