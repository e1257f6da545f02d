/**
 * RangeMap: an ordered map of disjoint closed ranges of the 64-bit address space. The areas of an IOAS and the extents of
 * a page-table domain live in it; it is on the way of every map, unmap and DMA.
 *
 * A position is a pair (page, offset): page = address >> 12, exact in a double up to 2^52, and offset = address & 0xfff,
 * because a double cannot hold 64 bits and a bigint costs ten times as much. Nearly every range is page aligned; ranges
 * smaller than a page, several in one page, work exactly: the tree is ordered by page, equal pages by looking at the items.
 *
 * It is a B+-tree. Nodes are numbers, and what they hold lies in a few large arrays, so that a million ranges cost the
 * garbage collector nothing but the items themselves. Invariants (`verify` checks them):
 * - items ascend through the leaves, which are linked both ways; no leaf is empty but the only one of an empty map;
 * - `keys` of a leaf are the first pages of its items; `keys` of an inner node bound its kids from below: whatever lies
 *   in kid i starts at page keys[i] or later, whatever lies in kid i-1 at keys[i] or earlier (equal pages may be cut
 *   anywhere); keys[0] is -Infinity, the bound is the parent's;
 * - `gap` of a node is at least the widest gap before any item in it. It may be too wide: an insert leaves it, a delete
 *   raises it, and a search that finds nothing tightens it, so first-fit allocation does not pay for it on every map.
 *
 * After the interval trees of drivers/iommu/iommufd/io_pagetable.c (behaviour), B-trees as in any textbook (structure).
 */

/* eslint-disable @typescript-eslint/no-non-null-assertion -- every index lies within its array by the invariants above;
   asking again would cost on each step of each search */

/** A closed range of positions that an item covers; must not change while the item is in a map. */
export type Span = {
  readonly firstPage: number;
  readonly firstOffset: number;
  readonly lastPage: number;
  readonly lastOffset: number;
};

const PAGE_BYTES = 4096;
const FANOUT = 64;
const NONE = -1;

// Fields of a node in `links`, LINK_FIELDS numbers a node. A leaf uses all; an inner node has no neighbours, and a node
// that is not used is chained through NEXT.
const COUNT = 0;
const PARENT = 1;
const PREVIOUS = 2;
const NEXT = 3;
const LINK_FIELDS = 4;

/** The nodes of one kind, leaves or inner ones: their numbers, keys, links and gap bounds. */
class NodePool {
  keys = new Float64Array(FANOUT);
  links = new Int32Array(LINK_FIELDS);
  gaps = new Float64Array(1);
  #used = 0;
  #free = NONE;

  /** @returns the number of an empty node that nothing links to */
  alloc(): number {
    let node = this.#free;
    if (node === NONE) {
      node = this.#used++;
      if (node >= this.gaps.length) this.#grow(Math.max(4, node * 2));
    } else {
      this.#free = this.links[node * LINK_FIELDS + NEXT]!;
    }
    const at = node * LINK_FIELDS;
    this.links[at + COUNT] = 0;
    this.links[at + PARENT] = this.links[at + PREVIOUS] = this.links[at + NEXT] = NONE;
    this.gaps[node] = 0;
    return node;
  }

  free(node: number): void {
    this.links[node * LINK_FIELDS + COUNT] = 0;
    this.links[node * LINK_FIELDS + NEXT] = this.#free;
    this.#free = node;
  }

  #grow(capacity: number): void {
    const { keys, links, gaps } = this;
    this.keys = new Float64Array(capacity * FANOUT);
    this.keys.set(keys);
    this.links = new Int32Array(capacity * LINK_FIELDS);
    this.links.set(links);
    this.gaps = new Float64Array(capacity);
    this.gaps.set(gaps);
  }
}

/** @returns the first index in [low, high) whose key is greater than `page`, `high` if there is none */
function upperBound(keys: Float64Array, low: number, high: number, page: number): number {
  let first = low;
  let end = high;
  while (first < end) {
    const middle = (first + end) >>> 1;
    if (keys[middle]! <= page) first = middle + 1;
    else end = middle;
  }
  return first;
}

