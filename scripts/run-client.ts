/**
 * Runs a program under `uiommu run` for the scripts that compare with Linux: output collected, time limited. Mostly as root
 * on the machine, because the real kernel's answers are those that root got.
 */
import { spawn } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const UIOMMU = join(ROOT, 'bin', 'uiommu.js');
// Between asking to end and ending by force.
const GRACE_MS = 2000;

export type Run = {
  /** both streams in the order of writing, or standard output alone */
  readonly output: string;
  /** standard error, where the streams were kept apart */
  readonly errors: string;
  /** undefined if a signal ended it */
  readonly status: number | undefined;
  readonly timedOut: boolean;
  readonly seconds: number;
};

export type RunOptions = {
  readonly limitSeconds: number;
  /** false: the program is who it is on the host */
  readonly asRoot?: boolean;
  /** further options of `uiommu run` */
  readonly options?: readonly string[];
  /** one pipe for both streams, so that lines keep their order */
  readonly merged?: boolean;
  readonly onOutput?: (text: string) => void;
};

/** What ends those that run now: an interrupt of this script ends them all. */
const running = new Set<() => void>();
process.once('exit', () => {
  for (const leave of running) leave();
});
process.once('SIGINT', () => {
  process.exit(130);
});

/** @param command program and arguments */
export async function runClient(command: readonly string[], options: RunOptions): Promise<Run> {
  const begun = performance.now();
  const uiommu = [
    UIOMMU,
    'run',
    '-m',
    'selftest',
    ...(options.asRoot === false ? [] : ['--as-root']),
    ...(options.options ?? []),
    '--',
    ...command,
  ];
  const own = [process.execPath, ...uiommu];
  const [program = '', ...args] =
    options.merged === true ? ['sh', '-c', 'exec "$0" "$@" 2>&1', ...own] : own;
  // A group of its own, so that a client that hangs is ended together with what it started.
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const end = (signal: NodeJS.Signals): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // It has ended in the meantime.
    }
  };
  let timedOut = false;
  const limit = setTimeout(() => {
    timedOut = true;
    end('SIGTERM');
    setTimeout(() => {
      end('SIGKILL');
    }, GRACE_MS).unref();
  }, options.limitSeconds * 1000);
  const leave = (): void => {
    end('SIGTERM');
  };
  running.add(leave);
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => {
    output.push(chunk);
    options.onOutput?.(chunk.toString());
  });
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  clearTimeout(limit);
  running.delete(leave);
  return {
    output: Buffer.concat(output).toString(),
    errors: Buffer.concat(errors).toString(),
    status: status ?? undefined,
    timedOut,
    seconds: (performance.now() - begun) / 1000,
  };
}
