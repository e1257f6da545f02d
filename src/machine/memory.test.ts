import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Backing } from '../base/task.ts';
import { PhysicalMemory, pfnOf } from './memory.ts';

const GIBIBYTE = 2 ** 18; // pages

function backing(name: string): Backing {
  return { name, unit: 1, read: () => undefined, write: () => undefined };
}

const request = fc.record({
  which: fc.nat(2),
  first: fc.nat(12 * GIBIBYTE),
  count: fc.oneof(fc.integer({ min: 1, max: 4 * GIBIBYTE }), fc.integer({ min: 1, max: 8 })),
});

test('PhysicalMemory: every page has one frame of its own, whatever was asked for before and together', () => {
  fc.assert(
    fc.property(fc.array(request, { minLength: 1, maxLength: 12 }), (requests) => {
      const physical = new PhysicalMemory();
      const backings = ['a', 'b', 'c'].map(backing);
      const frameOf = new Map<string, number>();
      const ownerOf = new Map<number, string>();
      for (const { which, first, count } of requests) {
        const memory = backings[which];
        assert.ok(memory);
        const runs = physical.frames({ backing: memory, page: first, count });
        let next = first;
        for (const run of runs) {
          assert.equal(run.page, next);
          next += run.count;
          // The ends of a run, and where it crosses a window.
          const border = Math.ceil(run.page / GIBIBYTE) * GIBIBYTE;
          for (const page of [run.page, next - 1, border, border - 1]) {
            if (page < run.page || page >= next) continue;
            const name = [memory.name, page].join(' ');
            const pfn = pfnOf(run, page);
            assert.equal(frameOf.get(name) ?? pfn, pfn, 'a page keeps its frame');
            assert.equal(ownerOf.get(pfn) ?? name, name, 'a frame has one page');
            frameOf.set(name, pfn);
            ownerOf.set(pfn, name);
            assert.deepEqual(physical.locate(pfn), { backing: memory, page });
          }
        }
        assert.equal(next, first + count);
      }
    }),
  );
});

test('PhysicalMemory: a terabyte that was numbered at once is one run, and stays one', () => {
  const physical = new PhysicalMemory();
  const run = { backing: backing('large'), page: 0, count: 1024 * GIBIBYTE };
  assert.equal(physical.frames(run).length, 1);
  assert.equal(physical.frames(run).length, 1);
  assert.equal(physical.frames({ ...run, page: 5 * GIBIBYTE - 1, count: 2 }).length, 1);
});

test('PhysicalMemory: pins are counted by page and by run', () => {
  const physical = new PhysicalMemory();
  const memory = backing('pinned');
  const runs = [0, 5, 3].map((page) => {
    const [run] = physical.frames({ backing: memory, page, count: 4 });
    assert.ok(run);
    physical.pin(run);
    return run;
  });
  assert.deepEqual(
    [0, 3, 5, 8, 9].map((page) => physical.pinCount(memory, page)),
    [1, 2, 2, 1, 0],
  );
  for (const [done, run] of runs.entries()) {
    assert.equal(physical.pinCountTotal, 3 - done);
    physical.unpin(run);
    assert.throws(() => {
      physical.unpin(run);
    }, /unpinned/);
  }
  assert.equal(physical.pinCountTotal, 0);
});
