/**
 * RangeMap: an ordered map of disjoint closed ranges of the 64-bit address space. The areas of an IOAS and the extents of
 * a page-table domain live in it; it is on the way of every map, unmap and DMA.
 *
 * A position is a pair (page, offset): page = address >> 12, exact in a double up to 2^52, and offset = address & 0xfff,
 * because a double cannot hold 64 bits and a bigint costs ten times as much. Nearly every range is page aligned; ranges
 * smaller than a page, several in one page, work exactly.
 *
 * It is a B+-tree whose nodes are numbers and lie in two buffers (range-nodes.ts), so that a million ranges cost the
 * garbage collector nothing but the items themselves. Invariants (`verify` checks them):
 * - items ascend through the leaves, which are linked both ways; no leaf is empty but the only one of an empty map;
 * - keys, ends and entries of a leaf are in order; no two items have the same entry;
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
  keyOf,
  Nodes,
  NONE,
  PAGE_BYTES,
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
  #leaves: Nodes<T>;
  #inner = new Nodes<T>('inner');
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
    this.#leaves = new Nodes('leaves', this.#withNumbers);
    this.#root = this.#leaf = this.#leaves.alloc();
  }

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#size = 0;
    this.#changes++;
    this.#leaves = new Nodes('leaves', this.#withNumbers);
    this.#inner = new Nodes('inner');
    this.#height = 0;
    this.#root = this.#leaf = this.#leaves.alloc();
    this.#index = 0;
  }

  /** The item that contains the position. */
  at(page: number, offset: number): T | undefined {
    const position = this.#seek(page, offset);
    if (position === NONE) return undefined;
    const leaves = this.#leaves;
    return leaves.endsBefore(position, page, offset) ? undefined : leaves.itemAt(position);
  }

  /**
   * The number that came with the item that contains the position; NaN if there is no such item. Does not touch the item:
   * among a million that is the larger part of a lookup.
   */
  numberAt(page: number, offset: number): number {
    const position = this.#seek(page, offset);
    if (position === NONE) return NaN;
    const leaves = this.#leaves;
    if (leaves.endsBefore(position, page, offset)) return NaN;
    return leaves.numbers[leaves.entryAt(position)]!;
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
    const included = position !== NONE && this.#leaves.keyAt(position) === page;
    let node = this.#leaf;
    if (this.#leaves.gap(node) >= pages) {
      const found = this.#wideInLeaf(node, this.#index - (included ? 1 : 0), pages);
      if (found !== undefined) return found;
    }
    for (let level = 1; level <= this.#height; level++) {
      const parent = this.#pool(level - 1).parent(node);
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
    if (leaves.count(this.#leaf) === LEAF) this.#split(keyOf(item.firstPage, item.firstOffset));
    const leaf = this.#leaf;
    const index = this.#index;
    leaves.insert(leaf, index, item, number);
    this.#size++;
    this.#changes++;
    const before = leaves.before(leaf, index);
    if (leaves.reach(before, leaf + index) <= leaves.gap(leaf)) return;
    const gap = leaves.gapBefore(before, leaf + index);
    if (gap > leaves.gap(leaf)) this.#raise(leaf, gap);
  }

  /** @throws Error (a bug) if the item is not in the map */
  delete(item: T): void {
    const leaves = this.#leaves;
    // Who deletes an item has usually just looked it up.
    const here = this.#index === 0 ? undefined : leaves.itemAt(this.#leaf + this.#index - 1);
    if (here !== item) {
      const position = this.#seek(item.firstPage, item.firstOffset);
      if (leaves.itemAt(position) !== item) throw new Error(`${show(item)} is not in the map`);
    }
    const leaf = this.#leaf;
    const index = this.#index - 1;
    leaves.remove(leaf, index);
    this.#index = index;
    this.#size--;
    this.#changes++;
    const next = leaves.from(leaf, index);
    if (next !== NONE) {
      // The exact gap would cost more: too wide, never too small.
      const gap = leaves.reach(leaves.before(leaf, index), next);
      const holder = index < leaves.count(leaf) ? leaf : next;
      if (gap > leaves.gap(holder)) this.#raise(holder, gap);
    }
    if (leaves.count(leaf) < LEAF * FEW) this.#shrink(leaf);
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
      leaf = this.#leaves.leafOf(position);
      index = position - leaf + 1;
      item = this.#leaves.itemAt(position)!;
      yield item;
    }
  }

  /** @throws Error naming the invariant of this file that does not hold; reads everything, for tests and checks */
  verify(): void {
    const leaves = this.#leaves;
    const order = this.#verifyNode(this.#height, this.#root, NONE, [-Infinity, Infinity]);
    const entries = new Set<number>();
    let previous = NONE;
    for (const [i, leaf] of order.entries()) {
      assume(leaves.previous(leaf) === (order[i - 1] ?? NONE), 'leaves are linked back');
      assume(leaves.next(leaf) === (order[i + 1] ?? NONE), 'leaves are linked in order');
      const count = leaves.count(leaf);
      assume(count > 0 || this.#size === 0, 'no leaf is empty');
      for (let position = leaf; position < leaf + count; position++) {
        const item = leaves.itemAt(position);
        if (item === undefined) throw new Error('range map: not so: entries have an item');
        entries.add(leaves.entryAt(position));
        const gap = gapBetween(leaves.itemAt(previous), item);
        assume(gap >= 0 && gap === leaves.gapBefore(previous, position), 'items ascend, disjoint');
        assume(gap <= leaves.gap(leaf), 'gap bounds hold');
        assume(
          leaves.keyAt(position) === keyOf(item.firstPage, item.firstOffset),
          'keys are starts',
        );
        previous = position;
      }
    }
    assume(entries.size === this.#size, 'the size is the number of items, each with its entry');
    assume(
      leaves.items.filter((item) => item !== undefined).length === this.#size,
      'items are there once',
    );
  }

  /** @returns the leaves below, in order */
  #verifyNode(level: number, node: number, parent: number, bounds: [number, number]): number[] {
    const pool = this.#pool(level);
    const count = pool.count(node);
    const all = pool.keysOf(node);
    const keys = all.slice(0, count);
    assume(pool.parent(node) === parent, 'parents are linked');
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
      const kid = this.#inner.kid(node, i);
      assume(this.#pool(level - 1).gap(kid) <= pool.gap(node), 'a gap covers those below');
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
    if (previous !== NONE && !leaves.endsBefore(previous, firstPage, firstOffset)) {
      throw new Error(`${show(item)} overlaps ${show(leaves.itemAt(previous)!)}`);
    }
    const next = leaves.from(this.#leaf, this.#index);
    if (next !== NONE && !leaves.startsAfter(next, lastPage, lastOffset)) {
      throw new Error(`${show(item)} overlaps ${show(leaves.itemAt(next)!)}`);
    }
  }

  #pool(level: number): Nodes<T> {
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
    else if (offset === 0 && this.#isHere(key)) return leaf + this.#index - 1;
    const index = leaves.upperBound(leaf, key);
    this.#leaf = leaf;
    this.#index = index;
    const position = leaves.before(leaf, index);
    return offset === 0 ? position : this.#seekWithin(position, key, offset);
  }

  /** Goes on from where #seek is: items that start within the same page have equal keys, maybe in the leaf before too. */
  #seekWithin(from: number, key: number, offset: number): number {
    const leaves = this.#leaves;
    let position = from;
    while (position !== NONE && leaves.keyAt(position) === key) {
      const leaf = leaves.leafOf(position);
      const index = position - leaf;
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
    return position === NONE || leaves.endsBefore(position, page, offset)
      ? leaves.from(this.#leaf, this.#index)
      : position;
  }

  /** Whether the key belongs where the last search ended, between two items of one leaf. */
  #isHere(key: number): boolean {
    const leaves = this.#leaves;
    const index = this.#index;
    if (index === 0 || index >= leaves.count(this.#leaf)) return false;
    const position = this.#leaf + index;
    return leaves.keyAt(position - 1) <= key && key < leaves.keyAt(position);
  }

  /** Whether the key certainly belongs to the leaf, so that no way down from the root is needed. */
  #covers(leaf: number, key: number): boolean {
    const leaves = this.#leaves;
    if (key < leaves.keyAt(leaf)) return this.#height === 0;
    return key < leaves.keyAt(leaf + leaves.count(leaf) - 1) || leaves.next(leaf) === NONE;
  }

  #descend(key: number): number {
    let node = this.#root;
    for (let level = this.#height; level > 0; level--) node = this.#inner.kidFor(node, key);
    return node;
  }

  /** Divides the full leaf that was sought; leaf and index are those of the same place afterwards. */
  #split(key: number): void {
    const leaves = this.#leaves;
    const left = this.#leaf;
    const right = leaves.alloc();
    // Ascending inserts, the usual way to fill an address space, leave full leaves behind them.
    const append = leaves.next(left) === NONE && this.#index === LEAF;
    const middle = append ? LEAF : LEAF / 2;
    leaves.move(left, middle, right);
    leaves.link(right, left);
    if (!append) leaves.setGap(right, leaves.gap(left));
    this.#addKid(1, left, right, append ? key : leaves.keyAt(right));
    if (this.#index > middle || append) {
      this.#leaf = right;
      this.#index -= middle;
    }
  }

  /** Puts `right` behind its neighbour `left` into the parent, an inner node of the level. */
  #addKid(level: number, left: number, right: number, key: number): void {
    const inner = this.#inner;
    const kids = this.#pool(level - 1);
    if (kids.parent(left) === NONE) {
      const root = inner.alloc();
      inner.insertKid(root, 0, -Infinity, left);
      inner.setGap(root, kids.gap(left));
      kids.setParent(left, root);
      this.#root = root;
      this.#height = level;
    }
    if (inner.count(kids.parent(left)) === FANOUT) this.#splitInner(level, kids.parent(left));
    const parent = kids.parent(left);
    inner.insertKid(parent, inner.indexOf(parent, left) + 1, key, right);
    kids.setParent(right, parent);
  }

  #splitInner(level: number, left: number): void {
    const inner = this.#inner;
    const right = inner.alloc();
    const key = inner.keyAt(left + FANOUT / 2);
    this.#adopt(level, left, FANOUT / 2, right);
    inner.setKey(right, 0, -Infinity);
    inner.setGap(right, inner.gap(left));
    this.#addKid(level + 1, left, right, key);
  }

  /** Moves the kids of one inner node, from an index on, behind those of another. */
  #adopt(level: number, from: number, index: number, to: number): void {
    const inner = this.#inner;
    const kids = this.#pool(level - 1);
    for (let i = index; i < inner.count(from); i++) kids.setParent(inner.kid(from, i), to);
    inner.moveKids(from, index, to);
  }

  /** Joins a leaf that has become small with a neighbour, if both fit well into one; an empty one goes. */
  #shrink(leaf: number): void {
    const leaves = this.#leaves;
    const inner = this.#inner;
    const parent = leaves.parent(leaf);
    if (parent === NONE) return;
    const index = inner.indexOf(parent, leaf);
    const right = Math.max(index, 1);
    if (inner.count(parent) === 1) {
      // An only child stays until it is empty: its parent found no room with another.
      if (leaves.count(leaf) === 0) this.#dropLeaf(parent, index);
      return;
    }
    const [to, from] = [inner.kid(parent, right - 1), inner.kid(parent, right)];
    const total = leaves.count(to) + leaves.count(from);
    if (total > LEAF * MANY && leaves.count(leaf) > 0) return;
    leaves.move(from, 0, to);
    leaves.setGap(to, Math.max(leaves.gap(to), leaves.gap(from)));
    this.#dropLeaf(parent, right);
  }

  /** Takes a leaf without items out of the tree. */
  #dropLeaf(parent: number, index: number): void {
    const leaf = this.#inner.kid(parent, index);
    this.#leaf = this.#leaves.unlink(leaf);
    this.#leaves.free(leaf);
    this.#removeKid(1, parent, index);
  }

  #removeKid(level: number, node: number, index: number): void {
    const inner = this.#inner;
    inner.removeKid(node, index);
    if (inner.parent(node) === NONE) this.#lower();
    else if (inner.count(node) < FANOUT * FEW) this.#shrinkInner(level, node);
  }

  /** The tree loses a level whenever the root has one kid only. */
  #lower(): void {
    while (this.#height > 0 && this.#inner.count(this.#root) === 1) {
      const kid = this.#inner.kid(this.#root, 0);
      this.#inner.free(this.#root);
      this.#root = kid;
      this.#height--;
      this.#pool(this.#height).setParent(kid, NONE);
    }
  }

  /** As #shrink, for an inner node of the level. */
  #shrinkInner(level: number, node: number): void {
    const inner = this.#inner;
    const parent = inner.parent(node);
    const index = inner.indexOf(parent, node);
    const right = Math.max(index, 1);
    if (inner.count(parent) === 1) {
      if (inner.count(node) !== 0) return;
      inner.free(node);
      this.#removeKid(level + 1, parent, index);
      return;
    }
    const [to, from] = [inner.kid(parent, right - 1), inner.kid(parent, right)];
    if (inner.count(to) + inner.count(from) > FANOUT * MANY && inner.count(node) > 0) return;
    // The first key of a node stands in its parent.
    if (inner.count(from) > 0) inner.setKey(from, 0, inner.keyAt(parent + right));
    this.#adopt(level, from, 0, to);
    inner.setKey(to, 0, -Infinity);
    inner.setGap(to, Math.max(inner.gap(to), inner.gap(from)));
    inner.free(from);
    this.#removeKid(level + 1, parent, right);
  }

  /** Raises the bound of a leaf and of whatever is above it. */
  #raise(leaf: number, gap: number): void {
    this.#leaves.setGap(leaf, gap);
    const inner = this.#inner;
    let node = this.#leaves.parent(leaf);
    while (node !== NONE && inner.gap(node) < gap) {
      inner.setGap(node, gap);
      node = inner.parent(node);
    }
  }

  /** @returns the first item from `index` with such a gap before it; tightens the bound if all were looked at */
  #wideInLeaf(leaf: number, index: number, pages: number): T | undefined {
    const leaves = this.#leaves;
    const end = leaf + leaves.count(leaf);
    let previous = leaves.before(leaf, index);
    let widest = 0;
    for (let position = leaf + index; position < end; position++) {
      const gap = leaves.gapBefore(previous, position);
      if (gap >= pages) return leaves.itemAt(position);
      if (gap > widest) widest = gap;
      previous = position;
    }
    if (index === 0) leaves.setGap(leaf, widest);
    return undefined;
  }

  #wideInKids(level: number, node: number, index: number, pages: number): T | undefined {
    const inner = this.#inner;
    const kids = this.#pool(level - 1);
    const count = inner.count(node);
    for (let i = index; i < count; i++) {
      const kid = inner.kid(node, i);
      if (kids.gap(kid) < pages) continue;
      const found =
        level === 1 ? this.#wideInLeaf(kid, 0, pages) : this.#wideInKids(level - 1, kid, 0, pages);
      if (found !== undefined) return found;
    }
    let widest = 0;
    for (let i = 0; i < count; i++) widest = Math.max(widest, kids.gap(inner.kid(node, i)));
    inner.setGap(node, widest);
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
