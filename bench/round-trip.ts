/**
 * A complete, checked IOAS ioctl under `uiommu run` against a supervisor in C that does the same copies and checks. Both are
 * measured in turns; a client's medians are compared.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { UIOMMU_RUN, type Bench, type Figure, type Skip } from './measure.ts';

const CALLS = 40_000;
const ROUNDS = 5;
const PROMISE = 1.6;

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

function build(folder: string, name: string): string {
  const program = join(folder, name);
  const source = join(root, 'bench', `${name}.c`);
  const { status, stderr } = spawnSync('gcc', ['-O2', '-o', program, source], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return program;
}

/** @returns the client's median in nanoseconds; its second number, the mean, is for people */
function measure(command: readonly string[]): number {
  const [file = '', ...args] = command;
  const { stdout, stderr, status } = spawnSync(file, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}: ${stderr}`);
  return Number(stdout.trim().split(' ')[0]);
}

function roundTrip(): Figure[] | Skip {
  if (spawnSync('gcc', ['--version']).status !== 0) return { skip: 'there is no gcc' };
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-bench-'));
  try {
    const client = build(folder, 'round-trip-client');
    const supervisor = build(folder, 'round-trip-supervisor');
    const names = {
      option: 'round trip of IOMMU_OPTION against a supervisor in C',
      access: 'ACCESS_RW of 30 bytes, two files, against a supervisor in C',
    };
    return Object.entries(names).map(([kind, name]) => {
      const call = [client, String(CALLS), kind];
      const rounds = Array.from({ length: ROUNDS }, () => ({
        c: measure([supervisor, ...call, 'plain']),
        own: measure([...UIOMMU_RUN, '-m', 'selftest', '--', ...call]),
      }));
      // Whatever else the machine does only adds time.
      const c = Math.min(...rounds.map((round) => round.c));
      const own = Math.min(...rounds.map((round) => round.own));
      const detail = `${(own / 1000).toFixed(1)} µs against ${(c / 1000).toFixed(1)} µs`;
      const figure = { name, value: own / c, unit: 'times', detail };
      return { ...figure, atMost: PROMISE };
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export const benches: readonly Bench[] = [{ name: 'round trip of an ioctl', run: roundTrip }];
