/**
 * Pins: which pages of a page set are pinned, by how many users each, and the frames behind them.
 *
 * Nearly every page set is pinned in one piece, in one run of frames; that range is kept in fields, since among a million
 * page sets each further object costs as much as all the rest. Where users overlap in parts (copies of slices, cut areas,
 * accesses) the ranges are kept in order.
 *
 * Invariants: ranges are disjoint and cover exactly the pages that have a user; the pages of a range have the same users.
 * Words: users, domain-filled areas and accesses over a range; first and last, numbers of pages in the set, last inclusive.
 *
 * After the xarray and the interval trees of drivers/iommu/iommufd/pages.c (struct iopt_pages), behaviour only.
 */
import { PAGE_BYTES } from '../base/position.ts';
import { RangeMap, type Span } from '../base/range-map.ts';
import type { FrameRun, PhysicalMemory } from '../machine/memory.ts';

/** Pages [first, last] of a set with the same users. */
class Pin implements Span {
  readonly firstPage: number;
  readonly firstOffset = 0;
  readonly lastPage: number;
  readonly lastOffset = PAGE_BYTES - 1;
  readonly runs: readonly FrameRun[];
  users: number;

  constructor(first: number, last: number, how: { runs: readonly FrameRun[]; users: number }) {
    this.firstPage = first;
    this.lastPage = last;
    this.runs = how.runs;
    this.users = how.users;
  }

  get count(): number {
    return this.lastPage - this.firstPage + 1;
  }
}

/** Part of a pinned range in one run of frames. */
export type Piece = {
  readonly run: FrameRun;
  readonly page: number;
  readonly index: number;
  readonly count: number;
};

/** Finds and pins the frames of pages [first, last]; whatever it throws, nothing is pinned then. */
type PinPages = (first: number, last: number) => readonly FrameRun[];

export class Pins {
  readonly #physical: PhysicalMemory;
  /** of the only range; undefined if there is none, or `#many` holds them */
  #run: FrameRun | undefined;
  #first = 0;
  #users = 0;
  #many: RangeMap<Pin> | undefined;

  constructor(physical: PhysicalMemory) {
    this.#physical = physical;
  }

  get isEmpty(): boolean {
    return this.#run === undefined && this.#many === undefined;
  }

  /** For checks: the ranges with their users, ascending. */
  get ranges(): { readonly first: number; readonly last: number; readonly users: number }[] {
    const only = this.#onlyPin();
    const pins = this.#many ?? (only === undefined ? [] : [only]);
    return [...pins].map(({ firstPage, lastPage, users }) => ({
      first: firstPage,
      last: lastPage,
      users,
    }));
  }

  /**
   * Adds a user of pages [first, last]; those that had none are pinned first. What `pinPages` throws, and nothing changed.
   * @returns how many pages were pinned for it
   */
  add(first: number, last: number, pinPages: PinPages): number {
    if (this.isEmpty) {
      this.#start(first, pinPages(first, last));
      return last - first + 1;
    }
    if (this.#isOnly(first, last)) {
      this.#users++;
      return 0;
    }
    const pins = this.#split(first, last);
    const fresh = this.#pinMissing(pins, { first, last }, pinPages);
    for (const pin of within(pins, first, last)) pin.users++;
    let added = 0;
    for (const pin of fresh) {
      pins.insert(pin);
      added += pin.count;
    }
    return added;
  }