/** What lies between two neighbours, in pages and parts of pages; from address 0 if nothing comes before. */
function gapBetween(previous: Span | undefined, item: Span): number {
  if (previous === undefined) return item.firstPage + item.firstOffset / PAGE_BYTES;
  const offsets = item.firstOffset - previous.lastOffset - 1;
  return item.firstPage - previous.lastPage + offsets / PAGE_BYTES;
}

function startsAfter(item: Span, page: number, offset: number): boolean {
  return item.firstPage > page || (item.firstPage === page && item.firstOffset > offset);
}

function endsBefore(item: Span, page: number, offset: number): boolean {
  return item.lastPage < page || (item.lastPage === page && item.lastOffset < offset);
}

function show(item: Span): string {
  const hex = (page: number, offset: number): string =>
    `0x${(BigInt(page) * BigInt(PAGE_BYTES) + BigInt(offset)).toString(16)}`;
  return `[${hex(item.firstPage, item.firstOffset)}, ${hex(item.lastPage, item.lastOffset)}]`;
}

export class RangeMap<T extends Span> {
  #size = 0;
  /** counts changes, for iterators */
  #changes = 0;
  #leaves = new NodePool();
  #inner = new NodePool();
  /** FANOUT slots a leaf, as its keys */
  #items: (T | undefined)[] = [];
  /** FANOUT slots an inner node: nodes of the next lower level */
  #kids = new Int32Array(0);
  /** a leaf if the height is 0, else an inner node */
  #root = 0;
  #height = 0;
  // Where #seek ended; the leaf is also where the next one looks first, since calls come in neighbourhoods.
  #leaf = 0;
  #index = NONE;

  constructor() {
    this.clear();
  }

  get size(): number {
    return this.#size;
  }

  clear(): void {
    this.#size = 0;
    this.#changes++;
    this.#leaves = new NodePool();
    this.#inner = new NodePool();
    this.#items = [];
    this.#kids = new Int32Array(0);
    this.#height = 0;
    this.#root = this.#leaf = this.#allocLeaf();
    this.#index = NONE;
  }

  /** The item that contains the position. */
  at(page: number, offset: number): T | undefined {
    const item = this.floor(page, offset);
    return item === undefined || endsBefore(item, page, offset) ? undefined : item;
  }

  /** The highest item that starts at or before the position. */
  floor(page: number, offset: number): T | undefined {
    this.#seek(page, offset);
    return this.#index >= 0 ? this.#items[this.#leaf * FANOUT + this.#index] : this.#before();
  }

  /** The lowest item that ends at or after the position. */
  ceiling(page: number, offset: number): T | undefined {
    const item = this.floor(page, offset);
    return item === undefined || endsBefore(item, page, offset) ? this.#behind() : item;
  }

  /** The lowest item that has a position in common with the closed range. */
  firstOverlap(
    firstPage: number,
    firstOffset: number,
    lastPage: number,
    lastOffset: number,
  ): T | undefined {
    const item = this.ceiling(firstPage, firstOffset);
    return item === undefined || startsAfter(item, lastPage, lastOffset) ? undefined : item;
  }

  /** The lowest item that starts after `item` does; `item` need not be in the map (any more). */
  after(item: Span): T | undefined {
    this.#seek(item.firstPage, item.firstOffset);
    return this.#behind();
  }

  /** The highest item that starts before `item` does; `item` need not be in the map (any more). */
  before(item: Span): T | undefined {
    const found = this.floor(item.firstPage, item.firstOffset);
    const itself = found?.firstPage === item.firstPage && found.firstOffset === item.firstOffset;
    return itself ? this.#before() : found;
  }

  /**
   * The lowest item that starts at or after `page` with at least `pages` pages (parts of pages count) between it and the
   * item before it, or address 0. What lies behind the last item is not looked at. Logarithmic, save that a search that
   * finds nothing looks once at each leaf whose bound promised too much.
   */
  nextWideGap(page: number, pages: number): T | undefined {
    this.#seek(page, 0);
    let leaf = this.#leaf;
    let index = this.#index;
    const item = index >= 0 ? this.#items[leaf * FANOUT + index] : undefined;
    if (item?.firstPage !== page || item.firstOffset !== 0) index++;
    if (this.#leaves.gaps[leaf]! >= pages) {
      const found = this.#wideInLeaf(leaf, index, pages);
      if (found !== undefined) return found;
    }
    let pool = this.#leaves;
    for (let level = 1; level <= this.#height; level++) {
      const parent = pool.links[leaf * LINK_FIELDS + PARENT]!;
      const found = this.#wideInKids(level, parent, this.#kidIndex(parent, leaf) + 1, pages);
      if (found !== undefined) return found;
      leaf = parent;
      pool = this.#inner;
    }
    return undefined;
  }

