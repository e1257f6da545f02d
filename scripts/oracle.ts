/**
 * `npm run oracle`: what a real Linux answered to random programs of ioctls, against what uiommu answers.
 *
 *   npm run oracle -- [--seeds A-B] [--profile N] [--floor N=COUNT] [--verbose] [DIR]
 *
 * For each profileN.txt.gz in DIR (default: ../shared/oracle beside the repository, or UIOMMU_SHARED/oracle), DIR/abifuzz
 * runs under `uiommu run` for the seeds that the file holds. Of each seed that differs the first differing line is printed
 * with uiommu's reason, which comes from a trace of that seed. Exit status 1 if a profile has fewer identical seeds
 * than its floor (oracle-floor.json, or --floor) or uiommu fails; 2 if the DIR given is not one or an argument makes no sense;
 * 0 otherwise, and where there is nothing to compare with.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { chooseSeeds, parseOptions, refuse } from './arguments.ts';
import { progress } from './progress.ts';
import {
  countIoctls,
  firstDifference,
  ioctlOfLine,
  parseRecording,
  stretches,
} from './recording.ts';
import type { Difference, Recording } from './recording.ts';
import { ROOT, runClient, type Run } from './run-client.ts';

const STEPS = 250;
const LIMIT_SECONDS = 600;
const SHOWN = 20;
// Runs in a row that gave no output at all: then it is not the seed.
const GIVE_UP = 3;

const { values, positionals } = parseOptions('oracle', {
  allowPositionals: true,
  options: {
    seeds: { type: 'string' },
    profile: { type: 'string', multiple: true },
    floor: { type: 'string', multiple: true, default: [] },
    verbose: { type: 'boolean', default: false },
  },
});
const shared = process.env['UIOMMU_SHARED'] ?? join(ROOT, '..', 'shared');
const directory = resolve(positionals[0] ?? join(shared, 'oracle'));
const abifuzz = join(directory, 'abifuzz');
const line = progress();

type Ours = {
  readonly seeds: Map<number, readonly string[]>;
  /** seeds at which the run ended badly, and what was said */
  readonly broken: Map<number, string>;
};

function complaint(run: Run): string {
  const how = run.timedOut ? `hangs (${LIMIT_SECONDS} s)` : `status ${run.status ?? 'signal'}`;
  return `${how}${run.errors.trim() === '' ? '' : `: ${run.errors.trim().slice(-600)}`}`;
}

/** Runs a stretch; a seed that ends the run is noted, and the rest run without it. */
async function runStretch(
  profile: string,
  [first, last]: [number, number],
  ours: Ours,
): Promise<void> {
  let silent = 0;
  for (let next = first; next <= last;) {
    const command = [abifuzz, String(next), String(last), String(STEPS), profile];
    const begun = next;
    const run = await runClient(command, {
      limitSeconds: LIMIT_SECONDS,
      onOutput: (text) => {
        const seed = /.*== seed (\d+)/s.exec(text)?.[1];
        if (seed !== undefined) line.show(`profile ${profile}: seed ${seed}`);
      },
    });
    const seeds = parseRecording(run.output);
    for (const [seed, lines] of seeds) ours.seeds.set(seed, lines);
    if (run.status === 0) return;
    // Output comes seed by seed, so the one that failed is the first of which nothing was seen.
    const failed = Math.min(begun + seeds.size, last);
    ours.broken.set(failed, complaint(run));
    if (seeds.size === 0 && ++silent === GIVE_UP) return;
    next = begun + seeds.size + 1;
  }
}

type Event = { readonly syscall?: string; readonly call?: string; readonly reason?: string };

