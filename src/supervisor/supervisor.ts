/**
 * Runs an unmodified program on a machine: filter, loop, tables, and what is left behind at the end. One run at a time in
 * one process.
 *
 * A run is over when no process is left that was started by it: programs that the client left in the background are
 * waited for, as strace -f does. Its exit status is that of the main program.
 */
import type { Kernel } from '../kernel/kernel.ts';
import { closeFile } from '../os/files.ts';
import { signalProcess } from '../os/process.ts';
import { Listener } from '../os/seccomp.ts';
import { UnsupportedError } from '../os/unsupported.ts';
import { Children } from './children.ts';
import type { Context, Current } from './context.ts';
import { Eventfds } from './fds/eventfds.ts';
import { FileTable } from './fds/files.ts';
import { buildFilter } from './filter.ts';
import { clientFileLimit } from './fds/limit.ts';
import { FdCache } from './fds/fd-cache.ts';
import { LaunchError, type Launcher } from './launch.ts';
import { NotifyLoop } from './notify.ts';
import type { Observer } from './trace/observer.ts';
import { PendingCalls } from './pending.ts';
import { ProcessTable } from './process-table.ts';
import { killRun, passSignals } from './signals.ts';
import { SharedMemories } from './memory/shared.ts';
import { HostLinks } from './names/host-links.ts';
import { Mirror } from './names/mirror.ts';
import { lookAtMounts } from './syscalls/held-back.ts';
import { Turn } from './turn.ts';

export type RunOptions = {
  /** program and arguments */
  readonly argv: readonly string[];
  readonly kernel: Kernel;
  readonly observer?: Observer;
  readonly asRoot?: boolean;
};

export type RunResult = {
  /** the client's exit status; 128+N for death by signal N */
  readonly status: number;
  /** what should be gone and is not, in plain words; empty if all is well */
  readonly leaks: readonly string[];
};

export { LaunchError, UnsupportedError };

/** Streams start this far below the limit of open files, and below what select(2) can name. */
const STREAM_ROOM = 64;
const SELECT_LIMIT = 1024;
// Files that are still open when the last process has gone are in flight: freed by the kernel a moment later.
const LAST_RELEASES = 1000; // milliseconds
const SIGKILL = 9;

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** The engine broke its contract; the client was killed. */
export class EngineError extends Error {
  override readonly name = 'EngineError';
}

