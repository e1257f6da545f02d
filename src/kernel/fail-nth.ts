/**
 * Fault injection by thread, as Linux offers it: the number written to /proc/PID/task/TID/fail-nth makes the Nth place that
 * could fail in the thread's next calls fail, once; reading tells what is left, 0 when it has happened.
 *
 * After proc_fail_nth_write and proc_fail_nth_read of fs/proc/base.c and should_fail_ex of lib/fault-inject.c.
 */
import { Errno } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';
import type { OpenFile, ReadBuffer, Task, WriteBuffer } from '../base/task.ts';
import { atOnce, fixed, writable, type Attribute, type Directory, type Node } from './vfs/tree.ts';

export const FAIL_NTH = '/fail-nth';

const MODE = 0o644;
/** bytes that are looked at (kstrtouint_from_user) */
const LONGEST = 34;
const PATH = /^\/proc\/(\d+)(?:\/task\/(\d+))?\/fail-nth$/;
const SWITCHES = {
  'ignore-gfp-wait': 'Y\n',
  'ignore-gfp-highmem': 'Y\n',
  interval: '1\n',
  probability: '0\n',
  space: '0\n',
  'task-filter': 'N\n',
  times: '1\n',
  verbose: '2\n',
};

/**
 * What /sys/kernel/debug shows of fault injection. Programs look whether it is there and quieten it; every place can fail
 * in any case, so the switches only keep what is written.
 */
export function faultSwitches(): Directory {
  return fixed({
    fail_iommufd: switches(),
    fail_page_alloc: switches(),
    failslab: switches(),
  });
}

function switches(): Directory {
  return fixed(
    Object.fromEntries(Object.entries(SWITCHES).map(([name, value]) => [name, kept(value)])),
  );
}

function kept(initial: string): Attribute {
  let value = initial;
  return writable(
    atOnce((text) => {
      value = text;
    }),
    { show: () => value },
  );
}

export class TaskFaults {
  readonly #faults: Faults;
  /** what is left, by thread */
  readonly #left = new Map<number, number>();
  /** what the call that is under way began with; 0 for nothing */
  #armed = 0;

  constructor(faults: Faults) {
    this.#faults = faults;
  }

  /** The file of a thread; undefined for a path of another shape. */
  node(path: string): Node | undefined {
    const match = PATH.exec(path);
    if (match === null) return undefined;
    const tid = Number(match[2] ?? match[1]);
    return {
      kind: 'node',
      regular: true,
      major: 0,
      minor: 0,
      mode: MODE,
      open: () => new FailNthFile(this, tid),
    };
  }

  get(tid: number): number {
    return this.#left.get(tid) ?? 0;
  }

  set(tid: number, nth: number): void {
    if (nth === 0) this.#left.delete(tid);
    else this.#left.set(tid, nth);
  }

  begin(tid: number): void {
    const nth = this.get(tid);
    if (nth === 0) return;
    this.#armed = nth;
    this.#faults.arm(nth);
  }

  end(tid: number): void {
    if (this.#armed === 0) return;
    // The call may have been the one that wrote another number.
    if (this.get(tid) === this.#armed) this.set(tid, this.#faults.remaining);
    this.#armed = 0;
    this.#faults.arm(0);
  }
}

class FailNthFile implements OpenFile {
  readonly positioned = true;
  readonly name: string;
  readonly #faults: TaskFaults;
  readonly #tid: number;

  constructor(faults: TaskFaults, tid: number) {
    this.#faults = faults;
    this.#tid = tid;
    this.name = `fail-nth of thread ${tid}`;
  }

  read(_task: Task, buffer: ReadBuffer, offset: number): number {
    const text = new TextEncoder().encode(`${this.#faults.get(this.#tid)}\n`);
    const bytes = text.subarray(offset, offset + buffer.length);
    buffer.put(0, bytes);
    return bytes.length;
  }

  write(_task: Task, buffer: WriteBuffer): number {
    const bytes = buffer.take(0, Math.min(buffer.length, LONGEST));
    const text = new TextDecoder().decode(bytes).trim();
    const nth = Number(text);
    if (text === '' || !Number.isInteger(nth) || nth < 0 || nth > 0xffff_ffff) {
      throw new Errno('EINVAL', `"${text}" is not the number of a failure point`);
    }
    this.#faults.set(this.#tid, nth);
    return buffer.length;
  }

  readable(): boolean {
    return true;
  }

  release(): void {
    // What was set stays with the thread.
  }
}
