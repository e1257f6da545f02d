/**
 * The B+ tree in C (btree.c) as a shared library, built when a benchmark wants it: a tree that holds the same pages as the
 * subject, and slices of operations on it. A slice is one call, so that crossing from JavaScript costs nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Skip, Slice } from './measure.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

export type BTree = {
  /** Looks up a byte of each of the pages that are asked for. */
  lookups(asked: readonly number[]): Slice;
  /** Deletes each of the pages that are asked for and inserts it again, after a lookup if `lookup` is set. */
  changes(asked: readonly number[], lookup: boolean): Slice;
  /** Searches a free range of one page and of two, by turns. */
  gaps(): Slice;
};

export const NO_BTREE: Skip = { skip: 'there is no gcc, or no koffi' };

type Functions = Record<string, (...values: readonly unknown[]) => unknown>;

let functions: Functions | undefined;

const addresses = (pages: readonly number[]): BigUint64Array =>
  BigUint64Array.from(pages, (page) => BigInt(page) * 4096n);

/** A tree of these pages, each a range of its own. Undefined where there is no gcc or no koffi. */
export function btreeOf(pages: readonly number[]): BTree | undefined {
  const c = (functions ??= load());
  if (c === undefined) return undefined;
  const call = (name: string, ...values: readonly unknown[]): number => {
    const result = Number(c[name]?.(...values));
    if (result < 0) throw new Error(`${name} of btree.c: a page is not there`);
    return result;
  };
  const tree = c['tree_new']?.();
  if (call('tree_fill', tree, addresses(pages), pages.length) !== pages.length) {
    throw new Error('btree.c lost pages');
  }
  return {
    lookups(asked) {
      const keys = addresses(asked);
      return (from, to) => call('tree_lookups', tree, keys, from, to);
    },
    changes(asked, lookup) {
      const keys = addresses(asked);
      return (from, to) => call('tree_changes', tree, keys, from, to, Number(lookup));
    },
    gaps: () => (from, to) => call('tree_gaps', tree, from, to),
  };
}

function load(): Functions | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-bench-'));
  try {
    const library = join(folder, 'btree.so');
    const source = join(root, 'bench', 'btree.c');
    const { status } = spawnSync('gcc', ['-O2', '-shared', '-fPIC', '-o', library, source]);
    if (status !== 0) return undefined;
    const koffi = createRequire(import.meta.url)('koffi') as {
      load(path: string): { func(prototype: string): Functions[string] };
    };
    const loaded = koffi.load(library);
    return {
      tree_new: loaded.func('void *tree_new(void)'),
      tree_fill: loaded.func('int64_t tree_fill(void *, void *, int)'),
      tree_lookups: loaded.func('int64_t tree_lookups(void *, void *, int, int)'),
      tree_changes: loaded.func('int64_t tree_changes(void *, void *, int, int, int)'),
      tree_gaps: loaded.func('int64_t tree_gaps(void *, int, int)'),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
