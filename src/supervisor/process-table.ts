/**
 * The client's threads and processes, as far as they have used our files. A thread is known by number; that the number
 * still means the same thread is checked by way of an open /proc/TID/fd, which never comes to mean another one.
 *
 * An address space belongs to its process until the end or an exec. Exec is looked at when it is tried; whether it took
 * place shows at the next call, when the old address space is asked if it still lives.
 */
import { closeFile, EPOLLIN, identifyPath, openPath, readText, type PollSet } from '../os/files.ts';
import { O_DIRECTORY, O_RDONLY } from '../os/numbers.ts';
import {
  compareAddressSpaces,
  isThreadOf,
  memlockLimit,
  openProcess,
  signalProcess,
} from '../os/process.ts';
import type { ResourceLimits } from '../base/task.ts';
import type { OpenEntry, Table } from './fds/files.ts';
import { kept } from './fds/limit.ts';
import { ClientSpace, type ClientMemory } from './memory/process.ts';

/** Those that Linux 7.3 knows, CAP_CHECKPOINT_RESTORE the last (include/uapi/linux/capability.h). */
export const ALL_CAPABILITIES = (1n << 41n) - 1n;

/** Limits of a process, as they last were once it has ended. */
class ProcessLimits implements ResourceLimits {
  readonly #process: ClientProcess;
  #memlock: number;

  constructor(process: ClientProcess) {
    this.#process = process;
    this.#memlock = memlockLimit(process.pid);
  }

