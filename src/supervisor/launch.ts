/**
 * Starts a client under the filter: a worker thread installs it and spawns sh, sh starts the program. The shell is there so
 * that the program is no child of this process: libuv waits for its children and would swallow the stops of one that is
 * traced. It catches the terminal's signals (the program gets them with their defaults), restores the limit of open files
 * that Node raised, and turns death by signal N into 128+N, as shells do.
 */
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';

export type LaunchOrder = {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
};

export type FromLauncher =
  | { readonly kind: 'ready'; readonly listener: number }
  | { readonly kind: 'started' }
  | { readonly kind: 'failed'; readonly message: string }
  | {
      readonly kind: 'ended';
      readonly code: number | null;
      readonly signal: NodeJS.Signals | null;
    };

/** What to start, and how. */
export type Client = {
  readonly argv: readonly string[];
  /** assembled BPF */
  readonly filter: Uint8Array;
  /** limit of open files */
  readonly files: number;
};

export type LaunchEvents = {
  /** The filter is in force: calls to the listener must be answered from now on. */
  serve(listener: number): void;
  /** The main program has ended, with this status. */
  ended(status: number): void;
};

// $1 is the limit, the rest the command. The subshell keeps sh from running a builtin of the same name.
const SCRIPT =
  'trap : INT QUIT TERM HUP; ulimit -S -n "$1" 2>/dev/null; shift; (exec "$@"); exit $?';
const CANNOT_START = 126;

/** The client could not be started; the message says why. */
export class LaunchError extends Error {
  override readonly name = 'LaunchError';
}

/** A thread that waits for something to start. Making one takes tens of milliseconds: other things can be loaded meanwhile. */
export class Launcher {
  readonly #worker = new Worker(new URL('./launch-worker.js', import.meta.url));

  /** Installs the filter and starts the program; resolves once it runs. */
  start(client: Client, events: LaunchEvents): Promise<void> {
    const worker = this.#worker;
    const order: LaunchOrder = {
      file: '/bin/sh',
      args: ['-c', SCRIPT, 'sh', String(client.files), ...client.argv],
      env: process.env,
    };
    return new Promise((resolve, reject) => {
      worker.on('error', reject);
      worker.on('message', (message: FromLauncher) => {
        switch (message.kind) {
          case 'ready':
            events.serve(message.listener);
            worker.postMessage({ ...order, env: { ...order.env } });
            return;
          case 'started':
            resolve();
            return;
          case 'failed':
            reject(new LaunchError(message.message));
            return;
          case 'ended':
            events.ended(exitStatus(message));
        }
      });
      worker.postMessage(client.filter);
    });
  }

  /** Ends the thread: the filter then lives only in the client's processes. */
  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

export function startLauncher(): Launcher {
  return new Launcher();
}

function exitStatus(end: { code: number | null; signal: NodeJS.Signals | null }): number {
  if (end.code !== null) return end.code;
  return end.signal === null ? CANNOT_START : 128 + constants.signals[end.signal];
}
