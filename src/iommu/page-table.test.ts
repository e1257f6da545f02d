/**
 * The table of extents: translation, cuts, and which leaf a dirty bit stands for. Leaf sizes: pt_compute_best_pgsize of
 * drivers/iommu/generic_pt/pt_iter.h.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { SparseBacking } from '../testing/fake-client.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { spanOf } from '../base/position.ts';
import { ExtentTable, PROT_READ, PROT_WRITE } from './page-table.ts';

const PAGE = 4096;
const SIZES = [2 ** 21, 2 ** 16, PAGE, 2048];

/** A table with `pages` pages of memory mapped from page number `at`. */
function mapped(options: {
  at?: number;
  pages?: number;
  unit?: number;
  small?: boolean;
}): ExtentTable {
  const { at = 512, pages = 1024, unit = 1, small = false } = options;
  const memory = new PhysicalMemory();
  const [run] = memory.frames({ backing: new SparseBacking('ram', unit), page: 0, count: pages });
  assert.ok(run);
  const table = new ExtentTable(SIZES);
  const first = BigInt(at * PAGE);
  table.map({
    span: spanOf(first, first + BigInt(pages * PAGE) - 1n),
    run,
    page: 0,
    offset: 0,
    prot: PROT_READ | PROT_WRITE,
    small,
  });
  return table;
}

function dirtyOf(table: ExtentTable, clear = false): [number, number][] {
  const found: [number, number][] = [];
  table.readDirty(spanOf(0n, 2n ** 64n - 1n), clear, (first, size) => {
    found.push([Number(first) / PAGE, size]);
  });
  return found;
}

test('what is not mapped leads nowhere', () => {
  const table = mapped({});
  for (const page of [0, 511, 1536, 2 ** 50]) {
    assert.equal(table.translate(page, 0), -1);
    assert.equal(table.walk(page, 0), undefined);
    assert.equal(table.setDirty(page, 0), false);
  }
});

test('a walk says where the byte is, and what may be done to it', () => {
  const table = mapped({});
  const found = table.walk(514, 7);
  assert.equal(found?.offset, 2 * PAGE + 7);
  assert.equal(found.phys, table.translate(514, 7));
  assert.equal(found.phys % PAGE, 7);
  assert.equal(found.prot, PROT_READ | PROT_WRITE);
});

test('pages of ordinary memory are no neighbours, those of a huge page are', () => {
  const small = mapped({});
  assert.notEqual(small.translate(513, 0), small.translate(512, 0) + PAGE);
  const huge = mapped({ unit: 512 });
  assert.equal(huge.translate(513, 0), huge.translate(512, 0) + PAGE);
  assert.notEqual(huge.translate(1024, 0), huge.translate(1023, 0) + PAGE);
});

test('unmapping takes parts away and leaves the rest where it was', () => {
  const table = mapped({});
  const before = [table.translate(512, 0), table.translate(1535, 9)];
  table.setDirty(512, 0);
  table.setDirty(700, 0);
  table.setDirty(1535, 0);
  table.unmap(spanOf(BigInt(600 * PAGE), BigInt(800 * PAGE) - 1n));
  assert.deepEqual([table.translate(512, 0), table.translate(1535, 9)], before);
  assert.equal(table.translate(600, 0), -1);
  assert.equal(table.translate(799, 4095), -1);
  assert.notEqual(table.translate(599, 4095), -1);
  assert.notEqual(table.translate(800, 0), -1);
  assert.deepEqual(dirtyOf(table), [
    [512, PAGE],
    [1535, PAGE],
  ]);
  table.unmap(spanOf(0n, 2n ** 64n - 1n));
  assert.deepEqual([...table.spans()], []);
});

test('a dirty bit stands for a page of ordinary memory', () => {
  const table = mapped({});
  table.setDirty(520, 4095);
  assert.deepEqual(dirtyOf(table, true), [[520, PAGE]]);
  assert.deepEqual(dirtyOf(table), []);
});

test('neighbouring leaves are told as one run', () => {
  const table = mapped({});
  for (const page of [520, 521, 523]) table.setDirty(page, 0);
  assert.deepEqual(dirtyOf(table), [
    [520, 2 * PAGE],
    [523, PAGE],
  ]);
});

test('a huge page is one leaf where IOVA and memory are aligned alike', () => {
  const table = mapped({ unit: 512 });
  table.setDirty(600, 5);
  assert.deepEqual(dirtyOf(table), [[512, 2 ** 21]]);
});

test('an IOVA that is aligned to less makes smaller leaves', () => {
  // 16 pages past a border of 2 MiB: 64 KiB is the most.
  const table = mapped({ at: 528, unit: 512 });
  table.setDirty(528, 0);
  assert.deepEqual(dirtyOf(table, true), [[528, 2 ** 16]]);
  // An odd number of pages: single ones.
  const odd = mapped({ at: 513, unit: 512 });
  odd.setDirty(513, 0);
  assert.deepEqual(dirtyOf(odd), [[513, PAGE]]);
});

test('with large pages off every page is a leaf', () => {
  const table = mapped({ unit: 512, small: true });
  table.setDirty(600, 0);
  assert.deepEqual(dirtyOf(table), [[600, PAGE]]);
});

test('a leaf that starts before the asked range is told apart', () => {
  const table = mapped({ unit: 512 });
  table.setDirty(512, 0);
  table.setDirty(1024, 0);
  const found: bigint[] = [];
  table.readDirty(spanOf(BigInt(600 * PAGE), BigInt(1100 * PAGE)), false, (first) => {
    found.push(first / BigInt(PAGE));
  });
  assert.deepEqual(found, [512n, 1024n]);
});
