/** The calling thread during one call, as the engine sees it (base/task.ts), over a real thread. */
import type { Start } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import type {
  Capability,
  FileMemory,
  OpenFile,
  ResourceLimits,
  Signal,
  Task,
} from '../base/task.ts';
import type { CallRecord } from '../base/trace.ts';
import { openFlags } from '../os/files.ts';
import { O_PATH, O_RDWR } from '../os/numbers.ts';
import { fileOf, type Context } from './context.ts';
import { isFull, putFile } from './fds/limit.ts';
import type { ClientSpace } from './memory/process.ts';
import { forgetReadAhead } from './memory/read-ahead.ts';
import { threadStatus, type ClientThread, type ThreadStatus } from './process-table.ts';

// include/uapi/linux/capability.h
const CAPABILITY_BIT: Record<Capability, bigint> = {
  CAP_IPC_LOCK: 14n,
  CAP_SYS_RAWIO: 17n,
  CAP_SYS_ADMIN: 21n,
  CAP_SYS_RESOURCE: 24n,
};

const UNLIMITED: ResourceLimits = { memlock: Infinity };

const NOBODY: ThreadStatus = {
  pid: 0,
  parent: 0,
  uid: 65534,
  realUid: 65534,
  gid: 65534,
  groups: [],
  capabilities: 0n,
};

export type HandOptions = {
  readonly cloexec: boolean;
  readonly flags: number;
};

export class Call implements Task {
  readonly thread: ClientThread;
  readonly record?: CallRecord;
  readonly #context: Context;
  #status: ThreadStatus | undefined;
  #memory: ClientSpace | undefined;

  constructor(context: Context, thread: ClientThread) {
    this.#context = context;
    this.thread = thread;
    if (context.current.observed) this.record = {};
  }

  get pid(): number {
    return this.thread.process.pid;
  }

  get tid(): number {
    return this.thread.tid;
  }

  get uid(): number {
    return this.#context.asRoot ? 0 : this.status.realUid;
  }

  get memory(): ClientSpace {
    if (this.#memory === undefined) {
      const space = this.#context.processes.spaceOf(this.thread);
      space.caller = this.thread.tid;
      space.turn = this.#context.current.turn;
      this.#memory = space;
    }
    return this.#memory;
  }

  /** The call is over: nothing may be reached by way of its thread any more. */
  end(): void {
    forgetReadAhead();
    this.#context.names.endCall(this.tid);
    if (this.#memory === undefined) return;
    this.#memory.caller = 0;
    this.#memory.turn = undefined;
  }

  get limits(): ResourceLimits {
    return this.#context.asRoot ? UNLIMITED : this.thread.process.limits;
  }

  get status(): ThreadStatus {
    this.#status ??= threadStatus(this.thread.tid) ?? NOBODY;
    return this.#status;
  }

  capable(capability: Capability): boolean {
    const held = this.#context.asRoot
      ? this.thread.process.rootCapabilities
      : this.status.capabilities;
    return (held & (1n << CAPABILITY_BIT[capability])) !== 0n;
  }

  file(fd: number): OpenFile | undefined {
    const found = fileOf(this.#context, this.thread, fd);
    if (typeof found === 'number') throw new Errno('EBADF', `fd ${fd} is not open`);
    if (found === undefined && ((openFlags(this.tid, fd) ?? 0) & O_PATH) !== 0) {
      throw new Errno('EBADF', `fd ${fd} was opened with O_PATH`);
    }
    return found?.file;
  }

  fileMemory(fd: number): FileMemory {
    return this.#context.shared.file(this.thread.files, fd, this.status.uid);
  }

  eventfd(fd: number): Signal {
    return this.#context.eventfds.take(this.tid, this.pid, fd);
  }

  install(file: OpenFile, options: { readonly cloexec: boolean }): number {
    return this.hand(file, undefined, { ...options, flags: file.flags ?? O_RDWR });
  }

  answerLater(why: string, start: Start): number {
    return this.#context.pending.begin(why, start);
  }

  get tableIsFull(): boolean {
    return isFull(this.pid, this.#context.files.replaceable(this.thread.table));
  }

  /**
   * Puts an open file into the client's table.
   * @param path what it was opened by
   * @param options.flags access mode and status flags that it counts as opened with
   */
  hand(file: OpenFile, path: string | undefined, { cloexec, flags }: HandOptions): number {
    const { files, listener, current } = this.#context;
    current.opened = path ?? file.name;
    return files.hand(
      { file, path, flags },
      (fd, at) => putFile(listener, this.pid, fd, { cloexec, at }),
      this.thread.table,
    );
  }
}

/**
 * Begins the handling of a call about something of ours.
 * @param thread the caller, if it is known already
 * @param text arguments that are no struct, to be read by people
 * @throws Errno if the caller has ended; it cannot be told, so which one does not matter
 */
export function beginCall(
  context: Context,
  thread: ClientThread | undefined,
  text: () => readonly string[],
): Call {
  const caller = thread ?? context.processes.thread(context.listener.tid);
  if (caller === undefined) throw new Errno('ESRCH', 'the calling thread has ended');
  const call = new Call(context, caller);
  context.names.beginCall(caller.tid);
  context.current.call = call;
  if (context.current.observed) context.current.arguments = text();
  return call;
}
