/** Running programs under `uiommu run` from tests. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'node:test';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const bin = join(root, 'bin', 'uiommu.js');

/** Overflow user: nobody, in every distribution. */
export const NOBODY = 65534;
const PATIENCE = 60_000; // milliseconds; a hang must end the test, not the suite

export type Outcome = {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
};

export type RunOptions = {
  /** options of `uiommu run` */
  readonly options?: readonly string[];
  readonly input?: string;
  /** run uiommu and its client as this user (only root may) */
  readonly uid?: number;
  readonly cwd?: string;
  /** RLIMIT_NOFILE, soft and hard, of uiommu and its client */
  readonly fileLimit?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** told what the program printed so far, whenever that is more */
  readonly onOutput?: (text: string, uiommu: ChildProcess) => void;
};

/** Runs `uiommu run -- argv` to its end. */
export function uiommuRun(argv: readonly string[], run: RunOptions = {}): Promise<Outcome> {
  const { options = [], input = '', uid, cwd = root, env = {}, fileLimit, onOutput } = run;
  const limit = fileLimit === undefined ? '' : `ulimit -n ${fileLimit}; `;
  const command = [process.execPath, bin, 'run', ...options, '--', ...argv];
  const child = spawn('sh', ['-c', `${limit}exec "$@"`, 'sh', ...command], {
    cwd,
    env: { ...process.env, ...env },
    stdio: 'pipe',
    timeout: PATIENCE,
    killSignal: 'SIGKILL',
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stdout.on('data', () => onOutput?.(output.stdout, child));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  child.stdin.on('error', () => undefined).end(input);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => {
      resolve({ status, signal, ...output });
    });
  });
}

/** True if a program of that name can be started. */
export function hasProgram(name: string): boolean {
  return spawnSync('sh', ['-c', 'command -v "$1"', 'sh', name]).status === 0;
}

/** A folder of its own for a test, removed after it. */
export function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-test-'));
  t.after(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/**
 * Compiles a C program of test/programs; undefined, with the test marked as skipped, where there is no compiler.
 * @param name without ".c"
 */
export function compiled(
  t: TestContext,
  name: string,
  flags: readonly string[] = [],
): string | undefined {
  if (!hasProgram('gcc')) {
    t.skip('there is no gcc');
    return undefined;
  }
  const program = join(scratch(t), name);
  const source = join(root, 'test', 'programs', `${name}.c`);
  const { status, stderr } = spawnSync(
    'gcc',
    ['-O1', '-Wall', '-Werror', '-pthread', ...flags, '-o', program, source],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`gcc failed on ${source}: ${stderr}`);
  return program;
}

export type StubOutcome = { status: number | null; lines: string[]; stderr: string };

/** Runs a program under the supervisor alone, on a machine with nothing but the stub device (stub-device.ts). */
export function stubRun(argv: readonly string[], uid?: number): Promise<StubOutcome> {
  const run = join(dirname(fileURLToPath(import.meta.url)), 'stub-run.js');
  const child = spawn(process.execPath, [run, ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
    timeout: PATIENCE,
    killSignal: 'SIGKILL',
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      const lines = output.stdout.split('\n').filter((line) => line !== '');
      resolve({ status, lines, stderr: output.stderr });
    });
  });
}
