// npm run hostile [-- CALLS [SEED]]: hostile clients, 1,000,000 calls each unless said otherwise.
//
// First in this process (src/testing/hostile.ts): ends with 1 if anything but an errno came out of the engine, if a rule is
// broken, if something is left behind, if memory grows, or if a call takes so long that others would wait for it. Then
// as a program under `uiommu run` (test/programs/latency.c), beside a well-behaved one: ends with 1 if a call of that one
// waits too long for uiommu. Prints the seed first: the same seed makes the same calls.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { violations } from '../src/iommufd/invariants.ts';
import { Hostile } from '../src/testing/hostile.ts';
import { Lab } from '../src/testing/lab.ts';
import { ROOT, runClient } from './run-client.ts';

const DEFAULT_CALLS = 1_000_000;
/** calls in the life of one machine */
const ROUND = 20_000;
/** what a heap may grow by over a run, in bytes, for compiled code and caches */
const GROWTH = 8 * 2 ** 20;
/** how long a call of another client may wait, in milliseconds */
const LONGEST = 50;
/** for the program under `uiommu run`, whatever else the machine does */
const LIMIT_SECONDS = 3600;

const [calls = DEFAULT_CALLS, seed = Date.now() % 2 ** 31] = process.argv.slice(2).map(Number);
const { gc } = globalThis;
if (gc === undefined) throw new Error('run with --expose-gc, as npm run hostile does');

function heap(): number {
  for (let i = 0; i < 2; i++) gc?.();
  return process.memoryUsage().heapUsed;
}

const totals = new Map<string, number>();
const longest = { milliseconds: 0, call: '' };

// Processor time: what other programs of the machine take is not the engine's.
function timed(step: () => string): string {
  const before = process.cpuUsage();
  const call = step();
  const { user, system } = process.cpuUsage(before);
  const milliseconds = (user + system) / 1000;
  if (milliseconds > longest.milliseconds) Object.assign(longest, { milliseconds, call });
  return call;
}

function round(roundSeed: number, count: number): void {
  const lab = new Lab();
  const hostile = new Hostile(lab, roundSeed);
  let last = '';
  try {
    for (let i = 0; i < count; i++) {
      last = timed(() => hostile.step());
      const found = violations(lab.iommufd);
      if (found.length > 0) throw new Error(found.join('\n'));
    }
    hostile.end();
    lab.end();
  } catch (error) {
    console.error(`round with seed ${roundSeed}, after ${last}:`, error);
    process.exit(1);
  }
  for (const [outcome, times] of hostile.outcomes) {
    totals.set(outcome, (totals.get(outcome) ?? 0) + times);
  }
}

/** In this process. @returns what is wrong */
function engine(): string[] {
  const start = process.hrtime.bigint();
  round(seed, Math.min(ROUND, calls));
  const before = heap();
  for (let done = ROUND, n = 1; done < calls; done += ROUND, n++) {
    round(seed + n, Math.min(ROUND, calls - done));
  }
  const grown = heap() - before;
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const passed = [...totals].filter(([outcome]) => outcome.endsWith(': ok'));
  const successes = passed.reduce((sum, [, times]) => sum + times, 0);
  console.log(
    `in process: ${calls} calls in ${seconds.toFixed(1)} s, ${successes} succeeded (${passed.length} kinds), heap grew by ${(grown / 2 ** 20).toFixed(1)} MiB, longest call ${longest.milliseconds.toFixed(1)} ms (${longest.call})`,
  );
  if (process.env['HOSTILE_OUTCOMES'] !== undefined) {
    for (const [outcome, times] of [...totals].sort()) console.log(`${times}\t${outcome}`);
  }
  return [
    ...(grown > GROWTH
      ? [`the heap grew by more than ${GROWTH / 2 ** 20} MiB: something is kept`]
      : []),
    ...(longest.milliseconds > LONGEST
      ? [`a call took more than ${LONGEST} ms: ${longest.call}`]
      : []),
  ];
}

/** As a program beside another one. @returns what is wrong */
async function programs(): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-hostile-'));
  try {
    const program = join(folder, 'latency');
    const source = join(ROOT, 'test', 'programs', 'latency.c');
    const { status, error } = spawnSync('gcc', ['-O1', '-pthread', '-o', program, source]);
    if (error !== undefined || status !== 0) {
      console.log('under uiommu run: skipped, gcc does not compile test/programs/latency.c');
      return [];
    }
    const run = await runClient([program, 'calls', String(calls), String(seed)], {
      limitSeconds: LIMIT_SECONDS,
    });
    const [, slowest, clock, others] =
      /^slowest (\S+) ms \((\S+) ms by the clock\) of (\d+) calls$/m.exec(run.output) ?? [];
    console.log(
      `under uiommu run: ${calls} calls in ${run.seconds.toFixed(1)} s; longest wait for uiommu of ${others} calls of another client: ${slowest} ms (${clock} ms with waiting for a processor)`,
    );
    if (run.status !== 0 || slowest === undefined || run.errors !== '') {
      return [`the run ended with status ${run.status}: ${run.errors}`];
    }
    return Number(slowest) > LONGEST ? [`a call of another client waited ${slowest} ms`] : [];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

console.log(`hostile: ${calls} calls, seed ${seed}`);
const wrong = [...engine(), ...(await programs())];
for (const line of wrong) console.error(line);
process.exitCode = wrong.length > 0 ? 1 : 0;
