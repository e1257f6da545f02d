/**
 * The thread that starts the client. It puts itself under the filter (nothing else of this process is), so that what it
 * starts is under it too. From then on its own calls are answered by the main thread: it must load nothing more, and the
 * main thread must never wait for it.
 */
import { spawn } from 'node:child_process';
import { parentPort } from 'node:worker_threads';

import { installFilter } from '../os/seccomp.ts';
import { UnsupportedError } from '../os/unsupported.ts';
import type { FromLauncher, LaunchOrder } from './launch.ts';

function post(message: FromLauncher): void {
  parentPort?.postMessage(message);
}

function start(order: LaunchOrder): void {
  const child = spawn(order.file, order.args, { stdio: 'inherit', env: order.env });
  child.on('error', (error) => {
    post({ kind: 'failed', message: `cannot start ${order.file}: ${error.message}` });
  });
  child.on('exit', (code, signal) => {
    post({ kind: 'ended', code, signal });
  });
  if (child.pid !== undefined) post({ kind: 'started' });
}

// First the filter, then, once somebody answers its calls, the program.
parentPort?.once('message', (program: Uint8Array) => {
  try {
    const listener = installFilter(program);
    parentPort?.once('message', start);
    post({ kind: 'ready', listener });
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    post({ kind: 'failed', message: error.message });
  }
});
