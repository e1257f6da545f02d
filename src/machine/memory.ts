/**
 * Physical memory of the imaginary machine. Nothing is stored here: a frame is a page of some {@link Backing} (private
 * memory of a client, a file, a buffer of ours) that got a number when it was first pinned.
 *
 * Numbers are handed out in windows of 1 GiB, each onto a 1 GiB-aligned piece of one backing, so a page has one physical
 * address however often and from wherever it is mapped, and numbering 1 TiB costs what numbering 4 KiB costs. Within a
 * window frames run downwards: neighbouring pages are not neighbours in physical memory, as in Linux, where nothing
 * promises that they are, except inside one unit of the backing (a huge page). Programs that need contiguous memory must
 * therefore ask for huge pages here too, and no page table ever merges two small pages into one leaf.
 *
 * Invariant: a window belongs to a backing for as long as that backing is alive or has a pin.
 * Words: pfn, number of a frame; unit, pages (a power of two) that are physically contiguous; top, the constant from which a window counts
 * down; pin, a run of frames that somebody holds (one pin for each page set, as pin_user_pages counts them).
 */
import type { Backing, PageRun } from '../base/task.ts';

export const PAGE_SIZE = 4096;
const WINDOW_PAGES = 2 ** 18;

/** Frames of consecutive pages of one backing, all counted from the same top. */
export type FrameRun = PageRun & {
  readonly top: number;
  readonly frames: Frames;
  /** place in the list of pins; -1 while nobody holds the run */
  pinIndex: number;
};

/** Where a physical address lands. */
export type Location = { readonly backing: Backing; readonly page: number };

/** Windows that were numbered together, up to `last`: they count down from one top. */
type Numbered = { readonly last: number; readonly top: number };

type Window = { readonly frames: Frames; readonly top: number };

/** What one backing has of physical memory: its windows by number, and the pins on it. */
export class Frames {
  readonly backing: Backing;
  readonly numbered = new Map<number, Numbered>();
  /** in no order; each run knows its place */
  readonly pins: FrameRun[] = [];
  dead = false;

  constructor(backing: Backing) {
    this.backing = backing;
  }
}

/** Number of the frame that holds `page` of the run's backing. */
export function pfnOf(run: FrameRun, page: number): number {
  const { unit } = run.backing;
  const inUnit = page % unit;
  return run.top - (page - inUnit) - (unit - 1) + inUnit;
}

export class PhysicalMemory {
  readonly #byBacking = new Map<Backing, Frames>();
  readonly #windows: (Window | undefined)[] = [];
  readonly #free: number[] = [];
  // Calls come in neighbourhoods: the backing that was asked for last, and one of its windows.
  #recent: Frames | undefined;
  #recentWindow = -1;
  #recentTop = 0;

  /**
   * Frames of a run of pages, in order, numbered on first use.
   * @returns one run, or more where windows of the backing were numbered at different times
   */
  frames(run: PageRun): FrameRun[] {
    const first = Math.floor(run.page / WINDOW_PAGES);
    const last = Math.floor((run.page + run.count - 1) / WINDOW_PAGES);
    if (first === last) return [this.#within(run, first)];
    const frames = this.#framesOf(run.backing);
    const runs: FrameRun[] = [];
    const runEnd = run.page + run.count;
    for (let page = run.page; page < runEnd;) {
      const group = this.#number(frames, Math.floor(page / WINDOW_PAGES), last);
      const end = Math.min((group.last + 1) * WINDOW_PAGES, runEnd);
      runs.push({
        backing: run.backing,
        page,
        count: end - page,
        top: group.top,
        frames,
        pinIndex: -1,
      });
      page = end;
    }
    return runs;
  }

  /** Holds a run's pages in place; one call for each {@link unpin}. */
  pin(run: FrameRun): void {
    run.pinIndex = run.frames.pins.push(run) - 1;
  }

  unpin(run: FrameRun): void {
    const { frames, pinIndex } = run;
    if (frames.pins[pinIndex] !== run) throw new Error('a run is unpinned that is not pinned');
    const tail = frames.pins.pop();
    if (tail !== undefined && tail !== run) {
      frames.pins[pinIndex] = tail;
      tail.pinIndex = pinIndex;
    }
    run.pinIndex = -1;
    if (frames.dead && frames.pins.length === 0) this.#drop(frames);
  }

  /** How many pins hold one page. */
  pinCount(backing: Backing, page: number): number {
    let count = 0;
    for (const run of this.#byBacking.get(backing)?.pins ?? []) {
      if (run.page <= page && page < run.page + run.count) count++;
    }
    return count;
  }

  /** Pages of a backing that somebody holds, in no order, overlapping where several do. */
  pinnedPages(backing: Backing): { readonly page: number; readonly count: number }[] {
    return [...(this.#byBacking.get(backing)?.pins ?? [])].map(({ page, count }) => ({
      page,
      count,
    }));
  }

  /** Nobody can reach the backing any more but through pins: its windows go back when the last of these goes. */
  forget(backing: Backing): void {
    const frames = this.#byBacking.get(backing);
    if (frames === undefined) return;
    frames.dead = true;
    if (frames.pins.length === 0) this.#drop(frames);
  }

  /** The page behind a frame number; undefined for a frame that nobody has. */
  locate(pfn: number): Location | undefined {
    const window = this.#windows[Math.floor(pfn / WINDOW_PAGES)];
    if (window === undefined) return undefined;
    const { backing } = window.frames;
    const below = window.top - pfn;
    const inUnit = below % backing.unit;
    return { backing, page: below - inUnit + (backing.unit - 1 - inUnit) };
  }

  /** All pins there are; for the leak check. */
  get pinCountTotal(): number {
    let count = 0;
    for (const frames of this.#byBacking.values()) count += frames.pins.length;
    return count;
  }

  #within({ backing, page, count }: PageRun, window: number): FrameRun {
    let frames = this.#recent;
    if (frames?.backing !== backing || this.#recentWindow !== window) {
      frames = this.#framesOf(backing);
      this.#recentTop = this.#number(frames, window, window).top;
      this.#recent = frames;
      this.#recentWindow = window;
    }
    return { backing, page, count, top: this.#recentTop, frames, pinIndex: -1 };
  }

  #framesOf(backing: Backing): Frames {
    let frames = this.#byBacking.get(backing);
    if (frames === undefined) {
      frames = new Frames(backing);
      this.#byBacking.set(backing, frames);
    }
    return frames;
  }

  #drop(frames: Frames): void {
    this.#byBacking.delete(frames.backing);
    this.#recent = undefined;
    this.#windows.forEach((window, index) => {
      if (window?.frames !== frames) return;
      this.#windows[index] = undefined;
      this.#free.push(index);
    });
  }

  /** Numbers a window, and with it all windows up to `last` that have no numbers, so that they share the top. */
  #number(frames: Frames, window: number, last: number): Numbered {
    const known = frames.numbered.get(window);
    if (known !== undefined) return known;
    let end = window;
    while (end < last && !frames.numbered.has(end + 1)) end++;
    const reused = end === window ? this.#free.pop() : undefined;
    // Windows count downwards too, so that one top serves all of them: the last one gets the lowest numbers.
    const lowest = reused ?? this.#windows.length;
    const top = lowest * WINDOW_PAGES + (end + 1) * WINDOW_PAGES - 1;
    const group = { last: end, top };
    for (let each = end; each >= window; each--) {
      this.#windows[lowest + end - each] = { frames, top };
      frames.numbered.set(each, group);
    }
    return group;
  }
}
