/**
 * Who pays for pinned pages: nobody, the user, or the process, against RLIMIT_MEMLOCK of whoever made the page set. Type 1
 * containers charge the process another way (`locked`): always, CAP_IPC_LOCK only lifts the limit, and VmPin does not count them.
 *
 * The limit is checked after the pages were pinned, as Linux does it, because how many of a range are pinned already is
 * only known then; a failure undoes the whole operation. `pinnedPages` of the address space counts in every mode but `locked`.
 *
 * After drivers/iommu/iommufd/pages.c (iopt_pages_update_pinned), drivers/vfio/vfio_iommu_type1.c (vfio_lock_acct) and mm/util.c
 * (__account_locked_vm).
 */
import { Errno } from '../base/errno.ts';
import type { AddressSpace, ResourceLimits, Task } from '../base/task.ts';
import { PAGE_SIZE } from '../machine/memory.ts';

export type AccountMode = 'none' | 'user' | 'mm' | 'locked';

/** Who is charged for one page set. */
export type Payer = {
  readonly memory: AddressSpace;
  readonly uid: number;
  /** asked when pages are charged: a limit may change after a page set was made (task_rlimit of source_task) */
  readonly limits: ResourceLimits;
  readonly mode: AccountMode;
  /** the limit does not apply, the pages are charged all the same (CAP_IPC_LOCK, `locked` only) */
  readonly unlimited?: boolean;
};

/** Pages that a process could still be charged for; Infinity where no limit applies. */
export function headroom(payer: Payer): number {
  const { memory, unlimited } = payer;
  if (unlimited === true) return Infinity;
  return Math.max(limitOf(payer) - memory.lockedPages - memory.lockedByItself, 0);
}

/**
 * The payer that a caller becomes for page sets that it makes; the context's mode applies where the caller pays at all.
 * @param last used again where nothing has changed: a million page sets need not each have one of their own
 */
export function payerOf(task: Task, contextMode: 'user' | 'mm', last?: Payer): Payer {
  const { memory, uid, limits } = task;
  const mode = task.capable('CAP_IPC_LOCK') ? 'none' : contextMode;
  const same =
    last?.memory === memory && last.uid === uid && last.limits === limits && last.mode === mode;
  return same ? last : { memory, uid, limits, mode };
}

/** Locked pages of all users of the machine (user_struct::locked_vm). */
export class Accounting {
  readonly #byUser = new Map<number, number>();

  /** Charges `pages` more; ENOMEM over the limit, nothing charged then. */
  charge(payer: Payer, pages: number): void {
    if (payer.mode === 'user') {
      const limit = limitOf(payer);
      const now = (this.#byUser.get(payer.uid) ?? 0) + pages;
      if (now > limit) {
        throw overLimit(`user ${payer.uid}`, now, limit);
      }
      this.#byUser.set(payer.uid, now);
    } else if (payer.mode !== 'none') {
      const { memory } = payer;
      const now = memory.lockedPages + memory.lockedByItself + pages;
      if (pages > headroom(payer)) throw overLimit('the process', now, limitOf(payer));
      memory.lockedPages += pages;
    }
    if (payer.mode !== 'locked') payer.memory.pinnedPages += pages;
  }

  uncharge(payer: Payer, pages: number): void {
    if (payer.mode === 'user') {
      const now = (this.#byUser.get(payer.uid) ?? 0) - pages;
      if (now < 0) throw new Error(`user ${payer.uid} gets back more pages than it paid for`);
      if (now === 0) this.#byUser.delete(payer.uid);
      else this.#byUser.set(payer.uid, now);
    } else if (payer.mode !== 'none') {
      payer.memory.lockedPages -= pages;
    }
    if (payer.mode !== 'locked') payer.memory.pinnedPages -= pages;
  }

  /** Pages that a user has locked. */
  lockedBy(uid: number): number {
    return this.#byUser.get(uid) ?? 0;
  }
}

const limitOf = ({ limits }: Payer): number => Math.floor(limits.memlock / PAGE_SIZE);

function overLimit(who: string, pages: number, limit: number): Errno {
  return new Errno(
    'ENOMEM',
    `${who} would have ${pages} pages locked, RLIMIT_MEMLOCK allows ${limit}; raise it (ulimit -l) or give CAP_IPC_LOCK`,
  );
}