/** The ioctls of a run of some seeds, traced. */
async function traced(
  profile: string,
  first: number,
  last: number,
): Promise<{ run: Run; ioctls: Event[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-oracle-'));
  try {
    const file = join(folder, 'trace.jsonl');
    const command = [abifuzz, String(first), String(last), String(STEPS), profile];
    const options = [`--trace=${file}`, '--json'];
    const run = await runClient(command, { limitSeconds: LIMIT_SECONDS, options });
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    const events = text.split('\n').filter((each) => each !== '');
    const ioctls = events
      .map((each) => JSON.parse(each) as Event)
      .filter(({ syscall }) => syscall === 'ioctl');
    return { run, ioctls };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * uiommu's reason for the call that a line of a seed tells of, from a trace of the seed alone; or, where the seed alone
 * behaves differently (programs leave files open, so file numbers go on from seed to seed), of the stretch up to it.
 */
async function reasonFor(profile: string, seed: number, at: number, ours: Ours): Promise<string> {
  const lines = ours.seeds.get(seed) ?? [];
  const index = ioctlOfLine(lines, at);
  if (index === undefined) return 'no call';
  const alone = await traced(profile, seed, seed);
  const same = parseRecording(alone.run.output).get(seed)?.[at] === lines[at];
  if (same) return reasonOf(alone.ioctls[index]);
  const first = stretches(ours.seeds.keys()).find(([from, to]) => from <= seed && seed <= to)?.[0];
  if (first === undefined) return 'not reproduced';
  const { ioctls } = await traced(profile, first, seed);
  const before = [...ours.seeds]
    .filter(([other]) => other >= first && other < seed)
    .reduce((sum, [, each]) => sum + countIoctls(each), 0);
  return reasonOf(ioctls[before + index]);
}

function reasonOf(event: Event | undefined): string {
  if (event === undefined) return 'the trace ends before it';
  return `${event.call ?? 'unknown ioctl'}: ${event.reason ?? 'no refusal'}`;
}

async function showDifference(
  profile: string,
  seed: number,
  difference: Difference,
  all: Ours,
): Promise<void> {
  const { line: at, recorded, ours } = difference;
  const reason = await reasonFor(profile, seed, at, all);
  line.clear();
  console.log(`profile ${profile} seed ${seed} line ${at + 1}`);
  console.log(`  Linux   ${recorded ?? '(ends here)'}`);
  console.log(`  uiommu  ${ours ?? '(ends here)'}`);
  console.log(`  reason  ${reason}`);
}

type Tally = { identical: number; differing: number; notRun: number };

async function compareSeed(
  profile: string,
  seed: number,
  { recording, ours, tally }: { recording: Recording; ours: Ours; tally: Tally },
): Promise<void> {
  const broken = ours.broken.get(seed);
  const lines = ours.seeds.get(seed);
  if (broken !== undefined) {
    line.clear();
    console.log(`profile ${profile} seed ${seed} broke off: ${broken}`);
    return;
  }
  if (lines === undefined) {
    tally.notRun++;
    return;
  }
  const difference = firstDifference(recording.get(seed) ?? [], lines);
  if (difference === undefined) tally.identical++;
  else if (tally.differing++ < SHOWN || values.verbose) {
    await showDifference(profile, seed, difference, ours);
  }
}

/** @returns whether the floor is reached */
async function compareProfile(profile: string, file: string): Promise<boolean> {
  const recording = parseRecording(gunzipSync(readFileSync(file)).toString());
  const wanted = chooseSeeds('oracle', recording, values.seeds);
  const ours: Ours = { seeds: new Map(), broken: new Map() };
  for (const stretch of stretches(wanted)) await runStretch(profile, stretch, ours);
  const tally = { identical: 0, differing: 0, notRun: 0 };
  for (const seed of wanted) await compareSeed(profile, seed, { recording, ours, tally });
  line.clear();
  const hidden = values.verbose ? 0 : tally.differing - SHOWN;
  if (hidden > 0) console.log(`(${hidden} more differ; --verbose shows all)`);
  if (tally.notRun > 0) console.log(`profile ${profile}: ${tally.notRun} seeds were not run`);
  console.log(`profile ${profile}: ${tally.identical} of ${wanted.length} identical`);
  const floor = values.seeds === undefined ? (floors.get(profile) ?? 0) : 0;
  if (tally.identical < floor) console.log(`profile ${profile}: below the floor of ${floor}`);
  return tally.identical >= floor && ours.broken.size === 0 && tally.notRun === 0;
}

const checkedIn = JSON.parse(
  readFileSync(join(ROOT, 'scripts', 'oracle-floor.json'), 'utf8'),
) as Record<string, number>;
const floors = new Map([
  ...Object.entries(checkedIn),
  ...values.floor.map((text): [string, number] => {
    const [, profile = '', count = ''] =
      /^(\d+)=(\d+)$/.exec(text) ?? refuse('oracle', `--floor takes N=COUNT, not "${text}"`);
    return [profile, Number(count)];
  }),
]);

function whySkipped(): string | undefined {
  if (!existsSync(directory)) return `${directory} does not exist`;
  if (!existsSync(abifuzz)) return `${directory} has no abifuzz`;
  if (process.arch !== 'x64') return `abifuzz is a program for x86-64, this is ${process.arch}`;
  return undefined;
}

const skipped = whySkipped();
if (skipped !== undefined && positionals.length > 0) {
  console.error(`oracle: ${skipped}`);
  process.exitCode = 2;
} else if (skipped !== undefined) {
  console.log(`SKIPPED oracle: ${skipped}`);
} else {
  let good = true;
  for (const name of readdirSync(directory).sort()) {
    const profile = /^profile(\d+)\.txt\.gz$/.exec(name)?.[1];
    if (profile === undefined) continue;
    if (values.profile !== undefined && !values.profile.includes(profile)) continue;
    good = (await compareProfile(profile, join(directory, name))) && good;
  }
  process.exitCode = good ? 0 : 1;
}
