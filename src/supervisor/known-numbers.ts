/**
 * Known numbers: which of our files a client's file numbers stand for, remembered. Asking the kernel costs two microseconds,
 * more than a tenth of a call; a program that makes many calls makes them on few numbers.
 *
 * Invariant: a remembered number stands for that file now. It holds because
 * - whatever can make a low number mean something else is looked at (filter.ts) and forgets before it is carried out: close,
 *   dup2, dup3, close_range, exec;
 * - only what the first thread of a process uses is remembered: while its process lives, its number means no other thread,
 *   and when it calls, all its earlier calls are over. What its other threads change is carried out at some time
 *   after we saw it; so the first such change ends the remembering for that process, and one that had other threads when
 *   it came to us never begins with it;
 * - nobody else changes its table: once a process is started that shares one, or io_uring is set up, whose operations
 *   no filter sees, nothing is remembered any more in this run.
 * 32-bit calls are not looked at: a program that mixes them in could go on with a file that it has closed, as long as it
 * holds another number of it.
 */
import { isThreadOf } from '../os/process.ts';
import type { OpenEntry } from './files.ts';
import type { ClientProcess, ClientThread } from './process-table.ts';

/** Numbers from here on are asked for each time: the filter lets the calls that change them run at native speed. */
export const KNOWN_NUMBERS = 64;

/** Whose numbers there are. */
export type KnownProcesses = {
  readonly empty: boolean;
  seen(tid: number): ClientThread | undefined;
  all(): Iterable<ClientProcess>;
};

const isFirst = ({ tid, process }: ClientThread): boolean => tid === process.pid;

export class KnownNumbers {
  readonly #processes: KnownProcesses;
  #enabled = true;

  constructor(processes: KnownProcesses) {
    this.#processes = processes;
  }

  /** What a number of a thread stands for; undefined if that has to be asked. */
  at({ numbers }: ClientThread, number: number): OpenEntry | undefined {
    if (!this.#enabled) return undefined;
    const entry = numbers[number];
    return entry?.released === false ? entry : undefined;
  }

  /** The kernel has just said what a number of the thread that calls stands for. */
  learn(thread: ClientThread, number: number, entry: OpenEntry): void {
    if (number < KNOWN_NUMBERS && thread.process.remembers && isFirst(thread)) {
      thread.numbers[number] = entry;
    }
  }

  /** Thread `tid` is about to change what the numbers [first, last] stand for. */
  forget(tid: number, first: number, last: number): void {
    if (this.#processes.empty) return;
    const thread = this.#processes.seen(tid);
    if (thread !== undefined && isFirst(thread)) {
      const end = Math.min(last + 1, thread.numbers.length);
      for (let number = first; number < end; number++) thread.numbers[number] = undefined;
      return;
    }
    for (const process of this.#processes.all()) {
      if (process.remembers && isThreadOf(process.pid, tid)) process.forgetAll();
    }
  }

  /** From now on tables may change unseen. */
  giveUp(): void {
    this.#enabled = false;
  }
}
