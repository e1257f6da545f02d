/**
 * RangeMap: an ordered map of disjoint closed ranges of the 64-bit address space. The areas of an IOAS and the extents of
 * a page-table domain live in it; it is on the way of every map, unmap and DMA.
 *
 * A position is a pair (page, offset): page = address >> 12, exact in a double up to 2^52, and offset = address & 0xfff,
 * because a double cannot hold 64 bits and a bigint costs ten times as much. Nearly every range is page aligned; ranges
 * smaller than a page, several in one page, work exactly.
 *
 * It is a B+-tree whose nodes are numbers and lie in a few large arrays (range-nodes.ts), so that a million ranges cost the
 * garbage collector nothing but the items themselves. Invariants (`verify` checks them):
 * - items ascend through the leaves, which are linked both ways; no leaf is empty but the only one of an empty map;
 * - keys of a leaf are in order and so are their slots; ends and items stay in the slot that they got, so that an insert
 *   moves nine bytes an item;
 * - keys of an inner node bound its kids from below: those in kid i are at least keys[i], those in kid i-1 at most (equal
 *   keys, of items that start within one page, may be cut anywhere); keys[0] is -Infinity, the bound is the parent's;
 * - keys behind the count are Infinity, so that a search needs no count;
 * - the gap of a node is at least the widest gap before any item in it. It may be too wide: an insert leaves it, a delete
 *   raises it, and a search that finds nothing tightens it, so first-fit allocation does not pay for it on every map.
 *
 * After the interval trees of drivers/iommu/iommufd/io_pagetable.c (behaviour), B-trees as in any textbook (structure).
 */
import {
  FANOUT,
  HALF,
  LEAF,
  endOf,
  gapBetween,
  InnerPool,
  keyOf,
  LeafPool,
  NONE,
  PAGE_BYTES,
  upperBoundInner,
  upperBoundLeaf,
} from './range-nodes.ts';
import type { Span } from './range-nodes.ts';

export type { Span } from './range-nodes.ts';

/* eslint-disable @typescript-eslint/no-non-null-assertion -- every index lies within its array by the invariants above;
   asking again would cost on each step of each search */

// Where a node that lost something has fewer than FEW parts of what it can hold, it is joined with a neighbour, unless
// both together would have more than MANY.
const FEW = 1 / 4;
const MANY = 3 / 4;

export class RangeMap<T extends Span> {
  #size = 0;
  /** counts changes, for iterators */
  #changes = 0;
  #leaves: LeafPool<T>;
  #inner = new InnerPool();
  /** a leaf if the height is 0, else an inner node */
  #root = 0;
  #height = 0;
  // Where #seek ended: the index of the first item behind the position. The leaf is also where the next one looks first,
  // since calls come in neighbourhoods.
  #leaf = 0;
  #index = 0;
  // The place where #firstOverlap last found nothing, and between which key and end: an insert of just that range, with
  // no change meanwhile, needs not look again.
  #freeChanges = NONE;
  #freeLeaf = 0;
  #freeIndex = 0;
  #freeKey = 0;
  #freeEnd = 0;

  readonly #withNumbers: boolean;

