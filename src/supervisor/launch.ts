/**
 * Starts a client under the filter: a worker thread installs it and spawns sh, sh starts the program. The shell is there so
 * that the program is no child of this process: libuv waits for its children and would swallow the stops of one that is
 * traced. It catches the terminal's signals (the program gets them with their defaults), restores the limit of open files
 * that Node raised, and turns death by signal N into 128+N, as shells do.
 */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { Worker } from 'node:worker_threads';

import { fileLimit } from '../os/process.ts';
import { UnsupportedError } from '../os/seccomp.ts';

export type LaunchOrder = {
  readonly program: Uint8Array;
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
};

export type FromLauncher =
  | { readonly kind: 'ready'; readonly listener: number }
  | { readonly kind: 'started'; readonly pid: number }
  | { readonly kind: 'failed'; readonly message: string }
  | {
      readonly kind: 'ended';
      readonly code: number | null;
      readonly signal: NodeJS.Signals | null;
    };

// $1 is the limit, the rest the command. The subshell keeps sh from running a builtin of the same name.
const SCRIPT =
  'trap : INT QUIT TERM HUP; ulimit -S -n "$1" 2>/dev/null; shift; (exec "$@"); exit $?';
const USUAL_LIMIT = 1024;
const CANNOT_START = 126;

/**
 * The limit of open files that the client would have had: Node has raised its own before we could look, the parent's is
 * the best witness.
 */
export function clientFileLimit(): number {
  const parent = fileLimit(process.ppid);
  const own = fileLimit(process.pid);
  try {
    const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    const most = Number(hard?.[1] ?? USUAL_LIMIT);
    return Math.min(
      Number.isFinite(parent) ? parent : USUAL_LIMIT,
      Number.isNaN(most) ? own : most,
    );
  } catch {
    return USUAL_LIMIT;
  }
}

/** A started client. */
export class Launch {
  readonly #worker: Worker;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  /**
   * Installs the filter and, once `serve` answers calls, starts the program.
   * @param serve told the listener's descriptor; must have arranged for calls to be answered when it returns
   * @param ended told the exit status of the main program, once
   */
  static start(
    command: {
      readonly argv: readonly string[];
      readonly filter: Uint8Array;
      readonly files: number;
    },
    serve: (listener: number) => void,
    ended: (status: number) => void,
  ): Promise<Launch> {
    const order: LaunchOrder = {
      program: command.filter,
      file: '/bin/sh',
      args: ['-c', SCRIPT, 'sh', String(command.files), ...command.argv],
      env: process.env,
    };
    const worker = new Worker(new URL('./launch-worker.js', import.meta.url), {
      workerData: order,
    });
    const launch = new Launch(worker);
    return new Promise((resolve, reject) => {
      worker.on('error', reject);
      worker.on('message', (message: FromLauncher) => {
        switch (message.kind) {
          case 'ready':
            serve(message.listener);
            worker.postMessage('start');
            return;
          case 'started':
            resolve(launch);
            return;
          case 'failed':
            reject(new UnsupportedError(message.message));
            return;
          case 'ended':
            ended(exitStatus(message));
        }
      });
    });
  }

  /** Ends the thread: the filter then lives only in the client's processes. */
  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}

function exitStatus(end: { code: number | null; signal: NodeJS.Signals | null }): number {
  if (end.code !== null) return end.code;
  return end.signal === null ? CANNOT_START : 128 + constants.signals[end.signal];
}
