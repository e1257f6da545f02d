/**
 * What lies behind addresses of the caller, as the test driver asks with get_user_pages.
 */
import { Errno } from '../../base/errno.ts';
import type { PageRun, Task } from '../../base/task.ts';
import { pfnOf, type PhysicalMemory } from '../../machine/memory.ts';

/** Consecutive pages of the caller. */
export type ClientPages = { readonly first: number; readonly count: number };

/**
 * The memory behind pages of the caller, one page each, in order; EFAULT at the first page that is not there, after those
 * before it were told.
 */
export function* pagesAt(task: Task, pages: ClientPages): Generator<PageRun> {
  for (const { backing, page, count } of runsAt(task, pages)) {
    for (let i = 0; i < count; i++) yield { backing, page: page + i, count: 1 };
  }
}

/** Numbers of the frames behind pages of the caller, in order; EFAULT as {@link pagesAt}. */
export function* pfnsAt(
  physical: PhysicalMemory,
  task: Task,
  pages: ClientPages,
): Generator<number> {
  for (const run of runsAt(task, pages)) {
    for (const frames of physical.frames(run)) {
      for (let i = 0; i < frames.count; i++) yield pfnOf(frames, frames.page + i);
    }
  }
}

// Asking for all at once is one look at the process instead of one for each page; where that fails, it is not known how
// far it would have come.
function* runsAt(task: Task, { first, count }: ClientPages): Generator<PageRun> {
  let runs: readonly PageRun[];
  try {
    runs = task.memory.resolve(first, count, false);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    for (let page = first; page < first + count; page++) {
      yield* task.memory.resolve(page, 1, false);
    }
    return;
  }
  yield* runs;
}