  /** @param options numbers: keep a number beside each item, for {@link RangeMap.numberAt} */
  constructor(options: { readonly numbers?: boolean } = {}) {
    this.#withNumbers = options.numbers ?? false;
    this.#leaves = new LeafPool(this.#withNumbers);
    this.#root = this.#leaf = this.#leaves.alloc();
  }

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#size = 0;
    this.#changes++;
    this.#leaves = new LeafPool(this.#withNumbers);
    this.#inner = new InnerPool();
    this.#height = 0;
    this.#root = this.#leaf = this.#leaves.alloc();
    this.#index = 0;
  }

  /** The item that contains the position. */
  at(page: number, offset: number): T | undefined {
    const position = this.#seek(page, offset);
    if (position === NONE) return undefined;
    const leaves = this.#leaves;
    const entry = leaves.entryAt(position);
    return leaves.endsBefore(entry, page, offset) ? undefined : leaves.items[entry];
  }

  /**
   * The number that came with the item that contains the position; NaN if there is no such item. Does not touch the item:
   * among a million that is the larger part of a lookup.
   */
  numberAt(page: number, offset: number): number {
    const position = this.#seek(page, offset);
    if (position === NONE) return NaN;
    const leaves = this.#leaves;
    const entry = leaves.entryAt(position);
    return leaves.endsBefore(entry, page, offset) ? NaN : leaves.numbers[entry]!;
  }

  /** The highest item that starts at or before the position. */
  floor(page: number, offset: number): T | undefined {
    return this.#leaves.itemAt(this.#seek(page, offset));
  }

  /** The lowest item that ends at or after the position. */
  ceiling(page: number, offset: number): T | undefined {
    return this.#leaves.itemAt(this.#ceiling(page, offset));
  }

  /** The lowest item that has a position in common with the closed range. */
  firstOverlap(
    firstPage: number,
    firstOffset: number,
    lastPage: number,
    lastOffset: number,
  ): T | undefined {
    const position = this.#ceiling(firstPage, firstOffset);
    const leaves = this.#leaves;
    if (position !== NONE && !leaves.startsAfter(position, lastPage, lastOffset)) {
      return leaves.itemAt(position);
    }
    this.#freeChanges = this.#changes;
    this.#freeLeaf = this.#leaf;
    this.#freeIndex = this.#index;
    this.#freeKey = keyOf(firstPage, firstOffset);
    this.#freeEnd = endOf(lastPage, lastOffset);
    return undefined;
  }

  /** The lowest item that starts after `item` does; `item` need not be in the map (any more). */
  after(item: Span): T | undefined {
    this.#seek(item.firstPage, item.firstOffset);
    return this.#leaves.itemAt(this.#leaves.from(this.#leaf, this.#index));
  }

  /** The highest item that starts before `item` does; `item` need not be in the map (any more). */
  before(item: Span): T | undefined {
    const found = this.floor(item.firstPage, item.firstOffset);
    const itself = found?.firstPage === item.firstPage && found.firstOffset === item.firstOffset;
    if (!itself) return found;
    return this.#leaves.itemAt(this.#leaves.before(this.#leaf, this.#index - 1));
  }

  /**
   * The lowest item that starts at or after `page` with at least `pages` pages (parts of pages count) between it and the
   * item before it, or address 0. What lies behind the last item is not looked at. Logarithmic, save that a search that
   * finds nothing looks once at each leaf whose bound promised too much.
   */
  nextWideGap(page: number, pages: number): T | undefined {
    const position = this.#seek(page, 0);
    const included = position !== NONE && this.#leaves.keys[position] === page;
    let node = this.#leaf;
    if (this.#leaves.gaps[node]! >= pages) {
      const found = this.#wideInLeaf(node, this.#index - (included ? 1 : 0), pages);
      if (found !== undefined) return found;
    }
    for (let level = 1; level <= this.#height; level++) {
      const parent = this.#pool(level - 1).parents[node]!;
      const index = this.#inner.indexOf(parent, node) + 1;
      const found = this.#wideInKids(level, parent, index, pages);
      if (found !== undefined) return found;
      node = parent;
    }
    return undefined;
  }

  /**
   * @param number kept beside the item, in a map with numbers
   * @throws Error (a bug) if the range is not one or overlaps an item
   */
  insert(item: T, number = NaN): void {
    if (!this.#isKnownFree(item)) this.#seekFree(item);
    const leaves = this.#leaves;
    if (leaves.counts[this.#leaf] === LEAF) this.#split(keyOf(item.firstPage, item.firstOffset));
    const leaf = this.#leaf;
    const index = this.#index;
    const entry = leaves.insert(leaf, index, item);
    if (this.#withNumbers) leaves.numbers[entry] = number;
    this.#size++;
    this.#changes++;
    const before = leaves.before(leaf, index);
    if (leaves.reach(before, leaf * LEAF + index) <= leaves.gaps[leaf]!) return;
    const gap = leaves.gap(before, leaf * LEAF + index);
    if (gap > leaves.gaps[leaf]!) this.#raise(leaf, gap);
  }

  /** @throws Error (a bug) if the item is not in the map */
  delete(item: T): void {
    const leaves = this.#leaves;
    // Who deletes an item has usually just looked it up.
    if (this.#index === 0 || leaves.itemAt(this.#leaf * LEAF + this.#index - 1) !== item) {
      const position = this.#seek(item.firstPage, item.firstOffset);
      if (leaves.itemAt(position) !== item) throw new Error(`${show(item)} is not in the map`);
    }
    const leaf = this.#leaf;
    const index = this.#index - 1;
    const next = leaves.from(leaf, index + 1);
    if (next !== NONE) {
      // The end of the item before would cost a look at other memory: too wide, never too small.
      const gap = leaves.reach(leaves.before(leaf, index), next);
      const holder = Math.floor(next / LEAF);
      if (gap > leaves.gaps[holder]!) this.#raise(holder, gap);
    }
    leaves.remove(leaf, index);
    this.#index = index;
    this.#size--;
    this.#changes++;
    if (leaves.counts[leaf]! < LEAF * FEW) this.#shrink(leaf);
  }

  /**
   * Ascending. The map may change meanwhile: what is inserted ahead of the last item that was handed out appears, what is
   * deleted ahead does not.
   */
  *[Symbol.iterator](): IterableIterator<T> {
    let changes = -1;
    let item: T | undefined;
    let leaf = NONE;
    let index = 0;
    for (;;) {
      if (changes !== this.#changes) {
        this.#seek(item?.firstPage ?? -1, item?.firstOffset ?? 0);
        changes = this.#changes;
        leaf = this.#leaf;
        index = this.#index;
      }
      const position = this.#leaves.from(leaf, index);
      if (position === NONE) return;
      leaf = Math.floor(position / LEAF);
      index = (position % LEAF) + 1;
      item = this.#leaves.itemAt(position)!;
      yield item;
    }
  }

  /** @throws Error naming the invariant of this file that does not hold; reads everything, for tests and checks */
  verify(): void {
    const leaves = this.#leaves;
    const order = this.#verifyNode(this.#height, this.#root, NONE, [-Infinity, Infinity]);
    let items = 0;
    let previous = NONE;
    for (const [i, leaf] of order.entries()) {
      assume(leaves.previous[leaf] === (order[i - 1] ?? NONE), 'leaves are linked back');
      assume(leaves.next[leaf] === (order[i + 1] ?? NONE), 'leaves are linked in order');
      const count = leaves.counts[leaf]!;
      assume(count > 0 || this.#size === 0, 'no leaf is empty');
      const slots = new Set(leaves.slots.subarray(leaf * LEAF, (leaf + 1) * LEAF));
      assume(slots.size === LEAF, 'slots are a permutation');
      for (let position = leaf * LEAF; position < (leaf + 1) * LEAF; position++) {
        const item = leaves.itemAt(position);
        const used = position < leaf * LEAF + count;
        assume((item !== undefined) === used, 'slots hold an item up to the count');
        if (item === undefined) continue;
        const before = leaves.itemAt(previous);
        const gap = gapBetween(before, item);
        assume(gap >= 0 && gap === leaves.gap(previous, position), 'items ascend and are disjoint');
        assume(gap <= leaves.gaps[leaf]!, 'gap bounds hold');
        assume(
          leaves.keys[position] === keyOf(item.firstPage, item.firstOffset),
          'keys are starts',
        );
        previous = position;
        items++;
      }
    }
    assume(items === this.#size, 'the size is the number of items');
  }

  /** @returns the leaves below, in order */
  #verifyNode(level: number, node: number, parent: number, bounds: [number, number]): number[] {
    const pool = this.#pool(level);
    const width = level === 0 ? LEAF : FANOUT;
    const count = pool.counts[node]!;
    const all = [...pool.keys.subarray(node * width, (node + 1) * width)];
    const keys = all.slice(0, count);
    assume(pool.parents[node] === parent, 'parents are linked');
    assume(
      all.every((key, i) => key < Infinity === i < count),
      'keys behind the count are Infinity',
    );
    if (level === 0) {
      const within = keys.every((key) => key >= bounds[0] && key <= bounds[1]);
      assume(within, 'keys lie within their bounds');
      return [node];
    }
    assume(count > 0 && keys[0] === -Infinity, 'an inner node has kids, the first unbounded');
    return keys.flatMap((key, i) => {
      const kid = this.#inner.kids[node * FANOUT + i]!;
      assume(this.#pool(level - 1).gaps[kid]! <= pool.gaps[node]!, 'a gap covers those below');
      const [low, high] = [Math.max(key, bounds[0]), keys[i + 1] ?? bounds[1]];
      assume(low <= high, 'keys of inner nodes ascend');
      return this.#verifyNode(level - 1, kid, node, [low, high]);
    });
  }

  #isKnownFree({ firstPage, firstOffset, lastPage, lastOffset }: T): boolean {
    return (
      this.#freeChanges === this.#changes &&
      this.#freeLeaf === this.#leaf &&
      this.#freeIndex === this.#index &&
      this.#freeKey === firstPage &&
      this.#freeEnd === lastPage + HALF &&
      // Key and end say all of a range only where it starts and ends with a page.
      firstOffset === 0 &&
      lastOffset === PAGE_BYTES - 1
    );
  }

  /** Sets leaf and index to where the item belongs; throws if it does not fit there. */
  #seekFree(item: T): void {
    const { firstPage, firstOffset, lastPage, lastOffset } = item;
    if (lastPage < firstPage || (lastPage === firstPage && lastOffset < firstOffset)) {
      throw new Error(`empty range ${show(item)}`);
    }
    const leaves = this.#leaves;
    const previous = this.#seek(firstPage, firstOffset);
    if (previous !== NONE && !leaves.endsBefore(leaves.entryAt(previous), firstPage, firstOffset)) {
      throw new Error(`${show(item)} overlaps ${show(leaves.itemAt(previous)!)}`);
    }
    const next = leaves.from(this.#leaf, this.#index);
    if (next !== NONE && !leaves.startsAfter(next, lastPage, lastOffset)) {
      throw new Error(`${show(item)} overlaps ${show(leaves.itemAt(next)!)}`);
    }
  }

  #pool(level: number): LeafPool<T> | InnerPool {
    return level === 0 ? this.#leaves : this.#inner;
  }

  /**
   * Sets leaf and index to where an item that starts at the position belongs, behind one that starts there.
   * @returns the position in the leaves of the highest item that starts at or before it, or NONE
   */
  #seek(page: number, offset: number): number {
    const leaves = this.#leaves;
    const key = keyOf(page, offset);
    let leaf = this.#leaf;
    if (!this.#covers(leaf, key)) leaf = this.#descend(key);
    else if (offset === 0 && this.#isHere(key)) return leaf * LEAF + this.#index - 1;
    const index = upperBoundLeaf(leaves.keys, leaf * LEAF, key);
    this.#leaf = leaf;
    this.#index = index;
    const position = leaves.before(leaf, index);
    return offset === 0 ? position : this.#seekWithin(position, key, offset);
  }

  /** Goes on from where #seek is: items that start within the same page have equal keys, maybe in the leaf before too. */
  #seekWithin(from: number, key: number, offset: number): number {
    const leaves = this.#leaves;
    let position = from;
    while (position !== NONE && leaves.keys[position] === key) {
      const leaf = Math.floor(position / LEAF);
      const index = position % LEAF;
      this.#leaf = leaf;
      this.#index = index + 1;
      if (leaves.itemAt(position)!.firstOffset <= offset) break;
      this.#index = index;
      position = leaves.before(leaf, index);
    }
    return position;
  }

  /** The position in the leaves of the lowest item that ends at or after the given one, or NONE. */
  #ceiling(page: number, offset: number): number {
    const leaves = this.#leaves;
    const position = this.#seek(page, offset);
    return position === NONE || leaves.endsBefore(leaves.entryAt(position), page, offset)
      ? leaves.from(this.#leaf, this.#index)
      : position;
  }

  /** Whether the key belongs where the last search ended, between two items of one leaf. */
  #isHere(key: number): boolean {
    const { keys, counts } = this.#leaves;
    const index = this.#index;
    if (index === 0 || index >= counts[this.#leaf]!) return false;
    const at = this.#leaf * LEAF + index;
    return keys[at - 1]! <= key && key < keys[at]!;
  }

  /** Whether the key certainly belongs to the leaf, so that no way down from the root is needed. */
  #covers(leaf: number, key: number): boolean {
    const { keys, counts, next } = this.#leaves;
    const first = leaf * LEAF;
    if (key < keys[first]!) return this.#height === 0;
    return key < keys[first + counts[leaf]! - 1]! || next[leaf] === NONE;
  }

  #descend(key: number): number {
    const { keys, kids } = this.#inner;
    let node = this.#root;
    for (let level = this.#height; level > 0; level--) {
      node = kids[node * FANOUT + upperBoundInner(keys, node * FANOUT, key) - 1]!;
    }
    return node;
  }

  /** Divides the full leaf that was sought; leaf and index are those of the same place afterwards. */
  #split(key: number): void {
    const leaves = this.#leaves;
    const left = this.#leaf;
    const right = leaves.alloc();
    // Ascending inserts, the usual way to fill an address space, leave full leaves behind them.
    const append = leaves.next[left] === NONE && this.#index === LEAF;
    const middle = append ? LEAF : LEAF / 2;
    leaves.move(left, middle, right);
    leaves.link(right, left);
    if (!append) leaves.gaps[right] = leaves.gaps[left]!;
    this.#addKid(1, left, right, append ? key : leaves.keys[right * LEAF]!);
    if (this.#index > middle || append) {
      this.#leaf = right;
      this.#index -= middle;
    }
  }

  /** Puts `right` behind its neighbour `left` into the parent, an inner node of the level. */
  #addKid(level: number, left: number, right: number, key: number): void {
    const inner = this.#inner;
    const kids = this.#pool(level - 1);
    if (kids.parents[left] === NONE) {
      const root = inner.alloc();
      inner.insert(root, 0, -Infinity, left);
      inner.gaps[root] = kids.gaps[left]!;
      kids.parents[left] = root;
      this.#root = root;
      this.#height = level;
    }
    if (inner.counts[kids.parents[left]!] === FANOUT) {
      this.#splitInner(level, kids.parents[left]!);
    }
    const parent = kids.parents[left]!;
    inner.insert(parent, inner.indexOf(parent, left) + 1, key, right);
    kids.parents[right] = parent;
  }

  #splitInner(level: number, left: number): void {
    const inner = this.#inner;
    const right = inner.alloc();
    const key = inner.keys[left * FANOUT + FANOUT / 2]!;
    this.#adopt(level, left, FANOUT / 2, right);
    inner.keys[right * FANOUT] = -Infinity;
    inner.gaps[right] = inner.gaps[left]!;
    this.#addKid(level + 1, left, right, key);
  }

  /** Moves the kids of one inner node, from an index on, behind those of another. */
  #adopt(level: number, from: number, index: number, to: number): void {
    const { keys, kids, counts } = this.#inner;
    const { parents } = this.#pool(level - 1);
    const end = from * FANOUT + counts[from]!;
    let target = to * FANOUT + counts[to]!;
    for (let i = from * FANOUT + index; i < end; i++, target++) {
      const kid = kids[i]!;
      keys[target] = keys[i]!;
      kids[target] = kid;
      parents[kid] = to;
      keys[i] = Infinity;
    }
    counts[to] = target - to * FANOUT;
    counts[from] = index;
  }

  /** Joins a leaf that has become small with a neighbour, if both fit well into one; an empty one goes. */
  #shrink(leaf: number): void {
    const leaves = this.#leaves;
    const parent = leaves.parents[leaf]!;
    if (parent === NONE) return;
    const index = this.#inner.indexOf(parent, leaf);
    const right = Math.max(index, 1);
    if (this.#inner.counts[parent] === 1) {
      // An only child stays until it is empty: its parent found no room with another.
      if (leaves.counts[leaf] === 0) this.#dropLeaf(parent, index);
      return;
    }
    const [to, from] = [this.#kid(parent, right - 1), this.#kid(parent, right)];
    const total = leaves.counts[to]! + leaves.counts[from]!;
    if (total > LEAF * MANY && leaves.counts[leaf]! > 0) return;
    leaves.move(from, 0, to);
    leaves.gaps[to] = Math.max(leaves.gaps[to]!, leaves.gaps[from]!);
    this.#dropLeaf(parent, right);
  }

  #kid(node: number, index: number): number {
    return this.#inner.kids[node * FANOUT + index]!;
  }

  /** Takes a leaf without items out of the tree. */
  #dropLeaf(parent: number, index: number): void {
    const leaf = this.#kid(parent, index);
    this.#leaf = this.#leaves.unlink(leaf);
    this.#leaves.free(leaf);
    this.#removeKid(1, parent, index);
  }

  #removeKid(level: number, node: number, index: number): void {
    const { counts, parents } = this.#inner;
    this.#inner.remove(node, index);
    if (parents[node] === NONE) this.#lower();
    else if (counts[node]! < FANOUT * FEW) this.#shrinkInner(level, node);
  }

  /** The tree loses a level whenever the root has one kid only. */
  #lower(): void {
    while (this.#height > 0 && this.#inner.counts[this.#root] === 1) {
      const kid = this.#kid(this.#root, 0);
      this.#inner.free(this.#root);
      this.#root = kid;
      this.#height--;
      this.#pool(this.#height).parents[kid] = NONE;
    }
  }

  /** As #shrink, for an inner node of the level. */
  #shrinkInner(level: number, node: number): void {
    const inner = this.#inner;
    const { keys, counts, gaps } = inner;
    const parent = inner.parents[node]!;
    const index = inner.indexOf(parent, node);
    const right = Math.max(index, 1);
    if (counts[parent] === 1) {
      if (counts[node] !== 0) return;
      inner.free(node);
      this.#removeKid(level + 1, parent, index);
      return;
    }
    const [to, from] = [this.#kid(parent, right - 1), this.#kid(parent, right)];
    if (counts[to]! + counts[from]! > FANOUT * MANY && counts[node]! > 0) return;
    // The first key of a node stands in its parent.
    if (counts[from]! > 0) keys[from * FANOUT] = keys[parent * FANOUT + right]!;
    this.#adopt(level, from, 0, to);
    keys[to * FANOUT] = -Infinity;
    gaps[to] = Math.max(gaps[to]!, gaps[from]!);
    inner.free(from);
    this.#removeKid(level + 1, parent, right);
  }

  /** Raises the bound of a leaf and of whatever is above it. */
  #raise(leaf: number, gap: number): void {
    this.#leaves.gaps[leaf] = gap;
    const { gaps, parents } = this.#inner;
    let node = this.#leaves.parents[leaf]!;
    while (node !== NONE && gaps[node]! < gap) {
      gaps[node] = gap;
      node = parents[node]!;
    }
  }

  /** @returns the first item from `index` with such a gap before it; tightens the bound if all were looked at */
  #wideInLeaf(leaf: number, index: number, pages: number): T | undefined {
    const leaves = this.#leaves;
    const end = leaf * LEAF + leaves.counts[leaf]!;
    let previous = leaves.before(leaf, index);
    let widest = 0;
    for (let position = leaf * LEAF + index; position < end; position++) {
      const gap = leaves.gap(previous, position);
      if (gap >= pages) return leaves.itemAt(position);
      if (gap > widest) widest = gap;
      previous = position;
    }
    if (index === 0) leaves.gaps[leaf] = widest;
    return undefined;
  }

  #wideInKids(level: number, node: number, index: number, pages: number): T | undefined {
    const { gaps } = this.#pool(level - 1);
    const count = this.#inner.counts[node]!;
    for (let i = index; i < count; i++) {
      const kid = this.#kid(node, i);
      if (gaps[kid]! < pages) continue;
      const found =
        level === 1 ? this.#wideInLeaf(kid, 0, pages) : this.#wideInKids(level - 1, kid, 0, pages);
      if (found !== undefined) return found;
    }
    let widest = 0;
    for (let i = 0; i < count; i++) widest = Math.max(widest, gaps[this.#kid(node, i)]!);
    this.#inner.gaps[node] = widest;
    return undefined;
  }
}

function show(item: Span): string {
  const hex = (page: number, offset: number): string =>
    `0x${(BigInt(page) * BigInt(PAGE_BYTES) + BigInt(offset)).toString(16)}`;
  return `[${hex(item.firstPage, item.firstOffset)}, ${hex(item.lastPage, item.lastOffset)}]`;
}

function assume(holds: boolean, what: string): void {
  if (!holds) throw new Error(`range map: not so: ${what}`);
}
