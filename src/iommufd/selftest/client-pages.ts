/**
 * What lies behind an address of the caller, as the test driver asks with get_user_pages.
 */
import type { Backing, Task } from '../../base/task.ts';
import { pfnOf, type PhysicalMemory } from '../../machine/memory.ts';

/** Number of the frame behind a page of the caller; EFAULT. */
export function pfnAt(physical: PhysicalMemory, task: Task, page: number): number {
  const [run] = task.memory.resolve(page, 1, false);
  if (run === undefined) throw new Error('nothing was resolved');
  const [frames] = physical.frames(run);
  if (frames === undefined) throw new Error('no frame was numbered');
  return pfnOf(frames, frames.page);
}

/** The page of memory behind a page of the caller; EFAULT. */
export function pageAt(
  task: Task,
  page: number,
): { readonly backing: Backing; readonly page: number } {
  const [run] = task.memory.resolve(page, 1, false);
  if (run === undefined) throw new Error('nothing was resolved');
  return run;
}
