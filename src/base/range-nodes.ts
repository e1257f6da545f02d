/**
 * The nodes of a RangeMap: records of numbers in one buffer for all leaves and one for all inner nodes. What belongs to a
 * node lies side by side, because each page of memory that a search touches costs more than all its comparisons.
 *
 * Words: a node is the place of its record in the buffer, counted in cells of eight bytes. A key is where an item starts, the
 * number of its first page and a half more if it starts inside that page; an end is the number of its last page and a half
 * more if it covers that page to its end. So two numbers decide whether items meet, except within one page, where the items
 * have to be asked. A position is a place in order, leaf + index. An entry is the place of an item in `items`, which it keeps
 * while it is in the map, so that inserts and splits move numbers only.
 */

/* eslint-disable @typescript-eslint/no-non-null-assertion -- every index lies within its array by the invariants of
   range-map.ts; asking again would cost on each step of each search */

/** A closed range of positions that an item covers; must not change while the item is in a map. */
export type Span = {
  readonly firstPage: number;
  readonly firstOffset: number;
  readonly lastPage: number;
  readonly lastOffset: number;
};

export const PAGE_BYTES = 4096;
/** kids of an inner node */
export const FANOUT = 64;
/** items of a leaf: fewer, because each insert and delete moves half of them */
export const LEAF = 32;
export const NONE = -1;

/** a part of a page, in keys and ends; exact, as page numbers are below 2^52 */
export const HALF = 0.5;
const BLOCK = 8;

// A record, in cells: the gap; count and parent; previous and next leaf (leaves only); the keys. Behind the keys of a leaf
// follow ends and entries, behind those of an inner node its kids. Cells hold a double or two 32-bit integers.
const GAP = 0;
const COUNT = 2; // in halves of cells, as the following three
const PARENT = 3;
const PREVIOUS = 4;
const NEXT = 5;
export const KEYS = 3;
export const ENDS = KEYS + LEAF;
const ENTRIES = ENDS + LEAF;
const LEAF_CELLS = ENTRIES + LEAF / 2;
const KIDS = KEYS + FANOUT;
const INNER_CELLS = KIDS + FANOUT / 2;

export function keyOf(page: number, offset: number): number {
  return offset === 0 ? page : page + HALF;
}

export function endOf(page: number, offset: number): number {
  return offset === PAGE_BYTES - 1 ? page + HALF : page;
}

/** Whether a key and an end are those of items that start and end at page boundaries. */
function aligned(key: number, end: number): boolean {
  return Math.floor(key) === key && Math.floor(end) !== end;
}

/** What lies between an end and a key, in pages and parts of pages. */
export function gapBetween(previous: Span | undefined, item: Span): number {
  if (previous === undefined) return item.firstPage + item.firstOffset / PAGE_BYTES;
  const offsets = item.firstOffset - previous.lastOffset - 1;
  return item.firstPage - previous.lastPage + offsets / PAGE_BYTES;
}

// Searching an inner node takes two sums of comparisons instead of a binary search: nothing for the processor to guess wrong,
// and the lines of memory, mostly in the cache, are fetched at once. A leaf is mostly not in the cache; there a binary search,
// which touches fewer lines, is a third faster among a million ranges. Keys ascend, and unused ones are Infinity.

/** The number of keys from `first` on, FANOUT of them, that are not greater than `key`. */
function upperBoundInner(keys: Float64Array, first: number, key: number): number {
  const block =
    Number(keys[first + 7]! <= key) +
    Number(keys[first + 15]! <= key) +
    Number(keys[first + 23]! <= key) +
    Number(keys[first + 31]! <= key) +
    Number(keys[first + 39]! <= key) +
    Number(keys[first + 47]! <= key) +
    Number(keys[first + 55]! <= key);
  return block * BLOCK + upperBoundBlock(keys, first + block * BLOCK, key);
}

function upperBoundBlock(keys: Float64Array, first: number, key: number): number {
  return (
    Number(keys[first]! <= key) +
    Number(keys[first + 1]! <= key) +
    Number(keys[first + 2]! <= key) +
    Number(keys[first + 3]! <= key) +
    Number(keys[first + 4]! <= key) +
    Number(keys[first + 5]! <= key) +
    Number(keys[first + 6]! <= key) +
    Number(keys[first + 7]! <= key)
  );
}

/** All leaves of a map, or all its inner nodes: what both have in common, then what only one has. */
export class Nodes<T extends Span> {
  cells = new Float64Array(0);
  /** the same memory */
  ints = new Int32Array(0);
  /** by entry */
  readonly items: (T | undefined)[] = [];
  /** by entry; empty unless wanted */
  numbers = new Float64Array(0);
  /** cells of a record */
  readonly #record: number;
  /** keys that a node has room for */
  readonly #width: number;
  readonly #withNumbers: boolean;
  #used = 0;
  /** nodes given back, chained through their parents */
  #free = NONE;
  /** entries that are free */
  readonly #freeEntries: number[] = [];

