/**
 * Starting processes without libc's fork or libuv, and waiting for their end.
 *
 * A child begins in our memory, on a stack of its own, and runs a list of system calls (machine-code.ts) up to its exec;
 * meanwhile this thread goes on, so that it can answer calls of the child that a filter holds. What the list needs must
 * stay where it is: an Arena does. The child begins with our table of descriptors, too, until it takes a copy.
 *
 * The invariant: between clone and exec no code of ours runs there but the list. All signals are blocked for the child
 * from its first instruction on; the list restores what it wants. libuv knows nothing of these children, and so does not
 * wait for them.
 */
import { allocate, type Block } from './arena.ts';
import { clone, sys, sys3, sys6 } from './libc.ts';
import { CALL_LIST, machineCode } from './machine-code.ts';
import { CLONE_FILES, CLONE_VM, NR } from './numbers.ts';

const SIGCHLD = 17;
const STACK_SIZE = 1 << 14;
const CALL_SIZE = 64;
const ANSWER = 48;
const MASK = 56;
const PROT_READ_EXECUTE = 5;
const PAGE = 4096;

/** What a call holds until the kernel has answered: no call answers this. */
const PENDING = -(1n << 63n);

/** One system call of a list. */
export type SystemCall = {
  readonly nr: number;
  readonly args: readonly number[];
  /** errnos after which the list goes on */
  readonly mayFail?: readonly number[];
  /** errnos after which the list goes on, without the call that follows */
  readonly skipsNext?: readonly number[];
};

export function systemCall(
  nr: number,
  args: readonly number[],
  mayFail: readonly number[] = [],
): SystemCall {
  return { nr, args, mayFail };
}

/** The end of every list. */
export const exitCall = (status: number): SystemCall => systemCall(NR.exit, [status]);

const allSignals = allocate(8);
const previousSignals = allocate(8);
allSignals.view.setBigUint64(0, ~0n, true);
const SIG_SETMASK = 2;
const SIGNAL_SET = 8;

let code: number | undefined;

function callListCode(): number {
  if (code !== undefined) return code;
  const block = allocate(PAGE);
  block.bytes.set(machineCode(CALL_LIST));
  sys(NR.mprotect, block.address, PAGE, PROT_READ_EXECUTE);
  code = block.address;
  return code;
}

function maskOf({ mayFail = [], skipsNext = [] }: SystemCall): bigint {
  let mask = 0n;
  for (const errno of mayFail) mask |= 1n << BigInt(errno);
  for (const errno of skipsNext) mask |= 1n << BigInt(32 + errno);
  return mask;
}

function callList(calls: readonly SystemCall[]): Block {
  const list = allocate(calls.length * CALL_SIZE);
  calls.forEach((call, i) => {
    const at = i * CALL_SIZE;
    [call.nr, ...call.args].forEach((word, n) => {
      list.view.setBigInt64(at + 8 * n, BigInt(word), true);
    });
    list.view.setBigInt64(at + ANSWER, PENDING, true);
    list.view.setBigUint64(at + MASK, maskOf(call), true);
  });
  return list;
}

/** A process that runs, or ran, a list of calls. */
export class Child {
  readonly pid: number;
  readonly #calls: readonly SystemCall[];
  readonly #list: Block;

  constructor(pid: number, calls: readonly SystemCall[], list: Block) {
    this.pid = pid;
    this.#calls = calls;
    this.#list = list;
  }

  /** What the kernel answered call `index`: value or negative errno; undefined if it has not, as of an exec that succeeded. */
  answer(index: number): number | undefined {
    const answer = this.#list.view.getBigInt64(index * CALL_SIZE + ANSWER, true);
    return answer === PENDING ? undefined : Number(answer);
  }

  /**
   * Waits, and this thread with it, until call `index` is answered: only for what no filter can hold up.
   * @returns the answer; undefined if the process has ended before it
   */
  wait(index: number): number | undefined {
    for (;;) {
      const answer = this.answer(index);
      if (answer !== undefined || hasEnded(this.pid)) return this.answer(index);
      sys(NR.sched_yield);
    }
  }

  /** Where the list has come to: a call without an answer, or, with its errno, the one that ended the list. */
  get position(): { readonly index: number; readonly errno?: number } {
    let index = 0;
    for (;;) {
      const { mayFail = [], skipsNext = [] } = this.#calls[index] ?? {};
      const answer = this.answer(index);
      if (answer === undefined) return { index };
      if (answer >= 0 || mayFail.includes(-answer)) index++;
      else if (skipsNext.includes(-answer)) index += 2;
      else return { index, errno: -answer };
    }
  }
}

/**
 * Starts a process.
 * @param calls what it does; the last one an exit
 * @returns the negative errno if there can be no other process
 */
export function startProcess(calls: readonly SystemCall[]): Child | number {
  const list = callList(calls);
  const stack = allocate(STACK_SIZE);
  const flags = CLONE_VM | CLONE_FILES | SIGCHLD;
  const start = callListCode();
  sys6(
    NR.rt_sigprocmask,
    SIG_SETMASK,
    allSignals.address,
    previousSignals.address,
    SIGNAL_SET,
    0,
    0,
  );
  const pid = clone(start, stack.address + STACK_SIZE, flags, list.address);
  sys6(NR.rt_sigprocmask, SIG_SETMASK, previousSignals.address, 0, SIGNAL_SET, 0, 0);
  return pid < 0 ? pid : new Child(pid, calls, list);
}

const P_ALL = 0;
const P_PID = 1;
const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const CLD_EXITED = 1;
const DEATH_BY_SIGNAL = 128;
const information = allocate(128);

function hasEnded(pid: number): boolean {
  information.view.setInt32(16, 0, true);
  const flags = WEXITED | WNOHANG | WNOWAIT;
  return (
    sys(NR.waitid, P_PID, pid, information.address, flags, 0) < 0 ||
    information.view.getInt32(16, true) === pid
  );
}

/** A child that has ended; the status as shells give it, 128+N for death by signal N. */
export type Ended = { readonly pid: number; readonly status: number };

/** Takes the next child that has ended, also one that was started by another and outlived it; undefined if there is none. */
export function reap(): Ended | undefined {
  const { view, address } = information;
  view.setInt32(16, 0, true);
  if (sys6(NR.waitid, P_ALL, 0, address, WEXITED | WNOHANG, 0, 0) < 0) return undefined;
  const pid = view.getInt32(16, true);
  if (pid === 0) return undefined;
  const status = view.getInt32(24, true);
  return { pid, status: view.getInt32(8, true) === CLD_EXITED ? status : DEATH_BY_SIGNAL + status };
}

const SIGKILL = 9;

/** Kills a child and waits until it has gone. */
export function endProcess(pid: number): void {
  sys3(NR.kill, pid, SIGKILL, 0);
  sys6(NR.waitid, P_PID, pid, information.address, WEXITED, 0, 0);
}

const PR_SET_CHILD_SUBREAPER = 36;

/** Whether processes whose parents have ended become children of this process. */
export function adoptOrphans(on: boolean): void {
  sys3(NR.prctl, PR_SET_CHILD_SUBREAPER, on ? 1 : 0, 0);
}