  /** @throws Error (a bug) if the range is not one or overlaps an item */
  insert(item: T): void {
    const { firstPage, firstOffset, lastPage, lastOffset } = item;
    if (endsBefore(item, firstPage, firstOffset)) throw new Error(`empty range ${show(item)}`);
    this.#seek(firstPage, firstOffset);
    const previous =
      this.#index >= 0 ? this.#items[this.#leaf * FANOUT + this.#index] : this.#before();
    if (previous !== undefined && !endsBefore(previous, firstPage, firstOffset)) {
      throw new Error(`${show(item)} overlaps ${show(previous)}`);
    }
    const next = this.#behind();
    if (next !== undefined && !startsAfter(next, lastPage, lastOffset)) {
      throw new Error(`${show(item)} overlaps ${show(next)}`);
    }
    if (this.#count(this.#leaf) === FANOUT) this.#split(firstPage);
    const leaf = this.#leaf;
    this.#open(leaf, this.#index + 1);
    this.#leaves.keys[leaf * FANOUT + this.#index + 1] = firstPage;
    this.#items[leaf * FANOUT + this.#index + 1] = item;
    this.#size++;
    this.#changes++;
    const gap = gapBetween(previous, item);
    if (gap > this.#leaves.gaps[leaf]!) this.#raise(leaf, gap);
  }

  /** @throws Error (a bug) if the item is not in the map */
  delete(item: T): void {
    const found = this.floor(item.firstPage, item.firstOffset);
    if (found !== item) throw new Error(`${show(item)} is not in the map`);
    const next = this.#behind();
    if (next !== undefined) {
      const last = this.#index + 1 >= this.#count(this.#leaf);
      const holder = last ? this.#leaves.links[this.#leaf * LINK_FIELDS + NEXT]! : this.#leaf;
      const gap = gapBetween(this.#before(), next);
      if (gap > this.#leaves.gaps[holder]!) this.#raise(holder, gap);
    }
    this.#close(this.#leaf, this.#index);
    this.#size--;
    this.#changes++;
    if (this.#count(this.#leaf) < FANOUT / 4) this.#shrink(this.#leaf);
  }

  /**
   * Ascending. The map may change meanwhile: what is inserted ahead of the last item that was handed out appears, what is
   * deleted ahead does not.
   */
  *[Symbol.iterator](): IterableIterator<T> {
    let changes = -1;
    let last: T | undefined;
    let leaf = NONE;
    let index = 0;
    for (;;) {
      if (changes !== this.#changes) {
        if (last === undefined) this.#seek(-1, 0);
        else this.#seek(last.firstPage, last.firstOffset);
        changes = this.#changes;
        leaf = this.#leaf;
        index = this.#index + 1;
      }
      if (index >= this.#count(leaf)) {
        leaf = this.#leaves.links[leaf * LINK_FIELDS + NEXT]!;
        index = 0;
        if (leaf === NONE) return;
      }
      last = this.#items[leaf * FANOUT + index++];
      if (last === undefined) return; // the empty map's only leaf
      yield last;
    }
  }

  /** @throws Error naming the invariant of this file that does not hold; reads everything, for tests and checks */
  verify(): void {
    const leaves = this.#verifyNode(this.#height, this.#root, NONE, [-Infinity, Infinity]);
    let items = 0;
    let previous: T | undefined;
    let leaf = leaves[0]!;
    for (const [i, expected] of leaves.entries()) {
      assume(leaf === expected, 'leaves are linked in order');
      assume(this.#link(leaf, PREVIOUS) === (leaves[i - 1] ?? NONE), 'leaves are linked back');
      const count = this.#count(leaf);
      assume(count > 0 || this.#size === 0, 'no leaf is empty');
      for (let index = 0; index < FANOUT; index++) {
        const item = this.#items[leaf * FANOUT + index];
        assume((item !== undefined) === index < count, 'slots hold an item up to the count');
        if (item === undefined) continue;
        assume(this.#leaves.keys[leaf * FANOUT + index] === item.firstPage, 'keys are first pages');
        assume(
          previous === undefined || startsAfter(item, previous.lastPage, previous.lastOffset),
          'items ascend and are disjoint',
        );
        assume(gapBetween(previous, item) <= this.#leaves.gaps[leaf]!, 'gap bounds hold');
        previous = item;
        items++;
      }
      leaf = this.#link(leaf, NEXT);
    }
    assume(leaf === NONE, 'the last leaf has no successor');
    assume(items === this.#size, 'the size is the number of items');
  }

  /** @returns the leaves below, in order */
  #verifyNode(level: number, node: number, parent: number, bounds: [number, number]): number[] {
    const pool = level === 0 ? this.#leaves : this.#inner;
    const count = pool.links[node * LINK_FIELDS + COUNT]!;
    const keys = pool.keys.subarray(node * FANOUT, node * FANOUT + count);
    assume(pool.links[node * LINK_FIELDS + PARENT] === parent, 'parents are linked');
    if (level === 0) {
      assume(
        keys.every((key) => key >= bounds[0] && key <= bounds[1]),
        'keys lie within their bounds',
      );
      return [node];
    }
    assume(count > 0 && keys[0] === -Infinity, 'an inner node has kids, the first unbounded');
    const kidPool = level === 1 ? this.#leaves : this.#inner;
    return [...keys].flatMap((key, i) => {
      const kid = this.#kids[node * FANOUT + i]!;
      assume(kidPool.gaps[kid]! <= pool.gaps[node]!, 'a gap bound covers those below');
      const [low, high] = [Math.max(key, bounds[0]), keys[i + 1] ?? bounds[1]];
      assume(low <= high, 'keys of inner nodes ascend');
      return this.#verifyNode(level - 1, kid, node, [low, high]);
    });
  }

  #count(leaf: number): number {
    return this.#leaves.links[leaf * LINK_FIELDS + COUNT]!;
  }

  #link(leaf: number, field: number): number {
    return this.#leaves.links[leaf * LINK_FIELDS + field]!;
  }

  #allocLeaf(): number {
    const leaf = this.#leaves.alloc();
    while (this.#items.length < (leaf + 1) * FANOUT) this.#items.push(undefined);
    return leaf;
  }

  #allocInner(): number {
    const node = this.#inner.alloc();
    if (this.#kids.length < this.#inner.keys.length) {
      const kids = this.#kids;
      this.#kids = new Int32Array(this.#inner.keys.length);
      this.#kids.set(kids);
    }
    return node;
  }

  /**
   * Sets leaf and index to the highest item that starts at or before the position. The index is NONE if that is the last
   * item of the previous leaf, or none at all; then the position belongs at the beginning of this leaf.
   */
  #seek(page: number, offset: number): void {
    let leaf = this.#leaf;
    if (!this.#covers(leaf, page)) leaf = this.#descend(page);
    for (;;) {
      const first = leaf * FANOUT;
      const keys = this.#leaves.keys;
      let index = upperBound(keys, first, first + this.#count(leaf), page) - 1;
      while (index >= first && keys[index] === page && this.#items[index]!.firstOffset > offset) {
        index--;
      }
      this.#leaf = leaf;
      this.#index = index - first;
      if (index >= first) return;
      // Equal pages may go on in the leaf before.
      const previous = this.#link(leaf, PREVIOUS);
      if (previous === NONE) return;
      if (keys[previous * FANOUT + this.#count(previous) - 1] !== page) return;
      this.#index = NONE;
      leaf = previous;
    }
  }

  /** Whether the page certainly belongs to the leaf, so that no way down from the root is needed. */
  #covers(leaf: number, page: number): boolean {
    const count = this.#count(leaf);
    if (count === 0) return this.#height === 0;
    const { keys } = this.#leaves;
    if (page < keys[leaf * FANOUT]!) return false;
    return page < keys[leaf * FANOUT + count - 1]! || this.#link(leaf, NEXT) === NONE;
  }

  #descend(page: number): number {
    const { keys, links } = this.#inner;
    let node = this.#root;
    for (let level = this.#height; level > 0; level--) {
      const first = node * FANOUT;
      const end = first + links[node * LINK_FIELDS + COUNT]!;
      node = this.#kids[upperBound(keys, first + 1, end, page) - 1]!;
    }
    return node;
  }

  /** The item before the one that was sought, or before the leaf if there was none. */
  #before(): T | undefined {
    if (this.#index > 0) return this.#items[this.#leaf * FANOUT + this.#index - 1];
    const previous = this.#link(this.#leaf, PREVIOUS);
    return previous === NONE
      ? undefined
      : this.#items[previous * FANOUT + this.#count(previous) - 1];
  }

  /** The item behind the one that was sought. */
  #behind(): T | undefined {
    const index = this.#index + 1;
    if (index < this.#count(this.#leaf)) return this.#items[this.#leaf * FANOUT + index];
    const next = this.#link(this.#leaf, NEXT);
    return next === NONE ? undefined : this.#items[next * FANOUT];
  }

  /** Makes room for one more at `index` of a leaf. */
  #open(leaf: number, index: number): void {
    const first = leaf * FANOUT + index;
    const end = leaf * FANOUT + this.#leaves.links[leaf * LINK_FIELDS + COUNT]!++;
    const keys = this.#leaves.keys;
    const items = this.#items;
    for (let i = end; i > first; i--) {
      keys[i] = keys[i - 1]!;
      items[i] = items[i - 1];
    }
  }

  #close(leaf: number, index: number): void {
    const end = leaf * FANOUT + --this.#leaves.links[leaf * LINK_FIELDS + COUNT]!;
    const keys = this.#leaves.keys;
    const items = this.#items;
    for (let i = leaf * FANOUT + index; i < end; i++) {
      keys[i] = keys[i + 1]!;
      items[i] = items[i + 1];
    }
    items[end] = undefined;
  }

  /** Divides the full leaf that was sought; leaf and index are those of the same place afterwards. */
  #split(page: number): void {
    const left = this.#leaf;
    const right = this.#allocLeaf();
    const next = this.#link(left, NEXT);
    // Ascending inserts, the usual way to fill an address space, leave full leaves behind them.
    const append = next === NONE && this.#index === FANOUT - 1;
    const middle = append ? FANOUT : FANOUT / 2;
    const { keys, links, gaps } = this.#leaves;
    for (let i = middle; i < FANOUT; i++) {
      keys[right * FANOUT + i - middle] = keys[left * FANOUT + i]!;
      this.#items[right * FANOUT + i - middle] = this.#items[left * FANOUT + i];
      this.#items[left * FANOUT + i] = undefined;
    }
    links[left * LINK_FIELDS + COUNT] = middle;
    links[right * LINK_FIELDS + COUNT] = FANOUT - middle;
    gaps[right] = append ? 0 : gaps[left]!;
    links[left * LINK_FIELDS + NEXT] = right;
    links[right * LINK_FIELDS + PREVIOUS] = left;
    links[right * LINK_FIELDS + NEXT] = next;
    if (next !== NONE) links[next * LINK_FIELDS + PREVIOUS] = right;
    this.#addKid(1, left, right, append ? page : keys[right * FANOUT]!);
    if (this.#index + 1 > middle || append) {
      this.#leaf = right;
      this.#index -= middle;
    }
  }

  /** Puts `right` behind its neighbour `left` into the parent, an inner node of the level. */
  #addKid(level: number, left: number, right: number, key: number): void {
    const kidPool = level === 1 ? this.#leaves : this.#inner;
    let parent = kidPool.links[left * LINK_FIELDS + PARENT]!;
    if (parent === NONE) {
      parent = this.#allocInner();
      this.#inner.links[parent * LINK_FIELDS + COUNT] = 1;
      this.#inner.keys[parent * FANOUT] = -Infinity;
      this.#inner.gaps[parent] = kidPool.gaps[left]!;
      this.#kids[parent * FANOUT] = left;
      kidPool.links[left * LINK_FIELDS + PARENT] = parent;
      this.#root = parent;
      this.#height = level;
    }
    if (this.#inner.links[parent * LINK_FIELDS + COUNT] === FANOUT) {
      parent = this.#splitInner(level, parent, left);
    }
    const { keys, links } = this.#inner;
    const first = parent * FANOUT + this.#kidIndex(parent, left) + 1;
    const end = parent * FANOUT + links[parent * LINK_FIELDS + COUNT]!++;
    keys.copyWithin(first + 1, first, end);
    this.#kids.copyWithin(first + 1, first, end);
    keys[first] = key;
    this.#kids[first] = right;
    kidPool.links[right * LINK_FIELDS + PARENT] = parent;
  }

  /** @returns the half that has `kid` */
  #splitInner(level: number, left: number, kid: number): number {
    const right = this.#allocInner();
    const { keys, links, gaps } = this.#inner;
    const middle = FANOUT / 2;
    const key = keys[left * FANOUT + middle]!;
    links[left * LINK_FIELDS + COUNT] = middle;
    this.#adopt(level, right, left * FANOUT + middle, middle);
    keys[right * FANOUT] = -Infinity;
    gaps[right] = gaps[left]!;
    this.#addKid(level + 1, left, right, key);
    const kidPool = level === 1 ? this.#leaves : this.#inner;
    return kidPool.links[kid * LINK_FIELDS + PARENT]!;
  }

  /** Appends `count` kids, from slot `from` of another inner node, to `node`. */
  #adopt(level: number, node: number, from: number, count: number): void {
    const kidPool = level === 1 ? this.#leaves : this.#inner;
    const { keys, links } = this.#inner;
    const end = node * FANOUT + links[node * LINK_FIELDS + COUNT]!;
    for (let i = 0; i < count; i++) {
      const kid = this.#kids[from + i]!;
      keys[end + i] = keys[from + i]!;
      this.#kids[end + i] = kid;
      kidPool.links[kid * LINK_FIELDS + PARENT] = node;
    }
    links[node * LINK_FIELDS + COUNT]! += count;
  }

  #kidIndex(parent: number, kid: number): number {
    const first = parent * FANOUT;
    let i = first;
    while (this.#kids[i] !== kid) i++;
    return i - first;
  }

  /** Joins a leaf that has become small with a neighbour, if both fit well into one; an empty one goes. */
  #shrink(leaf: number): void {
    const parent = this.#link(leaf, PARENT);
    if (parent === NONE) return;
    const index = this.#kidIndex(parent, leaf);
    const neighbour = index > 0 ? index - 1 : 1;
    if (neighbour >= this.#inner.links[parent * LINK_FIELDS + COUNT]!) {
      // An only child: its parent could not be joined with another.
      if (this.#count(leaf) === 0) this.#dropLeaf(parent, index);
      return;
    }
    const other = this.#kids[parent * FANOUT + neighbour]!;
    const total = this.#count(leaf) + this.#count(other);
    if (total > (FANOUT * 3) / 4 && this.#count(leaf) > 0) return;
    const [left, right] = index > 0 ? [other, leaf] : [leaf, other];
    const count = this.#count(right);
    const end = left * FANOUT + this.#count(left);
    const { keys, links, gaps } = this.#leaves;
    for (let i = 0; i < count; i++) {
      keys[end + i] = keys[right * FANOUT + i]!;
      this.#items[end + i] = this.#items[right * FANOUT + i];
      this.#items[right * FANOUT + i] = undefined;
    }
    links[left * LINK_FIELDS + COUNT]! += count;
    gaps[left] = Math.max(gaps[left]!, gaps[right]!);
    this.#dropLeaf(parent, Math.max(index, neighbour));
  }

  /** Takes a leaf without items out of the tree. */
  #dropLeaf(parent: number, index: number): void {
    const leaf = this.#kids[parent * FANOUT + index]!;
    const { links } = this.#leaves;
    const previous = this.#link(leaf, PREVIOUS);
    const next = this.#link(leaf, NEXT);
    if (previous !== NONE) links[previous * LINK_FIELDS + NEXT] = next;
    if (next !== NONE) links[next * LINK_FIELDS + PREVIOUS] = previous;
    this.#leaf = previous === NONE ? next : previous;
    this.#leaves.free(leaf);
    this.#removeKid(1, parent, index);
  }

  #removeKid(level: number, node: number, index: number): void {
    const { keys, links } = this.#inner;
    const first = node * FANOUT + index;
    const end = node * FANOUT + links[node * LINK_FIELDS + COUNT]!--;
    keys.copyWithin(first, first + 1, end);
    this.#kids.copyWithin(first, first + 1, end);
    keys[node * FANOUT] = -Infinity;
    const parent = links[node * LINK_FIELDS + PARENT]!;
    if (parent === NONE) this.#lower();
    else if (links[node * LINK_FIELDS + COUNT]! < FANOUT / 4)
      this.#shrinkInner(level, node, parent);
  }

