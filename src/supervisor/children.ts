/**
 * The processes below this one: the main program, the guard, and orphans of the run, which become children of ours (a
 * subreaper), so that a request to end reaches them. All are waited for here, and nowhere else: while a run lasts, libuv
 * must have no children of its own.
 */
import { adoptOrphans, endProcess, reap } from '../os/child.ts';
import { closeFile } from '../os/files.ts';
import { startGuard, type Guarded } from '../os/guard.ts';
import { watchReadable } from '../os/libc.ts';
import { openProcess } from '../os/process.ts';
import type { Client, Launched, LaunchError, Launcher } from './launch.ts';

/** Told of the end of the main program: its status, and why it did not even start, if so. */
export type ProgramEnd = (status: number, failure: LaunchError | undefined) => void;

export class Children {
  readonly #ended: ProgramEnd;
  readonly #onSignal = (): void => {
    this.#reap();
  };
  #program: Launched | undefined;
  #stopWatching: () => void = () => undefined;
  #guard: number | undefined;

  constructor(ended: ProgramEnd) {
    this.#ended = ended;
    adoptOrphans(true);
    process.on('SIGCHLD', this.#onSignal);
  }

  /** pid of the main program while it lives */
  get program(): number | undefined {
    return this.#program?.pid;
  }

  /** pid of the guard */
  get guard(): number | undefined {
    return this.#guard;
  }

  /** @throws UnsupportedError, LaunchError */
  start(launcher: Launcher, client: Client): Launched {
    const program = launcher.start(client);
    this.#program = program;
    // A handler of a signal does not keep Node's loop alive; this does.
    const pidfd = openProcess(program.pid);
    const watch = watchReadable(pidfd, this.#onSignal);
    this.#stopWatching = () => {
      watch.close();
      closeFile(pidfd);
    };
    return program;
  }

  /** Sets the guard. A computer that forbids one has the signal at our death alone (launch.ts). */
  setGuard(guarded: Omit<Guarded, 'supervisor'>): void {
    const supervisor = openProcess(process.pid);
    const pid = startGuard({ ...guarded, supervisor });
    closeFile(supervisor);
    if (pid > 0) this.#guard = pid;
  }

  /** @param over no process of the run is left; otherwise the guard stays with those that are */
  close(over: boolean): void {
    this.#stopWatching();
    this.#stopWatching = () => undefined;
    if (over && this.#guard !== undefined) endProcess(this.#guard);
    process.off('SIGCHLD', this.#onSignal);
    adoptOrphans(false);
  }

  #reap(): void {
    for (let ended = reap(); ended !== undefined; ended = reap()) {
      if (ended.pid === this.#guard) this.#guard = undefined;
      if (ended.pid !== this.#program?.pid) continue;
      const { failure } = this.#program;
      this.#program = undefined;
      this.#stopWatching();
      this.#ended(ended.status, failure);
    }
  }
}
