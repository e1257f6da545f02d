/**
 * Memory that may not be there: a page that a userfaultfd holds back, or that a file system in user space (FUSE) or on
 * the network has yet to deliver. To read it is to wait for another program, perhaps for ever, perhaps for one whose own
 * calls wait for us. So, once a run can have such pages, the page table is asked first; what is absent is brought in by
 * another thread, and the call begun again when it is there. Writes to absent pages are made by that thread, too,
 * after everything else and before the answer.
 *
 * It costs a few microseconds a copy, which is why it is not always done. A page that is taken away between the question and
 * the copy stops the loop all the same (docs/divergence.md).
 *
 * After pagemap_read of fs/proc/task_mmu.c, and handle_userfault of fs/userfaultfd.c.
 */
import { closeFile, openPath, readAt } from '../../os/files.ts';
import { touchMemory } from '../../os/later.ts';
import { O_RDONLY } from '../../os/numbers.ts';
import { guardMemory, HELD_BACK } from '../../os/process.ts';
import type { Turn } from '../turn.ts';

const PAGE_SHIFT = 12n;
const ENTRY = 8;
const EFAULT = 14;
/** in the high half of an entry */
const PRESENT = 2 ** 31;
const WRITE_PROTECTED = 2 ** 25; // UFFD_WP

/** Brings pages in before they are copied, for as long as the process lives. @param current the turn that is under way */
export function beCarefulWithMemory(current: () => Turn): void {
  guardMemory((tid, address, length, write) => {
    if (allPresent(tid, address, length, write)) return 0;
    if (write) return -HELD_BACK;
    const turn = current();
    const name = `${address} ${length}`;
    if (turn.unreadable.has(name)) return -EFAULT;
    const touched = touchMemory(tid, address, length).then((readable) => {
      if (!readable) turn.unreadable.add(name);
    });
    return turn.leave(touched);
  });
}

function allPresent(tid: number, address: bigint, length: number, write: boolean): boolean {
  const pagemap = openPath(`/proc/${tid}/pagemap`, O_RDONLY);
  if (pagemap < 0) return true;
  const first = Number(address >> PAGE_SHIFT);
  const count = Number((address + BigInt(length) - 1n) >> PAGE_SHIFT) - first + 1;
  const entries = new Uint8Array(count * ENTRY);
  const got = readAt(pagemap, entries, first * ENTRY);
  closeFile(pagemap);
  const high = new Uint32Array(entries.buffer);
  for (let i = 1; i < high.length; i += 2) {
    const entry = high[i] ?? 0;
    if (entry < PRESENT || (write && (entry & WRITE_PROTECTED) !== 0)) return false;
  }
  return got === entries.length;
}