  constructor(kind: 'leaves' | 'inner', withNumbers = false) {
    this.#record = kind === 'leaves' ? LEAF_CELLS : INNER_CELLS;
    this.#width = kind === 'leaves' ? LEAF : FANOUT;
    this.#withNumbers = withNumbers;
  }

  /** @returns an empty node */
  alloc(): number {
    let node = this.#free;
    if (node === NONE) {
      node = this.#used;
      this.#used += this.#record;
      if (this.#used > this.cells.length) this.#grow(Math.max(this.#record, node * 2));
    } else {
      this.#free = this.parent(node);
    }
    this.cells.fill(Infinity, node + KEYS, node + KEYS + this.#width);
    this.setCount(node, 0);
    this.setParent(node, NONE);
    this.setGap(node, 0);
    this.#setPrevious(node, NONE);
    this.#setNext(node, NONE);
    return node;
  }

  free(node: number): void {
    this.setParent(node, this.#free);
    this.#free = node;
  }

  count(node: number): number {
    return this.ints[node * 2 + COUNT]!;
  }

  setCount(node: number, count: number): void {
    this.ints[node * 2 + COUNT] = count;
  }

  parent(node: number): number {
    return this.ints[node * 2 + PARENT]!;
  }

  setParent(node: number, parent: number): void {
    this.ints[node * 2 + PARENT] = parent;
  }

  /** At least the widest gap before any item below the node, in pages. */
  gap(node: number): number {
    return this.cells[node + GAP]!;
  }

  setGap(node: number, gap: number): void {
    this.cells[node + GAP] = gap;
  }

  keyAt(position: number): number {
    return this.cells[position + KEYS]!;
  }

  /** All keys that the node has room for; for checks. */
  keysOf(node: number): number[] {
    return [...this.cells.subarray(node + KEYS, node + KEYS + this.#width)];
  }

  /** A node of the next lower level. */
  kid(node: number, index: number): number {
    return this.ints[(node + KIDS) * 2 + index]!;
  }

  /** The kid that holds a key. */
  kidFor(node: number, key: number): number {
    return this.kid(node, upperBoundInner(this.cells, node + KEYS, key) - 1);
  }

  indexOf(parent: number, kid: number): number {
    let index = 0;
    while (this.kid(parent, index) !== kid) index++;
    return index;
  }

  setKey(node: number, index: number, key: number): void {
    this.cells[node + KEYS + index] = key;
  }

  insertKid(node: number, index: number, key: number, kid: number): void {
    const count = this.count(node);
    this.setCount(node, count + 1);
    const keys = node + KEYS;
    const kids = (node + KIDS) * 2;
    this.cells.copyWithin(keys + index + 1, keys + index, keys + count);
    this.ints.copyWithin(kids + index + 1, kids + index, kids + count);
    this.cells[keys + index] = key;
    this.ints[kids + index] = kid;
  }

  removeKid(node: number, index: number): void {
    const count = this.count(node);
    this.setCount(node, count - 1);
    const keys = node + KEYS;
    const kids = (node + KIDS) * 2;
    this.cells.copyWithin(keys + index, keys + index + 1, keys + count);
    this.ints.copyWithin(kids + index, kids + index + 1, kids + count);
    this.cells[keys + count - 1] = Infinity;
    if (count > 1) this.cells[keys] = -Infinity;
  }

  /** Moves the kids from an index on behind those of another node; their parents are the caller's to set. */
  moveKids(from: number, index: number, to: number): void {
    const { cells, ints } = this;
    const end = this.count(from);
    let target = this.count(to);
    for (let i = index; i < end; i++, target++) {
      cells[to + KEYS + target] = cells[from + KEYS + i]!;
      ints[(to + KIDS) * 2 + target] = ints[(from + KIDS) * 2 + i]!;
      cells[from + KEYS + i] = Infinity;
    }
    this.setCount(to, target);
    this.setCount(from, index);
  }

  previous(leaf: number): number {
    return this.ints[leaf * 2 + PREVIOUS]!;
  }

  next(leaf: number): number {
    return this.ints[leaf * 2 + NEXT]!;
  }

  leafOf(position: number): number {
    return position - (position % LEAF_CELLS);
  }

  endAt(position: number): number {
    return this.cells[position + ENDS]!;
  }

  /** @param position in a leaf */
  entryAt(position: number): number {
    const index = position % LEAF_CELLS;
    return this.entry(position - index, index);
  }

  entry(leaf: number, index: number): number {
    return this.ints[(leaf + ENTRIES) * 2 + index]!;
  }

  itemAt(position: number): T | undefined {
    return position === NONE ? undefined : this.items[this.entryAt(position)];
  }

  /** How many items of the leaf have a key that is not greater. */
  upperBound(leaf: number, key: number): number {
    const { cells } = this;
    const first = leaf + KEYS;
    const half = Number(cells[first + 15]! <= key) * 16;
    const quarter = half + Number(cells[first + half + 7]! <= key) * BLOCK;
    return quarter + upperBoundBlock(cells, first + quarter, key);
  }

  /** The position before the index, in this leaf or the one before it; NONE if there is none. */
  before(leaf: number, index: number): number {
    if (index > 0) return leaf + index - 1;
    const previous = this.previous(leaf);
    return previous === NONE ? NONE : previous + this.count(previous) - 1;
  }

  /** The position of the index, or the first of the next leaf; NONE if there is none. */
  from(leaf: number, index: number): number {
    return index < this.count(leaf) ? leaf + index : this.next(leaf);
  }

  endsBefore(position: number, page: number, offset: number): boolean {
    const end = this.endAt(position);
    return end < page || (end === page && this.itemAt(position)!.lastOffset < offset);
  }

  startsAfter(position: number, page: number, offset: number): boolean {
    const key = this.keyAt(position);
    return (
      key > page + HALF || (key === page + HALF && this.itemAt(position)!.firstOffset > offset)
    );
  }

  /** At least what {@link Nodes.gapBefore} says, and cheaper: measured from the start of the item before. */
  reach(previous: number, position: number): number {
    const start = previous === NONE ? 0 : Math.floor(this.keyAt(previous));
    return Math.ceil(this.keyAt(position)) - start;
  }

  /** What lies between two positions that follow one another, or before the first (`previous` NONE), in pages. */
  gapBefore(previous: number, position: number): number {
    if (previous !== NONE) {
      const key = this.keyAt(position);
      const end = this.endAt(previous);
      if (aligned(key, end)) return key - end - HALF;
    }
    return gapBetween(this.itemAt(previous), this.itemAt(position)!);
  }

  insert(leaf: number, index: number, item: T, number: number): void {
    const { cells, ints } = this;
    const count = this.count(leaf);
    this.setCount(leaf, count + 1);
    const entries = (leaf + ENTRIES) * 2;
    // A loop, since a call of copyWithin takes longer than moving half a leaf.
    for (let i = count; i > index; i--) {
      cells[leaf + KEYS + i] = cells[leaf + KEYS + i - 1]!;
      cells[leaf + ENDS + i] = cells[leaf + ENDS + i - 1]!;
      ints[entries + i] = ints[entries + i - 1]!;
    }
    cells[leaf + KEYS + index] = keyOf(item.firstPage, item.firstOffset);
    cells[leaf + ENDS + index] = endOf(item.lastPage, item.lastOffset);
    ints[entries + index] = this.#put(item, number);
  }

  remove(leaf: number, index: number): void {
    const { cells, ints } = this;
    const count = this.count(leaf) - 1;
    this.setCount(leaf, count);
    const entries = (leaf + ENTRIES) * 2;
    const entry = ints[entries + index]!;
    for (let i = index; i < count; i++) {
      cells[leaf + KEYS + i] = cells[leaf + KEYS + i + 1]!;
      cells[leaf + ENDS + i] = cells[leaf + ENDS + i + 1]!;
      ints[entries + i] = ints[entries + i + 1]!;
    }
    cells[leaf + KEYS + count] = Infinity;
    this.items[entry] = undefined;
    this.#freeEntries.push(entry);
  }

  /** Moves the items of one leaf, from an index on, behind those of another. */
  move(from: number, index: number, to: number): void {
    const { cells, ints } = this;
    const end = this.count(from);
    let target = this.count(to);
    for (let i = index; i < end; i++, target++) {
      cells[to + KEYS + target] = cells[from + KEYS + i]!;
      cells[to + ENDS + target] = cells[from + ENDS + i]!;
      ints[(to + ENTRIES) * 2 + target] = ints[(from + ENTRIES) * 2 + i]!;
      cells[from + KEYS + i] = Infinity;
    }
    this.setCount(to, target);
    this.setCount(from, index);
  }

  /** Puts a leaf behind another. */
  link(leaf: number, behind: number): void {
    const next = this.next(behind);
    this.#setPrevious(leaf, behind);
    this.#setNext(leaf, next);
    this.#setNext(behind, leaf);
    if (next !== NONE) this.#setPrevious(next, leaf);
  }

  /** @returns a neighbour */
  unlink(leaf: number): number {
    const previous = this.previous(leaf);
    const next = this.next(leaf);
    if (previous !== NONE) this.#setNext(previous, next);
    if (next !== NONE) this.#setPrevious(next, previous);
    return previous === NONE ? next : previous;
  }

  /** @returns the entry */
  #put(item: T, number: number): number {
    const entry = this.#freeEntries.pop() ?? this.items.length;
    this.items[entry] = item;
    if (!this.#withNumbers) return entry;
    if (entry >= this.numbers.length) {
      const numbers = new Float64Array(Math.max(LEAF, entry * 2));
      numbers.set(this.numbers);
      this.numbers = numbers;
    }
    this.numbers[entry] = number;
    return entry;
  }

  #grow(capacity: number): void {
    const cells = new Float64Array(capacity);
    cells.set(this.cells);
    this.cells = cells;
    this.ints = new Int32Array(cells.buffer);
  }

  #setPrevious(leaf: number, previous: number): void {
    this.ints[leaf * 2 + PREVIOUS] = previous;
  }

  #setNext(leaf: number, next: number): void {
    this.ints[leaf * 2 + NEXT] = next;
  }
}