  get memlock(): number {
    if (processAlive(this.#process)) this.#memlock = memlockLimit(this.#process.pid);
    return this.#memlock;
  }
}

export class ClientProcess {
  readonly pid: number;
  /** readable when the process has ended */
  readonly pidfd: number;
  readonly threads = new Set<ClientThread>();
  space: ClientSpace | undefined;
  /** effective capabilities of one that counts as root on the machine; it can drop them (capset) */
  rootCapabilities = ALL_CAPABILITIES;
  /** threads whose exec was let through and may still come; each that calls again, or has ended, has failed, or the space is another */
  readonly execs = new Set<number>();
  #limits: ResourceLimits | undefined;

  constructor(pid: number) {
    this.pid = pid;
    this.pidfd = kept(openProcess(pid));
  }

  /** Asked for by its own calls first: what they were then is known when it has ended. */
  get limits(): ResourceLimits {
    return (this.#limits ??= new ProcessLimits(this));
  }

  /** What its file numbers [first, last] stand for is not known any more. */
  forgetNumbers(first: number, last: number): void {
    for (const { numbers } of this.threads) {
      const end = Math.min(last + 1, numbers.length);
      for (let number = first; number < end; number++) numbers[number] = undefined;
    }
  }
}

export class ClientThread {
  readonly tid: number;
  readonly process: ClientProcess;
  /** open /proc/TID/fd */
  readonly files: number;
  /** where its files are */
  readonly table: Table;
  /** by file number, what it is known to stand for (fds/fd-cache.ts) */
  readonly numbers: (OpenEntry | undefined)[] = [];

  constructor(tid: number, files: number, process: ClientProcess) {
    this.tid = tid;
    this.files = files;
    this.process = process;
    this.table = { owner: process, numbers: files };
  }
}

/** Numbers out of /proc/TID/status. */
export type ThreadStatus = {
  readonly pid: number;
  readonly parent: number;
  /** file-system user and group, which permission checks use */
  readonly uid: number;
  /** who pays for locked pages */
  readonly realUid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** effective capabilities, one bit each */
  readonly capabilities: bigint;
};

/** Reads /proc/TID/status; undefined if there is no such thread any more. */
export function threadStatus(tid: number): ThreadStatus | undefined {
  const text = readText(`/proc/${tid}/status`);
  if (text === undefined) return undefined;
  const field = (name: string): string[] => {
    const at = text.indexOf(`\n${name}:`);
    if (at < 0) return [''];
    return text
      .slice(at + name.length + 2, text.indexOf('\n', at + 1))
      .trim()
      .split(/\s+/);
  };
  return {
    pid: Number(field('Tgid')[0]),
    parent: Number(field('PPid')[0]),
    uid: Number(field('Uid')[3]),
    realUid: Number(field('Uid')[0]),
    gid: Number(field('Gid')[3]),
    groups: field('Groups').filter(Boolean).map(Number),
    capabilities: BigInt(`0x${field('CapEff')[0] ?? '0'}`),
  };
}

const FIRST_SWEEP = 64;

export class ProcessTable {
  readonly #threads = new Map<number, ClientThread>();
  readonly #processes = new Map<number, ClientProcess>();
  readonly #byPidfd = new Map<number, ClientProcess>();
  readonly #events: PollSet;
  readonly #memory: ClientMemory;
  #sweepAbove = FIRST_SWEEP;

  /** @param events gets the descriptors that tell of the end of processes */
  constructor(events: PollSet, memory: ClientMemory) {
    this.#events = events;
    this.#memory = memory;
  }

  all(): Iterable<ClientProcess> {
    return this.#processes.values();
  }

  process(pid: number): ClientProcess | undefined {
    return this.#processes.get(pid);
  }

  /** True while no process has used a file of ours: nothing has to be looked after. */
  get empty(): boolean {
    return this.#processes.size === 0;
  }

  /** The thread of that number as it was last seen: ask its {@link ClientThread.files} before relying on it. */
  seen(tid: number): ClientThread | undefined {
    return this.#threads.get(tid);
  }

  /** The thread that has the number now; undefined if it has ended. */
  thread(tid: number): ClientThread | undefined {
    const known = this.#threads.get(tid);
    if (known !== undefined && alive(known)) return known;
    if (known !== undefined) this.#dropThread(known);
    return this.#adopt(tid);
  }

  /** The process that a thread belongs to, if it is one that we know. */
  processOf(tid: number): ClientProcess | undefined {
    if (this.empty) return undefined;
    const known = this.#threads.get(tid);
    if (known !== undefined && alive(known)) return known.process;
    const status = threadStatus(tid);
    return status === undefined ? undefined : this.#processes.get(status.pid);
  }

  /** The address space in which a thread runs now. */
  spaceOf(thread: ClientThread): ClientSpace {
    const { process } = thread;
    if (process.execs.size > 0) this.#settleExecs(process, thread.tid);
    process.space ??= this.#spaceFor(process);
    process.space.mayExec = process.execs.size > 0;
    return process.space;
  }

  // While one thread execs the others may still call. One that calls again, or has ended, execs no more.
  #settleExecs(process: ClientProcess, tid: number): void {
    const { pid, space, execs } = process;
    if (space !== undefined && !this.#sameSpace(process, tid)) {
      this.#leaveSpace(process);
      execs.clear();
      return;
    }
    execs.delete(tid);
    for (const other of execs) if (!isThreadOf(pid, other)) execs.delete(other);
  }

  /**
   * Forgets the processes among `fds` (descriptors that became readable).
   * @returns how many they were
   */
  processesEnded(fds: readonly number[]): number {
    let ended = 0;
    for (const fd of fds) {
      const process = this.#byPidfd.get(fd);
      if (process === undefined) continue;
      this.#dropProcess(process);
      ended++;
    }
    return ended;
  }

  #adopt(tid: number): ClientThread | undefined {
    const files = kept(openPath(`/proc/${tid}/fd`, O_RDONLY | O_DIRECTORY));
    if (files < 0) return undefined;
    const status = threadStatus(tid);
    if (status === undefined) {
      closeFile(files);
      return undefined;
    }
    let process: ClientProcess;
    try {
      process = this.#process(status);
    } catch (error) {
      closeFile(files);
      throw error;
    }
    const thread = new ClientThread(tid, files, process);
    process.threads.add(thread);
    this.#threads.set(tid, thread);
    if (this.#threads.size > this.#sweepAbove) this.#sweep();
    return thread;
  }

  // Nobody tells us of the end of a thread.
  #sweep(): void {
    for (const thread of [...this.#threads.values()]) if (!alive(thread)) this.#dropThread(thread);
    this.#sweepAbove = Math.max(FIRST_SWEEP, 2 * this.#threads.size);
  }

  #process(status: ThreadStatus): ClientProcess {
    const known = this.#processes.get(status.pid);
    if (known !== undefined && processAlive(known)) return known;
    if (known !== undefined) this.#dropProcess(known);
    const process = new ClientProcess(status.pid);
    this.#processes.set(status.pid, process);
    if (process.pidfd >= 0) {
      this.#byPidfd.set(process.pidfd, process);
      this.#events.add(process.pidfd, EPOLLIN);
    }
    process.space = this.#sharedSpace(process, status.parent);
    const parent = this.#processes.get(status.parent);
    if (parent !== undefined) process.rootCapabilities = parent.rootCapabilities;
    return process;
  }

  // A child of vfork, or of clone with CLONE_VM, runs in the address space of a process we know.
  #sharedSpace(process: ClientProcess, parent: number): ClientSpace | undefined {
    const space = this.#processes.get(parent)?.space;
    if (space === undefined || compareAddressSpaces(process.pid, parent) !== 0) return undefined;
    space.users.add(process.pid);
    return space;
  }

  #spaceFor(process: ClientProcess): ClientSpace {
    const space = new ClientSpace(process.pid, this.#memory);
    space.users.add(process.pid);
    return space;
  }

  #sameSpace(process: ClientProcess, tid: number): boolean {
    const { space } = process;
    if (space?.alive !== true) return false;
    const other = [...space.users].find((pid) => pid !== process.pid);
    // Alive with one user only: the exec has failed.
    return other === undefined || compareAddressSpaces(tid, other) === 0;
  }

  #leaveSpace(process: ClientProcess): void {
    const { space } = process;
    process.space = undefined;
    if (space === undefined) return;
    space.users.delete(process.pid);
    if (space.users.size === 0) space.end();
  }

  #dropThread(thread: ClientThread): void {
    if (this.#threads.get(thread.tid) === thread) this.#threads.delete(thread.tid);
    thread.process.threads.delete(thread);
    closeFile(thread.files);
  }

  #dropProcess(process: ClientProcess): void {
    for (const thread of [...process.threads]) this.#dropThread(thread);
    this.#leaveSpace(process);
    this.#processes.delete(process.pid);
    if (process.pidfd < 0) return;
    this.#byPidfd.delete(process.pidfd);
    this.#events.remove(process.pidfd);
    closeFile(process.pidfd);
  }
}

/** The directory of a thread that has ended has no way back to its status. */
function alive(thread: ClientThread): boolean {
  return identifyPath('../status', thread.files) === 0;
}

function processAlive(process: ClientProcess): boolean {
  return process.pidfd < 0 || signalProcess(process.pidfd, 0) === 0;
}