export class Supervisor {
  readonly #options: RunOptions;
  readonly #files: FileTable;
  readonly #filter: Uint8Array;
  readonly #trees: Mirror;
  readonly #fileLimit: number;
  #loop: NotifyLoop | undefined;
  #processes: ProcessTable | undefined;
  readonly #launcher: Launcher;
  readonly #children = new Children((status, failure) => {
    this.#status = status;
    if (failure !== undefined) this.#failed(failure);
    this.#checkOver();
  });
  #status: number | undefined;
  #closeListener: () => void = () => undefined;
  #hungUp = false;
  #broken: EngineError | undefined;
  #finished: () => void = () => undefined;
  #failed: (error: Error) => void = () => undefined;

  private constructor(options: RunOptions, launcher: Launcher) {
    this.#options = options;
    this.#launcher = launcher;
    this.#fileLimit = clientFileLimit();
    const floor = Math.max(0, Math.min(this.#fileLimit, SELECT_LIMIT) - STREAM_ROOM);
    this.#files = new FileTable(floor, ({ link }) => this.#options.observer?.released(link));
    this.#filter = buildFilter(floor);
    this.#trees = new Mirror(options.kernel);
  }

  /**
   * Runs a program to its end.
   * @param launcher used up by this
   * @throws UnsupportedError, LaunchError where the computer cannot do this
   */
  static async run(options: RunOptions, launcher: Launcher): Promise<RunResult> {
    if (process.platform !== 'linux' || process.arch !== 'x64') {
      throw new UnsupportedError(
        `uiommu run needs Linux on x86-64; this is ${process.platform} on ${process.arch}`,
      );
    }
    return new Supervisor(options, launcher).#run();
  }

  async #run(): Promise<RunResult> {
    const over = new Promise<void>((resolve, reject) => {
      this.#finished = resolve;
      this.#failed = reject;
    });
    over.catch(() => undefined);
    const restore = passSignals({
      main: () => this.#children.program,
      guard: () => this.#children.guard,
      end: () => {
        this.#endByForce();
      },
    });
    try {
      const client = { argv: this.#options.argv, filter: this.#filter, files: this.#fileLimit };
      this.#serve(this.#children.start(this.#launcher, client).listener);
      await over;
      const leaks = await this.#settle();
      // The last releases come after the last program: too late to fail the wait for its end.
      if (this.#broken !== undefined) throw this.#broken;
      return { status: this.#status ?? 0, leaks };
    } finally {
      restore();
      this.#trees.remove();
      this.#loop?.stop();
      this.#closeListener();
      this.#children.close(this.#hungUp);
    }
  }

  #serve(fd: number): void {
    this.#closeListener = () => {
      closeFile(fd);
    };
    const { kernel, observer, asRoot = false } = this.#options;
    const files = this.#files;
    const shared = new SharedMemories(kernel.memory, (device, inode) => files.has(device, inode));
    const listener = new Listener(fd, files.events.fd);
    // Before the client's first call is answered, so that it never runs without a guard.
    this.#children.setGuard({
      listener: fd,
      openCalls: listener.openCalls,
      cleanUp: this.#trees.removal,
    });
    const processes = new ProcessTable(files.events, {
      pins: kernel.memory,
      shared,
      callerWaits: () => listener.valid,
    });
    this.#processes = processes;
    const current: Current = {
      observed: observer !== undefined,
      turn: new Turn(0n),
      call: undefined,
      arguments: [],
      opened: undefined,
    };
    const context: Context = {
      listener,
      pending: new PendingCalls(listener),
      files,
      eventfds: new Eventfds(files.events),
      processes,
      fdCache: new FdCache(processes),
      shared,
      names: kernel,
      links: new HostLinks(() => current.turn),
      mirror: this.#trees,
      current,
      asRoot,
    };
    lookAtMounts(context);
    this.#loop = new NotifyLoop(context, observer, {
      hangup: () => {
        this.#hungUp = true;
        this.#checkOver();
      },
      broken: (error, what) => {
        this.#break(error, what);
      },
    });
    this.#loop.start();
  }

  // Asked twice to end: nothing is waited for any more.
  #endByForce(): void {
    killRun(this.#children.guard);
    this.#trees.remove();
    process.removeAllListeners('SIGTERM');
    process.kill(process.pid, 'SIGTERM');
  }

  // The last process of the run and the end of the main program are seen in either order.
  #checkOver(): void {
    if (this.#hungUp && this.#status !== undefined) this.#finished();
  }

  // Calls are left unanswered: nothing of the client may go on without its machine.
  #break(error: unknown, what: string): void {
    this.#loop?.abandon();
    for (const { pidfd } of this.#processes?.all() ?? []) signalProcess(pidfd, SIGKILL);
    killRun(this.#children.guard);
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#broken ??= new EngineError(
      `${what} broke uiommu (a bug; the program was killed): ${text}`,
    );
    this.#failed(this.#broken);
  }

  /** Waits for the last releases and tells what does not come. */
  async #settle(): Promise<string[]> {
    const deadline = Date.now() + LAST_RELEASES;
    this.#loop?.collect();
    while ((this.#files.any || this.#processes?.empty === false) && Date.now() < deadline) {
      await pause(5);
      this.#loop?.collect();
    }
    // What a file still holds is not left behind besides.
    const held = this.#files.any ? [] : this.#options.kernel.leaks();
    return [
      ...this.#files.open.map(({ link }) => `${link} is still open somewhere outside of the run`),
      ...Array.from(this.#processes?.all() ?? [], ({ pid }) => `process ${pid} has not ended`),
      ...held,
    ];
  }
}
