/**
 * RangeMap alone, the structure under areas and extents, against what a plain program would use for the same keys: a
 * binary search over a sorted Float64Array, and a Map. Informs; the promises are made for the engine (engine.ts).
 */
import { RangeMap, type Span } from '../src/base/range-map.ts';
import {
  binarySearch,
  compare,
  compareAll,
  numbers,
  ratioFigure,
  scatteredPages,
  type Bench,
  type Figure,
} from './measure.ts';

const SIZES = [1_000, 100_000, 1_000_000];
const OPERATIONS = 50_000;

function onePage(page: number): Span {
  return { firstPage: page, firstOffset: 0, lastPage: page, lastOffset: 4095 };
}

function filled(pages: readonly number[]): { map: RangeMap<Span>; items: Span[] } {
  const map = new RangeMap<Span>();
  const items = pages.map(onePage);
  for (const item of items) map.insert(item);
  return { map, items };
}

function lookups(): Figure[] {
  return SIZES.map((size) => {
    const pages = scatteredPages(size, size);
    const { map } = filled(pages);
    const sorted = Float64Array.from(pages).sort();
    const next = numbers(1);
    const asked = Float64Array.from({ length: OPERATIONS }, () => pages[next() % size] ?? 0);
    const timed = compare(
      {
        subject: (from, to) => {
          let found = 0;
          for (let i = from; i < to; i++) if (map.at(asked[i] ?? 0, 5) !== undefined) found++;
          return found;
        },
        baseline: (from, to) => {
          let sum = 0;
          for (let i = from; i < to; i++) sum += binarySearch(sorted, asked[i] ?? 0);
          return sum;
        },
      },
      OPERATIONS,
    );
    return ratioFigure(`range map lookup, ${size} ranges, to binary search`, timed);
  });
}

function changes(): Figure[] {
  return SIZES.map((size) => {
    const pages = scatteredPages(size, size);
    const { map, items } = filled(pages);
    const plain = new Map(pages.map((page) => [page, 0]));
    const next = numbers(2);
    const asked = Int32Array.from({ length: OPERATIONS }, () => next() % size);
    const timed = compare(
      {
        subject: (from, to) => {
          for (let i = from; i < to; i++) {
            const item = items[asked[i] ?? 0];
            if (item === undefined) continue;
            map.delete(item);
            map.insert(item);
          }
          return map.size;
        },
        baseline: (from, to) => {
          for (let i = from; i < to; i++) {
            const page = pages[asked[i] ?? 0] ?? 0;
            plain.delete(page);
            plain.set(page, i);
          }
          return plain.size;
        },
      },
      OPERATIONS,
    );
    return ratioFigure(`range map delete and insert, ${size} ranges, to Map's`, timed);
  });
}

/** First fit looks for a gap that does not exist among areas side by side, then for the only one there is. */
function gaps(): Figure[] {
  const [small, large] = [1_000, 1_000_000].map((size) => {
    const { map, items } = filled(Array.from({ length: size }, (_, i) => i));
    const removed = items[Math.floor(size / 2)];
    if (removed !== undefined) map.delete(removed);
    return map;
  });
  const search =
    (map: RangeMap<Span> | undefined) =>
    (from: number, to: number): number => {
      let sum = 0;
      for (let i = from; i < to; i++) sum += map?.nextWideGap(0, 1 + (i & 1))?.firstPage ?? 0;
      return sum;
    };
  const [few = NaN, many = NaN] = compareAll([search(small), search(large)], 10_000);
  const name = 'range map gap search, 1000000 ranges to 1000';
  return [ratioFigure(name, { subject: many, baseline: few })];
}

export const benches: readonly Bench[] = [
  { name: 'range-map', run: () => [...lookups(), ...changes(), ...gaps()] },
];
