// npm run hostile [-- CALLS [SEED]]: hostile clients in this process (src/testing/hostile.ts), 1,000,000 calls unless said
// otherwise. Ends with 1 if anything but an errno came out of the engine, if a rule is broken, if something is left behind, or
// if memory grows. Prints the seed first: the same seed makes the same calls.
import { Hostile } from '../src/testing/hostile.ts';
import { Lab } from '../src/testing/lab.ts';
import { violations } from '../src/iommufd/invariants.ts';

const DEFAULT_CALLS = 1_000_000;
/** calls in the life of one machine */
const ROUND = 20_000;
/** what a heap may grow by over a run, in bytes, for compiled code and caches */
const GROWTH = 8 * 2 ** 20;

const [calls = DEFAULT_CALLS, seed = Date.now() % 2 ** 31] = process.argv.slice(2).map(Number);
const { gc } = globalThis;
if (gc === undefined) throw new Error('run with --expose-gc, as npm run hostile does');

function heap(): number {
  for (let i = 0; i < 2; i++) gc?.();
  return process.memoryUsage().heapUsed;
}

const totals = new Map<string, number>();

function round(roundSeed: number, count: number): void {
  const lab = new Lab();
  const hostile = new Hostile(lab, roundSeed);
  let last = '';
  try {
    for (let i = 0; i < count; i++) {
      last = hostile.step();
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

console.log(`hostile: ${calls} calls, seed ${seed}`);
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
  `${calls} calls in ${seconds.toFixed(1)} s, ${successes} succeeded (${passed.length} kinds), heap grew by ${(grown / 2 ** 20).toFixed(1)} MiB`,
);
if (process.env['HOSTILE_OUTCOMES'] !== undefined) {
  for (const [outcome, times] of [...totals].sort()) console.log(`${times}\t${outcome}`);
}
if (grown > GROWTH) {
  console.error(`the heap grew by more than ${GROWTH / 2 ** 20} MiB: something is kept`);
  process.exit(1);
}
