import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { PhysicalMemory } from '../machine/memory.ts';
import { SparseBacking } from '../testing/fake-client.ts';
import { ExtentTable, PROT_READ } from './page-table.ts';

const HALF_PAGE = 2048;

/** A range in half pages, as the mock IOMMU has them. */
function halves(first: number, count: number): Parameters<ExtentTable['unmap']>[0] {
  const last = first + count - 1;
  return {
    firstPage: Math.floor(first / 2),
    firstOffset: (first % 2) * HALF_PAGE,
    lastPage: Math.floor(last / 2),
    lastOffset: (last % 2) * HALF_PAGE + HALF_PAGE - 1,
  };
}

const mapping = fc.record({
  kind: fc.constantFrom('map' as const, 'unmap' as const),
  at: fc.nat(60),
  length: fc.integer({ min: 1, max: 12 }),
  page: fc.nat(100),
  offsetHalf: fc.nat(1),
  huge: fc.boolean(),
});

test('ExtentTable.translate answers as a list of half pages does, after maps and cuts', () => {
  fc.assert(
    fc.property(fc.array(mapping, { minLength: 1, maxLength: 30 }), (steps) => {
      const physical = new PhysicalMemory();
      const [small, large] = [new SparseBacking('small', 1), new SparseBacking('huge', 8)];
      const table = new ExtentTable([4096, HALF_PAGE]);
      // frame and offset behind each half page
      const plain = new Map<number, number>();
      const covered = (at: number, length: number): boolean =>
        Array.from({ length }, (_, i) => at + i).some((half) => plain.has(half));
      for (const { kind, at, length, page, offsetHalf, huge } of steps) {
        if (kind === 'unmap') {
          table.unmap(halves(at, length));
          for (let half = at; half < at + length; half++) plain.delete(half);
        } else if (!covered(at, length)) {
          const backing = huge ? large : small;
          const [run] = physical.frames({ backing, page, count: 10 });
          assert.ok(run);
          const offset = offsetHalf * HALF_PAGE;
          table.map({ span: halves(at, length), run, page, offset, prot: PROT_READ, small: false });
          for (let i = 0; i < length; i++) {
            const byte = offset + i * HALF_PAGE;
            const [frame] = physical.frames({
              backing,
              page: page + Math.floor(byte / 4096),
              count: 1,
            });
            assert.ok(frame);
            // Frames run downwards; within a unit of 8 pages upwards.
            const inUnit = frame.page % backing.unit;
            const pfn = frame.top - (frame.page - inUnit) - (backing.unit - 1) + inUnit;
            plain.set(at + i, pfn * 4096 + (byte % 4096));
          }
        }
        for (let half = 0; half < 80; half++) {
          const expected = plain.get(half);
          const [where, offset] = [Math.floor(half / 2), (half % 2) * HALF_PAGE];
          assert.equal(
            table.translate(where, offset + 5),
            expected === undefined ? -1 : expected + 5,
          );
          assert.equal(table.walk(where, offset)?.phys, expected);
        }
      }
    }),
    { numRuns: 200 },
  );
});
