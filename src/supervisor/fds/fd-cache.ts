/**
 * Known numbers: which of our files a client's file numbers stand for, remembered. Asking the kernel costs two microseconds,
 * more than a tenth of a call; a program that makes many calls makes them on few numbers.
 *
 * Invariant: a remembered number stands for that file now. It holds because
 * - whatever can make a low number mean something else is looked at (filter.ts) and forgets before it is carried out: close,
 *   dup2, dup3, close_range, exec. When the kernel carries it out is not told; but once its thread calls again it is done, and
 *   until then nothing is learnt of the numbers in question;
 * - only what the first thread of a process uses is remembered: while its process lives, its number means no other thread;
 * - nobody else changes its table: once a process is started that shares one, or io_uring is set up, whose operations
 *   no filter sees, nothing is remembered any more in this run.
 * 32-bit calls are not looked at: a program that mixes them in could go on with a file that it has closed, as long as it
 * holds another number of it.
 */
import { isThread, isThreadOf } from '../../os/process.ts';
import type { OpenEntry } from './files.ts';
import type { ClientProcess, ClientThread } from '../process-table.ts';

/** Numbers from here on are asked for each time: the filter lets the calls that change them run at native speed. */
export const KNOWN_NUMBERS = 64;

/** Whose numbers there are. */
export type KnownProcesses = {
  all(): Iterable<ClientProcess>;
};

/** Numbers, both inclusive. */
type Range = { readonly first: number; readonly last: number };

// Threads that ended with such a call; above this many are looked for.
const ENDED = 256;

export class FdCache {
  readonly #processes: KnownProcesses;
  /** by thread, what its latest call is about to change, or has changed */
  readonly #changing = new Map<number, Range>();
  #enabled = true;

  constructor(processes: KnownProcesses) {
    this.#processes = processes;
  }

  /** Thread `tid` makes a call: its earlier ones are over. */
  called(tid: number): void {
    if (this.#changing.size > 0) this.#changing.delete(tid);
  }

  /** What a number of a thread stands for; undefined if that has to be asked. */
  at({ numbers }: ClientThread, number: number): OpenEntry | undefined {
    if (!this.#enabled) return undefined;
    const entry = numbers[number];
    return entry?.released === false ? entry : undefined;
  }

  /**
   * What the kernel will say of a number of the thread that calls stays true until {@link forget}. Must be asked before the
   * kernel is: a thread that is alive now may make its change, and end, before anybody looks again.
   */
  settled({ process, tid }: ClientThread, number: number): boolean {
    if (number >= KNOWN_NUMBERS || tid !== process.pid || process.pidfd < 0) return false;
    for (const [other, { first, last }] of this.#changing) {
      if (first <= number && number <= last && isThreadOf(process.pid, other)) return false;
    }
    return true;
  }

  learn({ numbers }: ClientThread, number: number, entry: OpenEntry): void {
    numbers[number] = entry;
  }

  /** Thread `tid` is about to change what the numbers [first, last] stand for. */
  forget(tid: number, first: number, last: number): void {
    if (this.#changing.size > ENDED) this.#sweep();
    this.#changing.set(tid, { first, last });
    for (const process of this.#processes.all()) {
      if (tid === process.pid || isThreadOf(process.pid, tid)) process.forgetNumbers(first, last);
    }
  }

  /** From now on tables may change unseen. */
  giveUp(): void {
    this.#enabled = false;
  }

  #sweep(): void {
    for (const tid of [...this.#changing.keys()]) if (!isThread(tid)) this.#changing.delete(tid);
  }
}
