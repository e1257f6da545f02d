/**
 * The machine of the plain model: which pages are pinned, who pays, and undoing what was refused (see plain-model.ts).
 */
import {
  MEMORY,
  PAGE,
  READ_ONLY_PAGES,
  WRITABLE_PAGES,
  pagesBehind,
  refuse,
} from './plain-objects.ts';
import type { PageSet, PlainArea, PlainHwpt, PlainObject } from './plain-objects.ts';
import type { PlainContext } from './plain-model.ts';

export class PlainMachine {
  readonly contexts: PlainContext[] = [];
  /** page tables in the order in which they were made */
  readonly created: PlainHwpt[] = [];

  /** Which pages of which sets are pinned now: those that a page table shows, and those that an access holds. */
  pinned(): Map<PageSet, Set<bigint>> {
    const found = new Map<PageSet, Set<bigint>>();
    const add = (set: PageSet, pages: readonly bigint[]): void => {
      const known = found.get(set) ?? new Set();
      for (const page of pages) known.add(page);
      found.set(set, known);
    };
    for (const context of this.contexts) {
      for (const ioas of context.all('IOAS')) {
        if (context.domains(ioas).length === 0) continue;
        for (const area of ioas.areas) {
          if (this.#notYet.has(area)) continue;
          add(area.set, pagesBehind(area, area));
        }
      }
      for (const { items } of context.all('ACCESS')) {
        for (const part of items.flatMap(({ held }) => held)) {
          add(part.area.set, pagesBehind(part.area, part));
        }
      }
    }
    return found;
  }

  /** Pages that a user has locked. */
  locked(uid: number): number {
    let count = 0;
    for (const [{ process }, pages] of this.pinned()) {
      if (process.uid === uid && process.limit !== undefined) count += pages.size;
    }
    return count;
  }

  // Areas that a page table is going to show, whose turn to be pinned has not come.
  readonly #notYet = new Set<PlainArea>();

  /** A page table begins to show areas, one after the other. */
  show(areas: readonly PlainArea[]): void {
    for (const area of areas) this.#notYet.add(area);
    for (const area of areas) {
      this.pin(area.set, pagesBehind(area, area));
      this.#notYet.delete(area);
    }
  }

  /** What pinning pages of a set is refused for: those that are pinned already cost nothing. */
  pin(set: PageSet, pages: readonly bigint[]): void {
    const before = this.pinned().get(set) ?? new Set();
    const fresh = pages.filter((page) => !before.has(page));
    if (fresh.length === 0) return;
    const { process, writable } = set;
    const end = MEMORY / PAGE + WRITABLE_PAGES + (writable ? 0n : READ_ONLY_PAGES);
    const isThere = (page: bigint): boolean => page >= MEMORY / PAGE && page < end;
    refuse('EFAULT', !process.alive || !fresh.every(isThere));
    const { limit, uid } = process;
    refuse('ENOMEM', limit !== undefined && this.locked(uid) + fresh.length > limit);
  }

  /** Runs all of `act`, or nothing of it if it is refused. */
  atomic<T>(act: () => T): T {
    const created = [...this.created];
    const saved = this.contexts.map(({ objects }) =>
      [...objects].map(([id, object]) => ({ id, object, copy: copyOf(object) })),
    );
    try {
      return act();
    } catch (error) {
      this.#notYet.clear();
      this.created.splice(0, Infinity, ...created);
      this.contexts.forEach(({ objects }, i) => {
        objects.clear();
        for (const { id, object, copy } of saved[i] ?? []) {
          objects.set(id, object);
          if (object !== 'tombstone') Object.assign(object, copy);
        }
      });
      throw error;
    }
  }
}

/** One level deep, which is as deep as objects change in place. */
function copyOf(object: PlainObject | 'tombstone'): object {
  if (object === 'tombstone') return {};
  return Object.fromEntries(
    Object.entries(object).map(([key, value]: [string, unknown]) => [
      key,
      Array.isArray(value) ? (value.slice() as unknown) : value,
    ]),
  );
}