  /**
   * Takes a user of pages [first, last] away; what nobody uses any more is unpinned.
   * @returns how many pages that were
   */
  drop(first: number, last: number): number {
    const run = this.#run;
    if (run !== undefined && this.#isOnly(first, last)) {
      this.#users--;
      if (this.#users > 0) return 0;
      this.#physical.unpin(run);
      this.#run = undefined;
      return run.count;
    }
    const pins = this.#split(first, last);
    let removed = 0;
    for (const pin of within(pins, first, last)) {
      pin.users--;
      if (pin.users > 0) continue;
      pins.delete(pin);
      this.#unpin(pin);
      removed += pin.count;
    }
    if (pins.size === 0) this.#many = undefined;
    return removed;
  }

  /** The frames of pages [first, last], all of which are pinned, in order. */
  pieces(first: number, last: number): Piece[] {
    const run = this.#run;
    if (run !== undefined) {
      return [{ run, page: run.page + first - this.#first, index: first, count: last - first + 1 }];
    }
    const pieces: Piece[] = [];
    if (this.#many !== undefined) {
      for (const pin of within(this.#many, first, last)) addPieces(pieces, pin, { first, last });
    }
    return pieces;
  }

  /** The same, if all of them are pinned; 'none' if no page of them is, 'some' otherwise. */
  pinned(first: number, last: number): Piece[] | 'some' | 'none' {
    const run = this.#run;
    if (run !== undefined) {
      const end = this.#first + run.count - 1;
      if (this.#first <= first && last <= end) return this.pieces(first, last);
      return last < this.#first || end < first ? 'none' : 'some';
    }
    const pins = this.#many === undefined ? [] : within(this.#many, first, last);
    let next = first;
    for (const { firstPage, lastPage } of pins) {
      if (firstPage > next) return 'some';
      next = lastPage + 1;
    }
    if (next > last) return this.pieces(first, last);
    return pins.length === 0 ? 'none' : 'some';
  }

  #isOnly(first: number, last: number): boolean {
    const run = this.#run;
    return run !== undefined && this.#first === first && run.count === last - first + 1;
  }

  #onlyPin(): Pin | undefined {
    const run = this.#run;
    if (run === undefined) return undefined;
    const end = this.#first + run.count - 1;
    return new Pin(this.#first, end, { runs: [run], users: this.#users });
  }

  /** The first range, with one user; its pages are pinned. */
  #start(first: number, runs: readonly FrameRun[]): void {
    const [run] = runs;
    if (run !== undefined && runs.length === 1) {
      this.#run = run;
      this.#first = first;
      this.#users = 1;
      return;
    }
    const count = runs.reduce((sum, each) => sum + each.count, 0);
    this.#many = new RangeMap();
    this.#many.insert(new Pin(first, first + count - 1, { runs, users: 1 }));
  }

  #unpin({ runs }: Pin): void {
    for (const run of runs) this.#physical.unpin(run);
  }

  #pinMissing(
    pins: RangeMap<Pin>,
    { first, last }: { readonly first: number; readonly last: number },
    pinPages: PinPages,
  ): Pin[] {
    const fresh: Pin[] = [];
    const pin = (from: number, to: number): void => {
      if (from > to) return;
      fresh.push(new Pin(from, to, { runs: pinPages(from, to), users: 1 }));
    };
    try {
      let next = first;
      for (const { firstPage, lastPage } of within(pins, first, last)) {
        pin(next, firstPage - 1);
        next = lastPage + 1;
      }
      pin(next, last);
    } catch (error) {
      for (const each of fresh) this.#unpin(each);
      throw error;
    }
    return fresh;
  }

  /** Makes [first, last] end where ranges end, so that it can have users of its own. */
  #split(first: number, last: number): RangeMap<Pin> {
    let pins = this.#many;
    if (pins === undefined) {
      pins = this.#many = new RangeMap();
      const only = this.#onlyPin();
      if (only !== undefined) pins.insert(only);
      this.#run = undefined;
    }
    this.#cut(pins, first);
    this.#cut(pins, last + 1);
    return pins;
  }

  /** Makes a boundary before page `index`. */
  #cut(pins: RangeMap<Pin>, index: number): void {
    const pin = pins.at(index, 0);
    if (pin === undefined || pin.firstPage === index) return;
    const low: FrameRun[] = [];
    const high: FrameRun[] = [];
    let start = pin.firstPage;
    for (const run of pin.runs) {
      const at = index - start;
      if (at >= run.count) low.push(run);
      else if (at <= 0) high.push(run);
      else {
        const left = { ...run, count: at };
        const right = { ...run, page: run.page + at, count: run.count - at };
        this.#physical.pin(left);
        this.#physical.pin(right);
        this.#physical.unpin(run);
        low.push(left);
        high.push(right);
      }
      start += run.count;
    }
    const { firstPage, lastPage, users } = pin;
    pins.delete(pin);
    pins.insert(new Pin(firstPage, index - 1, { runs: low, users }));
    pins.insert(new Pin(index, lastPage, { runs: high, users }));
  }
}

/** The ranges that touch [first, last], ascending. */
function within(pins: RangeMap<Pin>, first: number, last: number): Pin[] {
  const found: Pin[] = [];
  let pin = pins.ceiling(first, 0);
  while (pin !== undefined && pin.firstPage <= last) {
    found.push(pin);
    pin = pin.lastPage < last ? pins.after(pin) : undefined;
  }
  return found;
}

function addPieces(
  pieces: Piece[],
  pin: Pin,
  { first, last }: { readonly first: number; readonly last: number },
): void {
  let index = pin.firstPage;
  for (const run of pin.runs) {
    const from = Math.max(index, first);
    const to = Math.min(index + run.count - 1, last);
    if (from <= to) {
      pieces.push({ run, page: run.page + from - index, index: from, count: to - from + 1 });
    }
    index += run.count;
  }
}
