import assert from 'node:assert/strict';
import test from 'node:test';
import { btreeOf, NO_BTREE } from './btree.ts';
import { numbers, scatteredPages } from './measure.ts';

test('the B+ tree in C finds every page that it holds and no other, after deletes and inserts too', (t) => {
  const pages = scatteredPages(20_000, 7);
  const tree = btreeOf(pages);
  if (tree === undefined) {
    t.skip(NO_BTREE.skip);
    return;
  }
  const next = numbers(8);
  const asked = Array.from({ length: 50_000 }, () => pages[next() % pages.length] ?? 0);
  assert.equal(tree.changes(asked, true)(0, asked.length), pages.length);
  assert.equal(tree.lookups(pages)(0, pages.length), pages.length);
  const held = new Set(pages);
  const others = pages.map((page) => page + 1).filter((page) => !held.has(page));
  assert.equal(tree.lookups(others)(0, others.length), 0);
});

test('the B+ tree in C finds the first free range that is wide enough', (t) => {
  const hole = 30_000;
  const tree = btreeOf(
    Array.from({ length: 50_000 }, (_, page) => page).filter((page) => page !== hole),
  );
  if (tree === undefined) {
    t.skip(NO_BTREE.skip);
    return;
  }
  // By turns for one page, before the page behind the hole, and for two, which there are not.
  assert.equal(tree.gaps()(0, 4), 2 * (hole + 1));
});
