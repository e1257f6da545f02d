/**
 * What the benchmarks share: promises as ratios, measured so that a busy machine does not decide them.
 *
 * A subject and its baseline run alternately in short slices within one process, and the fastest slices of each are
 * compared: whatever else the machine does only adds time. tinybench runs its tasks one after the other, so that a busy
 * minute falls on one of them alone. Counted is processor time, which does not grow while others have the processor; that of
 * all threads, so that what the garbage collector's helpers do counts too. Most slices have no collection in them: the mean of
 * all slices, which does have them, stands in a figure's detail.
 */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

/** One number of SPECIFICATION.md. */
export type Figure = {
  readonly name: string;
  readonly value: number;
  /** "times" for ratios, "ns", "ms" … */
  readonly unit: string;
  /** the promise: at most this */
  readonly atMost: number;
  /** what it was made from */
  readonly detail?: string;
};

/** A benchmark cannot run here; the reason is for people. */
export type Skip = { readonly skip: string };

/** One figure of several cannot be measured here. */
export type NamedSkip = Skip & { readonly name: string };

type Result = readonly (Figure | NamedSkip)[] | Skip;

/** What a file of bench/ exports as `benches`. */
export type Bench = { readonly name: string; run(): Result | Promise<Result> };

/** Does operations number `from` to `to` - 1; the result keeps the compiler from dropping them. */
export type Slice = (from: number, to: number) => number;

export type Timed = {
  readonly subject: number;
  readonly baseline: number;
  /** the ratio of the means of all slices */
  readonly mean?: number;
};

export type Measured = { readonly fast: number; readonly mean: number };

const ROUNDS = 200;
// Of ascending times, the one that counts, as a part of all: not the very first, which may be a lucky one.
const FAST = 0.05;
/** Slices last a few milliseconds at most, so that some of them are not interrupted. */
const SLICE = 1_000;
/** Each slice has operations of its own, so that none finds in the cache what another left there. */
export const OPERATIONS = ROUNDS * SLICE;

let kept = 0;

function nanoseconds(slice: Slice, from: number, to: number): number {
  const start = process.cpuUsage();
  kept += slice(from, to);
  const { user, system } = process.cpuUsage(start);
  return ((user + system) * 1e3) / (to - from);
}

function fast(times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[Math.floor(times.length * FAST)] ?? NaN;
}

function mean(times: readonly number[]): number {
  return times.reduce((sum, time) => sum + time, 0) / times.length;
}

/**
 * Nanoseconds an operation of several things, measured in turns; each has `count` different operations.
 * @returns of each the fast slices and the mean of all but the first quarter, in which code is still compiled
 */
export function compareAll(slices: readonly Slice[], count: number, rounds = ROUNDS): Measured[] {
  const times: number[][] = slices.map(() => []);
  const length = Math.min(SLICE, count);
  const turns = Math.floor(count / length);
  for (let round = 0; round < rounds; round++) {
    const from = (round % turns) * length;
    slices.forEach((slice, i) => times[i]?.push(nanoseconds(slice, from, from + length)));
  }
  if (Number.isNaN(kept)) throw new Error('a benchmark computed nothing');
  return times.map((each) => ({
    fast: fast(each),
    mean: mean(each.slice(Math.floor(each.length / 4))),
  }));
}

/** Of two results of {@link compareAll}. */
export function timed(subject: Measured | undefined, baseline: Measured | undefined): Timed {
  return {
    subject: subject?.fast ?? NaN,
    baseline: baseline?.fast ?? NaN,
    mean: (subject?.mean ?? NaN) / (baseline?.mean ?? NaN),
  };
}

/** Nanoseconds an operation of a subject and its baseline, measured in turns. */
export function compare(
  pair: { readonly subject: Slice; readonly baseline: Slice },
  count: number,
  rounds = ROUNDS,
): Timed {
  const [subject, baseline] = compareAll([pair.subject, pair.baseline], count, rounds);
  return timed(subject, baseline);
}

export function ratioFigure(name: string, times: Timed, atMost: number): Figure {
  const { subject, baseline, mean } = times;
  const all = mean === undefined ? '' : `; all slices ${mean.toFixed(2)}`;
  const detail = `${subject.toFixed(0)} ns against ${baseline.toFixed(0)} ns${all}`;
  return { name, value: subject / baseline, unit: 'times', atMost, detail };
}

/** How much more the subject grew than its baseline did, from the first measurement to the last. */
export function growthFigure(name: string, series: readonly Timed[], atMost: number): Figure {
  const ratios = series.map(({ subject, baseline }) => subject / baseline);
  const value = (ratios.at(-1) ?? NaN) / (ratios[0] ?? NaN);
  const detail = `ratios ${ratios.map((ratio) => ratio.toFixed(2)).join(', ')}`;
  return { name, value, unit: 'times', atMost, detail };
}

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** The command `uiommu run` of this tree; options, `--` and a program follow. */
export const UIOMMU_RUN: readonly string[] = [
  process.execPath,
  join(root, 'bin', 'uiommu.js'),
  'run',
];

/** Milliseconds of processor time of a command and all that it starts, whose output goes nowhere; it must succeed. */
export function commandCpu(command: readonly string[]): number {
  // The second line of `times` is what the shell's children took, as "0m0.120000s 0m0.030000s".
  const shell = ['-c', '"$@" >/dev/null 2>&1 || exit; times', 'sh', ...command];
  const { status, stdout } = spawnSync('sh', shell, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}`);
  const parts = (stdout.split('\n')[1] ?? '').matchAll(/(\d+)m([\d.]+)s/g);
  return [...parts].reduce((sum, [, m, s]) => sum + (Number(m) * 60 + Number(s)) * 1e3, 0);
}

/** Milliseconds from start to end of a command, whose output goes nowhere; it must succeed. */
export function commandTime(command: readonly string[]): number {
  const [file = '', ...args] = command;
  const begin = performance.now();
  const { status } = spawnSync(file, args, { stdio: 'ignore' });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}`);
  return performance.now() - begin;
}

/** Numbers that look random, the same for the same seed (mulberry32): from 0 up to, not including, 2^32. */
export function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Different page numbers, scattered over the 48 bits of address that IOMMUs translate, in no order. */
export function scatteredPages(count: number, seed: number): number[] {
  const next = numbers(seed);
  const pages = new Set<number>();
  while (pages.size < count) pages.add((next() % 2 ** 31) * 32 + (next() % 32) + 1);
  return [...pages];
}

/** The plain baseline for a lookup: index of the last key that is not greater, -1 if there is none. */
export function binarySearch(sorted: Float64Array, key: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? NaN) <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
