/** What the handling of a call works with: the parts of one run. */
import type { Kernel } from '../kernel/kernel.ts';
import type { HostLinks } from './names/host-links.ts';
import type { Mirror } from './names/mirror.ts';
import type { Listener } from '../os/seccomp.ts';
import type { Call } from './call.ts';
import type { Eventfds } from './fds/eventfds.ts';
import type { FileTable, OpenEntry } from './fds/files.ts';
import type { FdCache } from './fds/fd-cache.ts';
import type { SharedMemories } from './memory/shared.ts';
import type { PendingCalls } from './pending.ts';
import type { ClientThread, ProcessTable } from './process-table.ts';
import type { Turn } from './turn.ts';

export type Context = {
  readonly listener: Listener;
  readonly pending: PendingCalls;
  readonly files: FileTable;
  readonly eventfds: Eventfds;
  readonly processes: ProcessTable;
  readonly fdCache: FdCache;
  readonly shared: SharedMemories;
  readonly names: Kernel;
  /** symbolic links of the host */
  readonly links: HostLinks;
  /** directories and files of the machine, as they stand in the host's file system */
  readonly mirror: Mirror;
  /** the call that is being handled, once it is known to be about something of ours */
  readonly current: Current;
  /** clients count as root on the machine, whoever they are on the host */
  readonly asRoot: boolean;
};

/** What is known about the call that is being handled. */
export type Current = {
  /** somebody wants calls described */
  readonly observed: boolean;
  turn: Turn;
  call: Call | undefined;
  /** arguments that are no struct, to be read by people */
  arguments: readonly string[];
  /** name of the file that the call put into the client's table */
  opened: string | undefined;
};

/** The kernel runs the call itself. */
export const CONTINUE = -1001;
/**
 * Handles the call that the listener has received last.
 * @returns the value of the call, {@link CONTINUE}, or PENDING (base/answer-later.ts)
 * @throws Errno for a refusal
 */
export type SyscallHandler = (context: Context) => number;

/**
 * Our file behind a number of the thread that calls.
 * @returns undefined for a file of the host, a negative errno if there is none or the thread has ended
 */
export function fileOf(
  { files, fdCache: numbers }: Context,
  thread: ClientThread,
  number: number,
): OpenEntry | undefined | number {
  const known = numbers.at(thread, number);
  if (known !== undefined) return known;
  const settled = numbers.settled(thread, number);
  const entry = files.find(thread.files, number);
  if (settled && typeof entry === 'object') numbers.learn(thread, number, entry);
  return entry;
}
