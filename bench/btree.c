/*
 * A B+ tree of disjoint closed ranges of 64-bit addresses, as one writes it in C for what RangeMap (src/base/range-map.ts)
 * does: lookup, insert, delete, and the search for a free range. The measure for bench/range-map.ts and bench/engine.ts, which
 * load it as a shared library, so that both trees are measured in one process.
 *
 * Invariants: ranges ascend through the leaves, which are linked both ways; no leaf is empty but the only one of an empty tree;
 * keys behind the count of a node are UINT64_MAX; key[i] of an inner node is at most the first address below kid i and above
 * all addresses below kid i - 1, and 0 for the first kid; gap[i] is at least the widest free range before any
 * range below kid i. It may be too wide: a search that finds nothing tightens it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
	LEAF = 32,	/* ranges in a leaf: fewer than kids, since each insert and delete moves half of them */
	FANOUT = 64,
	HEIGHT = 16,
};

struct leaf {
	struct leaf *previous, *next;
	int count;
	uint64_t first[LEAF], last[LEAF];
	void *item[LEAF];
};

struct inner {
	int count;
	uint64_t key[FANOUT];
	void *kid[FANOUT];
	uint64_t gap[FANOUT];
};

struct tree {
	void *root;	/* a leaf if the height is 0 */
	int height;
	int64_t size;
};

/* The way from the root to a leaf; level 1 is the one above the leaves. */
struct path {
	struct inner *node[HEIGHT];
	int index[HEIGHT];
};

/*
 * How many of `width` ascending keys are at most `key`. With a million ranges this is the fastest of five ways that were
 * measured: the processor goes on by a guess, where a search without branches waits for memory at each step. Counting keys in
 * blocks without branches is three times as fast with 1,000 ranges, which lie in the cache, and half as fast with a million.
 */
