/**
 * RangeMap alone, the structure under areas and extents, against a B+ tree in C (btree.c) with the same ranges in the same
 * process: lookup; lookup, delete and insert; the search for a gap.
 */
import { RangeMap, type Span } from '../src/base/range-map.ts';
import { btreeOf, NO_BTREE, type BTree } from './btree.ts';
import {
  compare,
  numbers,
  OPERATIONS,
  ratioFigure,
  scatteredPages,
  type Bench,
  type Figure,
  type Skip,
} from './measure.ts';

const SIZES = [1_000, 100_000, 1_000_000];
const LOOKUP_AT_MOST = 3;
const CHANGE_AT_MOST = 3;
const GAP_AT_MOST = 30;

function onePage(page: number): Span {
  return { firstPage: page, firstOffset: 0, lastPage: page, lastOffset: 4095 };
}

type Both = { readonly map: RangeMap<Span>; readonly tree: BTree };

function filled(pages: readonly number[]): Both | undefined {
  const tree = btreeOf(pages);
  const map = new RangeMap<Span>();
  for (const page of pages) map.insert(onePage(page));
  return tree && { map, tree };
}

/** A figure for each size, of pages that are scattered and asked for at random. */
function bySize(
  name: string,
  atMost: number,
  slices: (both: Both, asked: readonly number[]) => Parameters<typeof compare>[0],
): Figure[] | Skip {
  const figures: Figure[] = [];
  for (const size of SIZES) {
    const pages = scatteredPages(size, size);
    const both = filled(pages);
    if (both === undefined) return NO_BTREE;
    const next = numbers(1);
    const asked = Array.from({ length: OPERATIONS }, () => pages[next() % size] ?? 0);
    const timed = compare(slices(both, asked), OPERATIONS);
    figures.push(
      ratioFigure(`range map ${name}, ${size} ranges, to a B+ tree in C`, timed, atMost),
    );
  }
  return figures;
}

function lookups(): Figure[] | Skip {
  return bySize('lookup', LOOKUP_AT_MOST, ({ map, tree }, asked) => ({
    subject: (from, to) => {
      let found = 0;
      for (let i = from; i < to; i++) if (map.at(asked[i] ?? 0, 5) !== undefined) found++;
      return found;
    },
    baseline: tree.lookups(asked),
  }));
}

function changes(): Figure[] | Skip {
  return bySize('lookup, delete and insert', CHANGE_AT_MOST, ({ map, tree }, asked) => ({
    subject: (from, to) => {
      for (let i = from; i < to; i++) {
        const item = map.at(asked[i] ?? 0, 0);
        if (item === undefined) throw new Error('a range is not there');
        map.delete(item);
        map.insert(item);
      }
      return map.size;
    },
    baseline: tree.changes(asked, true),
  }));
}

/** First fit looks for a gap that does not exist among a million ranges side by side, then for the only one there is. */
function gaps(): Figure[] | Skip {
  const hole = 500_000;
  const both = filled(Array.from({ length: 1_000_000 }, (_, i) => i).filter((i) => i !== hole));
  if (both === undefined) return NO_BTREE;
  const { map, tree } = both;
  const timed = compare(
    {
      subject: (from, to) => {
        let sum = 0;
        for (let i = from; i < to; i++) sum += map.nextWideGap(0, 1 + (i & 1))?.firstPage ?? 0;
        return sum;
      },
      baseline: tree.gaps(),
    },
    OPERATIONS,
  );
  return [
    ratioFigure('range map gap search, 1000000 ranges, to a B+ tree in C', timed, GAP_AT_MOST),
  ];
}

export const benches: readonly Bench[] = [
  { name: 'range map lookup', run: lookups },
  { name: 'range map changes', run: changes },
  { name: 'range map gap search', run: gaps },
];