  /** The tree loses a level whenever the root has one kid only. */
  #lower(): void {
    while (this.#height > 0 && this.#inner.links[this.#root * LINK_FIELDS + COUNT] === 1) {
      const kid = this.#kids[this.#root * FANOUT]!;
      this.#inner.free(this.#root);
      this.#root = kid;
      this.#height--;
      const pool = this.#height === 0 ? this.#leaves : this.#inner;
      pool.links[kid * LINK_FIELDS + PARENT] = NONE;
    }
  }

  /** As #shrink, for an inner node of the level. */
  #shrinkInner(level: number, node: number, parent: number): void {
    const { keys, links, gaps } = this.#inner;
    const index = this.#kidIndex(parent, node);
    const neighbour = index > 0 ? index - 1 : 1;
    const alone = neighbour >= links[parent * LINK_FIELDS + COUNT]!;
    if (!alone) {
      const other = this.#kids[parent * FANOUT + neighbour]!;
      const [left, right] = index > 0 ? [other, node] : [node, other];
      const count = links[right * LINK_FIELDS + COUNT]!;
      const total = count + links[left * LINK_FIELDS + COUNT]!;
      if (total > (FANOUT * 3) / 4 && links[node * LINK_FIELDS + COUNT]! > 0) return;
      // The first key of a node stands in its parent.
      keys[right * FANOUT] = keys[parent * FANOUT + Math.max(index, neighbour)]!;
      this.#adopt(level, left, right * FANOUT, count);
      gaps[left] = Math.max(gaps[left]!, gaps[right]!);
      keys[left * FANOUT] = -Infinity;
      this.#inner.free(right);
      this.#removeKid(level + 1, parent, Math.max(index, neighbour));
    } else if (links[node * LINK_FIELDS + COUNT] === 0) {
      this.#inner.free(node);
      this.#removeKid(level + 1, parent, index);
    }
  }

  /** Raises the bound of a leaf and of whatever is above it. */
  #raise(leaf: number, gap: number): void {
    this.#leaves.gaps[leaf] = gap;
    const { gaps, links } = this.#inner;
    let node = this.#link(leaf, PARENT);
    while (node !== NONE && gaps[node]! < gap) {
      gaps[node] = gap;
      node = links[node * LINK_FIELDS + PARENT]!;
    }
  }

  /** @returns the first item from `from` with such a gap before it; tightens the bound if all were looked at */
  #wideInLeaf(leaf: number, from: number, pages: number): T | undefined {
    const first = leaf * FANOUT;
    const count = this.#count(leaf);
    const before = this.#link(leaf, PREVIOUS);
    let previous =
      from > 0
        ? this.#items[first + from - 1]
        : before === NONE
          ? undefined
          : this.#items[before * FANOUT + this.#count(before) - 1];
    let widest = 0;
    for (let i = first + from; i < first + count; i++) {
      const item = this.#items[i]!;
      const gap = gapBetween(previous, item);
      if (gap >= pages) return item;
      if (gap > widest) widest = gap;
      previous = item;
    }
    if (from === 0) this.#leaves.gaps[leaf] = widest;
    return undefined;
  }

  #wideInKids(level: number, node: number, from: number, pages: number): T | undefined {
    const gaps = level === 1 ? this.#leaves.gaps : this.#inner.gaps;
    const first = node * FANOUT;
    const end = first + this.#inner.links[node * LINK_FIELDS + COUNT]!;
    for (let i = first + from; i < end; i++) {
      const kid = this.#kids[i]!;
      if (gaps[kid]! < pages) continue;
      const found =
        level === 1 ? this.#wideInLeaf(kid, 0, pages) : this.#wideInKids(level - 1, kid, 0, pages);
      if (found !== undefined) return found;
    }
    let widest = 0;
    for (let i = first; i < end; i++) widest = Math.max(widest, gaps[this.#kids[i]!]!);
    this.#inner.gaps[node] = widest;
    return undefined;
  }
}

function assume(holds: boolean, what: string): void {
  if (!holds) throw new Error(`range map: not so: ${what}`);
}