static inline int upper_bound(const uint64_t *keys, int width, uint64_t key)
{
	int low = 0, high = width;

	while (low < high) {
		int middle = (low + high) / 2;

		if (keys[middle] <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct leaf *new_leaf(void)
{
	struct leaf *leaf = malloc(sizeof(*leaf));

	leaf->previous = leaf->next = NULL;
	leaf->count = 0;
	memset(leaf->first, 0xff, sizeof(leaf->first));
	return leaf;
}

static struct inner *new_inner(void)
{
	struct inner *node = malloc(sizeof(*node));

	node->count = 0;
	memset(node->key, 0xff, sizeof(node->key));
	return node;
}

static struct leaf *descend(const struct tree *tree, uint64_t key, struct path *path)
{
	void *node = tree->root;

	for (int level = tree->height; level > 0; level--) {
		struct inner *inner = node;
		int index = upper_bound(inner->key, FANOUT, key) - 1;

		path->node[level] = inner;
		path->index[level] = index;
		node = inner->kid[index];
	}
	return node;
}

/* The free addresses before `first`; `before` is the range before it, if there is one. */
static uint64_t gap_before(uint64_t first, const struct leaf *leaf, int index)
{
	if (index > 0)
		return first - leaf->last[index - 1] - 1;
	if (leaf->previous != NULL)
		return first - leaf->previous->last[leaf->previous->count - 1] - 1;
	return first;
}

/* Raises the bounds of the nodes on the path. */
static void raise_gap(const struct tree *tree, const struct path *path, uint64_t gap)
{
	for (int level = 1; level <= tree->height; level++) {
		uint64_t *bound = &path->node[level]->gap[path->index[level]];

		if (*bound >= gap)
			return;
		*bound = gap;
	}
}

static uint64_t widest(const struct inner *node)
{
	uint64_t gap = 0;

	for (int i = 0; i < node->count; i++)
		if (node->gap[i] > gap)
			gap = node->gap[i];
	return gap;
}

static void put_kid(struct inner *node, int index, uint64_t key, void *kid, uint64_t gap)
{
	size_t behind = node->count++ - index;

	memmove(node->key + index + 1, node->key + index, behind * sizeof(*node->key));
	memmove(node->kid + index + 1, node->kid + index, behind * sizeof(*node->kid));
	memmove(node->gap + index + 1, node->gap + index, behind * sizeof(*node->gap));
	node->key[index] = key;
	node->kid[index] = kid;
	node->gap[index] = gap;
}

static void take_kid(struct inner *node, int index)
{
	size_t behind = --node->count - index;

	memmove(node->key + index, node->key + index + 1, behind * sizeof(*node->key));
	memmove(node->kid + index, node->kid + index + 1, behind * sizeof(*node->kid));
	memmove(node->gap + index, node->gap + index + 1, behind * sizeof(*node->gap));
	node->key[node->count] = UINT64_MAX;
	if (node->count > 0)
		node->key[0] = 0;
}

/* Moves the kids from `index` on behind those of another node. */
static void move_kids(struct inner *from, int index, struct inner *to)
{
	size_t moved = from->count - index;

	memcpy(to->key + to->count, from->key + index, moved * sizeof(*to->key));
	memcpy(to->kid + to->count, from->kid + index, moved * sizeof(*to->kid));
	memcpy(to->gap + to->count, from->gap + index, moved * sizeof(*to->gap));
	memset(from->key + index, 0xff, moved * sizeof(*from->key));
	to->count += moved;
	from->count = index;
}

/* Puts a new node behind the one on the path of level `level` - 1; both have the gap bound of that one. */
static void add_kid(struct tree *tree, struct path *path, int level, uint64_t key, void *kid, uint64_t gap)
{
	struct inner *node, *right;
	uint64_t middle;

	if (level > tree->height) {
		node = new_inner();
		put_kid(node, 0, 0, tree->root, UINT64_MAX);
		tree->root = node;
		tree->height = level;
		path->node[level] = node;
		path->index[level] = 0;
	}
	node = path->node[level];
	if (node->count == FANOUT) {
		right = new_inner();
		middle = node->key[FANOUT / 2];
		move_kids(node, FANOUT / 2, right);
		right->key[0] = 0;
		add_kid(tree, path, level + 1, middle, right, UINT64_MAX);
		if (path->index[level] >= FANOUT / 2) {
			node = right;
			path->index[level] -= FANOUT / 2;
		}
	}
	put_kid(node, path->index[level] + 1, key, kid, gap);
}

static void move_ranges(struct leaf *from, int index, struct leaf *to)
{
	size_t moved = from->count - index;

	memcpy(to->first + to->count, from->first + index, moved * sizeof(*to->first));
	memcpy(to->last + to->count, from->last + index, moved * sizeof(*to->last));
	memcpy(to->item + to->count, from->item + index, moved * sizeof(*to->item));
	memset(from->first + index, 0xff, moved * sizeof(*from->first));
	to->count += moved;
	from->count = index;
}

static void split_leaf(struct tree *tree, struct path *path, struct leaf *left, uint64_t first)
{
	struct leaf *right = new_leaf();
	/* Ascending inserts leave full leaves behind them. */
	int append = left->next == NULL && first > left->first[LEAF - 1];

	move_ranges(left, append ? LEAF : LEAF / 2, right);
	right->previous = left;
	right->next = left->next;
	left->next = right;
	if (right->next != NULL)
		right->next->previous = right;
	add_kid(tree, path, 1, append ? first : right->first[0], right, UINT64_MAX);
}

/* Returns 0, or -1 where the range is empty or overlaps another. */
int tree_insert(struct tree *tree, uint64_t first, uint64_t last, void *item)
{
	struct path path;
	struct leaf *leaf = descend(tree, first, &path);
	int index = upper_bound(leaf->first, LEAF, first);
	size_t behind;

	if (last < first || (index > 0 && leaf->last[index - 1] >= first))
		return -1;
	if (index == 0 && leaf->previous != NULL && leaf->previous->last[leaf->previous->count - 1] >= first)
		return -1;
	if (index < leaf->count ? leaf->first[index] <= last : leaf->next != NULL && leaf->next->first[0] <= last)
		return -1;
	if (leaf->count == LEAF) {
		split_leaf(tree, &path, leaf, first);
		leaf = descend(tree, first, &path);
		index = upper_bound(leaf->first, LEAF, first);
	}
	behind = leaf->count++ - index;
	memmove(leaf->first + index + 1, leaf->first + index, behind * sizeof(*leaf->first));
	memmove(leaf->last + index + 1, leaf->last + index, behind * sizeof(*leaf->last));
	memmove(leaf->item + index + 1, leaf->item + index, behind * sizeof(*leaf->item));
	leaf->first[index] = first;
	leaf->last[index] = last;
	leaf->item[index] = item;
	tree->size++;
	raise_gap(tree, &path, gap_before(first, leaf, index));
	return 0;
}

/* Takes a kid that was moved into its left neighbour, or that is empty, out of the nodes above it. */
static void drop_kid(struct tree *tree, struct path *path, int level)
{
	struct inner *node = path->node[level], *root, *parent, *left, *right;
	int index;

	take_kid(node, path->index[level]);
	if (level == tree->height) {
		while (tree->height > 0 && (root = tree->root)->count == 1) {
			tree->root = root->kid[0];
			tree->height--;
			free(root);
		}
		return;
	}
	if (node->count >= FANOUT / 4)
		return;
	parent = path->node[level + 1];
	index = path->index[level + 1];
	if (parent->count == 1) {
		if (node->count > 0)
			return;
		free(node);
		drop_kid(tree, path, level + 1);
		return;
	}
	index = index > 0 ? index : 1;
	left = parent->kid[index - 1];
	right = parent->kid[index];
	if (left->count + right->count > FANOUT * 3 / 4 && node->count > 0)
		return;
	/* The first key of a node is that in its parent. */
	if (right->count > 0)
		right->key[0] = parent->key[index];
	move_kids(right, 0, left);
	left->key[0] = 0;
	free(right);
	parent->gap[index - 1] = widest(left);
	path->index[level + 1] = index;
	drop_kid(tree, path, level + 1);
}

static void drop_leaf(struct tree *tree, struct path *path, struct leaf *leaf)
{
	if (leaf->previous != NULL)
		leaf->previous->next = leaf->next;
	if (leaf->next != NULL)
		leaf->next->previous = leaf->previous;
	free(leaf);
	drop_kid(tree, path, 1);
}

/* Joins a leaf that has become small with a neighbour, if both fit well into one. */
static void shrink_leaf(struct tree *tree, struct path *path, struct leaf *leaf)
{
	struct inner *parent = path->node[1];
	struct leaf *left, *right;
	int index = path->index[1];

	if (parent->count == 1) {
		if (leaf->count == 0)
			drop_leaf(tree, path, leaf);
		return;
	}
	index = index > 0 ? index : 1;
	left = parent->kid[index - 1];
	right = parent->kid[index];
	if (left->count + right->count > LEAF * 3 / 4 && leaf->count > 0)
		return;
	move_ranges(right, 0, left);
	if (parent->gap[index] > parent->gap[index - 1])
		parent->gap[index - 1] = parent->gap[index];
	path->index[1] = index;
	drop_leaf(tree, path, right);
}

/* Returns the item, or NULL where no range starts at `first`. */
void *tree_delete(struct tree *tree, uint64_t first)
{
	struct path path, behind;
	struct leaf *leaf = descend(tree, first, &path);
	int index = upper_bound(leaf->first, LEAF, first) - 1;
	size_t after;
	void *item;

	if (index < 0 || leaf->first[index] != first || index >= leaf->count)
		return NULL;
	if (index + 1 < leaf->count) {
		raise_gap(tree, &path, gap_before(leaf->first[index + 1], leaf, index));
	} else if (leaf->next != NULL) {
		descend(tree, leaf->next->first[0], &behind);
		raise_gap(tree, &behind, gap_before(leaf->next->first[0], leaf, index));
	}
	item = leaf->item[index];
	after = --leaf->count - index;
	memmove(leaf->first + index, leaf->first + index + 1, after * sizeof(*leaf->first));
	memmove(leaf->last + index, leaf->last + index + 1, after * sizeof(*leaf->last));
	memmove(leaf->item + index, leaf->item + index + 1, after * sizeof(*leaf->item));
	leaf->first[leaf->count] = UINT64_MAX;
	tree->size--;
	if (tree->height > 0 && leaf->count < LEAF / 4)
		shrink_leaf(tree, &path, leaf);
	return item;
}

/* Returns the item of the range that contains the address, or NULL. */
void *tree_lookup(const struct tree *tree, uint64_t address)
{
	void *node = tree->root;
	struct leaf *leaf;
	int index;

	for (int level = tree->height; level > 0; level--) {
		struct inner *inner = node;

		node = inner->kid[upper_bound(inner->key, FANOUT, address) - 1];
	}
	leaf = node;
	index = upper_bound(leaf->first, LEAF, address) - 1;
	return index >= 0 && leaf->last[index] >= address ? leaf->item[index] : NULL;
}

/* The first range below with at least `length` free addresses before it; tightens the bound in the parent. */
static int wide_gap(void *node, int level, uint64_t length, uint64_t *bound, uint64_t *first)
{
	uint64_t gap = 0;

	if (level == 0) {
		struct leaf *leaf = node;

		for (int i = 0; i < leaf->count; i++) {
			uint64_t before = gap_before(leaf->first[i], leaf, i);

			if (before >= length) {
				*first = leaf->first[i];
				return 1;
			}
			gap = before > gap ? before : gap;
		}
	} else {
		struct inner *inner = node;

		for (int i = 0; i < inner->count; i++)
			if (inner->gap[i] >= length && wide_gap(inner->kid[i], level - 1, length, &inner->gap[i], first))
				return 1;
		gap = widest(inner);
	}
	*bound = gap;
	return 0;
}

/* Returns where the first range starts that has at least `length` free addresses before it, or 0. */
uint64_t tree_wide_gap(struct tree *tree, uint64_t length)
{
	uint64_t bound, first;

	return wide_gap(tree->root, tree->height, length, &bound, &first) ? first : 0;
}

struct tree *tree_new(void)
{
	struct tree *tree = malloc(sizeof(*tree));

	tree->root = new_leaf();
	tree->height = 0;
	tree->size = 0;
	return tree;
}

/* Slices of operations for the benchmarks, each on a list of addresses of pages; the results are sums of what was found. */

enum { PAGE = 4096 };

int64_t tree_fill(struct tree *tree, const uint64_t *addresses, int count)
{
	for (int i = 0; i < count; i++)
		tree_insert(tree, addresses[i], addresses[i] + PAGE - 1, (void *)(uintptr_t)(addresses[i] + 1));
	return tree->size;
}

int64_t tree_lookups(const struct tree *tree, const uint64_t *addresses, int from, int to)
{
	int64_t found = 0;

	for (int i = from; i < to; i++)
		found += tree_lookup(tree, addresses[i] + 5) != NULL;
	return found;
}

int64_t tree_changes(struct tree *tree, const uint64_t *addresses, int from, int to, int lookup)
{
	for (int i = from; i < to; i++) {
		void *item;

		if (lookup && tree_lookup(tree, addresses[i]) == NULL)
			return -1;
		item = tree_delete(tree, addresses[i]);
		tree_insert(tree, addresses[i], addresses[i] + PAGE - 1, item);
	}
	return tree->size;
}

int64_t tree_gaps(struct tree *tree, int from, int to)
{
	int64_t sum = 0;

	for (int i = from; i < to; i++)
		sum += tree_wide_gap(tree, (1 + (i & 1)) * PAGE) / PAGE;
	return sum;
}
