/**
 * `npm run vfio`: what a real Linux's VFIO answered to random programs, against what uiommu answers.
 *
 *   npm run vfio -- [--program vfiofuzz|type1fuzz] [--machine NNN] [DIR]
 *
 * DIR (default: ../shared/vfio beside the repository, or UIOMMU_SHARED/vfio) has recordings vfio-NNN.txt.gz and
 * type1-NNN.txt.gz. The head of a recording says what the machine is, the rest what the program printed on it. The program runs
 * under `uiommu run` on a machine built from the head, all its seeds in one run, because a seed can find what the one before left
 * in a device. Of each seed that differs the first differing line is printed, and the calls that led to it with uiommu's reasons,
 * from a run with a trace. Closes with `PROGRAM: I of M programs identical` for both programs.
 *
 * Exit status 1 if a seed differs or uiommu fails; 2 if the DIR given is not one or an argument makes no sense; 0 otherwise, and
 * where there is nothing to compare with.
 */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parseOptions, refuse } from './arguments.ts';
import { progress } from './progress.ts';
import { firstDifference, parseRecording, type Recording } from './recording.ts';
import { ROOT, runClient, type Run } from './run-client.ts';
import { parseFuzzRecording, type FuzzRecording } from './vfio-recording.ts';

const LIMIT_SECONDS = 600;
/** Calls that are shown of those that led to a differing line. */
const SHOWN_CALLS = 6;

const PROGRAMS = [
  { program: 'vfiofuzz', prefix: 'vfio' },
  { program: 'type1fuzz', prefix: 'type1' },
] as const;

const { values, positionals } = parseOptions('vfio', {
  allowPositionals: true,
  options: { program: { type: 'string' }, machine: { type: 'string' } },
});
const shared = join(process.env['UIOMMU_SHARED'] ?? join(ROOT, '..', 'shared'), 'vfio');
const directory = resolve(positionals[0] ?? shared);
const line = progress();

/** The built program: beside the recordings, or where the shared ones are. */
function builtProgram(program: string): string | undefined {
  return [directory, shared].map((folder) => join(folder, program)).find(existsSync);
}

type Job = {
  /** "type1-003" */
  readonly name: string;
  readonly program: string;
  /** file with the machine */
  readonly machine: string;
  readonly recorded: FuzzRecording;
};

function run({ program, machine, recorded }: Job, last: number, trace: boolean): Promise<Run> {
  const { first, steps } = recorded;
  return runClient([program, String(first), String(last), String(steps)], {
    limitSeconds: LIMIT_SECONDS,
    options: ['-m', machine, ...(trace ? ['--trace'] : [])],
    merged: trace,
  });
}

// How `uiommu run --trace` writes a call; what the program prints never looks like it.
const CALL = /^(?:\[pid \d+\] )?[a-z_0-9]+\(.*<\d+µs>$/;

/** The calls between a line of a seed and the one before it, from a run with a trace up to that seed. */
async function callsBefore(job: Job, seed: number, at: number): Promise<string[]> {
  const { output } = await run(job, seed, true);
  const begun = output.split('\n').lastIndexOf(`== seed ${seed}`);
  if (begun < 0) return ['the run with a trace does not get there'];
  let calls: string[] = [];
  let index = 0;
  for (const text of output.split('\n').slice(begun + 1)) {
    if (CALL.test(text)) {
      calls.push(text);
    } else if (text !== '') {
      if (index++ === at) return calls.slice(-SHOWN_CALLS);
      calls = [];
    }
  }
  return calls.slice(-SHOWN_CALLS);
}

function complain(name: string, { timedOut, status, errors }: Run): void {
  const how = timedOut ? `hangs (${LIMIT_SECONDS} s)` : `status ${status ?? 'signal'}`;
  line.clear();
  console.log(`${name}: ${how}${errors.trim() === '' ? '' : `: ${errors.trim().slice(-600)}`}`);
}

/** Prints what differs. @returns how many seeds are identical, and whether the run ended well */
async function compare(job: Job): Promise<{ identical: number; endedWell: boolean }> {
  const { name, recorded } = job;
  const finished = await run(job, recorded.last, false);
  const endedWell = !finished.timedOut && finished.status === 0 && finished.errors === '';
  if (!endedWell) complain(name, finished);
  const ours = parseRecording(finished.output);
  let identical = 0;
  for (const [seed, lines] of recorded.seeds) {
    if (await isIdentical(job, seed, { recorded: lines, ours })) identical++;
  }
  return { identical, endedWell };
}

async function isIdentical(
  job: Job,
  seed: number,
  { recorded, ours }: { readonly recorded: readonly string[]; readonly ours: Recording },
): Promise<boolean> {
  const difference = firstDifference(recorded, ours.get(seed) ?? []);
  if (difference === undefined) return true;
  const calls = await callsBefore(job, seed, difference.line);
  line.clear();
  console.log(`${job.name} seed ${seed} line ${difference.line + 1}`);
  console.log(`  Linux   ${difference.recorded ?? '(ends here)'}`);
  console.log(`  uiommu  ${difference.ours ?? '(ends here)'}`);
  for (const call of calls) console.log(`  call    ${call}`);
  return false;
}

/** @returns whether all recordings of a program are identical and every run ended well */
async function compareProgram(
  { program, prefix }: (typeof PROGRAMS)[number],
  folder: string,
): Promise<boolean> {
  const built = builtProgram(program);
  const names = readdirSync(directory)
    .filter((file) => file.startsWith(`${prefix}-`) && file.endsWith('.txt.gz'))
    .map((file) => file.slice(0, -'.txt.gz'.length))
    .filter((name) => values.machine === undefined || name === `${prefix}-${values.machine}`)
    .sort();
  if (built === undefined || names.length === 0) {
    console.log(`SKIPPED ${program}: ${directory} has no ${built ? 'recording of it' : program}`);
    return true;
  }
  let identical = 0;
  let all = 0;
  let endedWell = true;
  for (const name of names) {
    line.show(`${name}: ${identical} of ${all} identical so far`);
    const text = gunzipSync(readFileSync(join(directory, `${name}.txt.gz`))).toString('latin1');
    const recorded = parseFuzzRecording(text, program);
    const machine = join(folder, `${name}.txt`);
    writeFileSync(machine, recorded.machine, 'latin1');
    const result = await compare({ name, program: built, machine, recorded });
    identical += result.identical;
    all += recorded.seeds.size;
    endedWell &&= result.endedWell;
  }
  line.clear();
  console.log(`${program}: ${identical} of ${all} programs identical`);
  return endedWell && identical === all;
}

async function main(): Promise<boolean> {
  const chosen = PROGRAMS.filter(
    ({ program }) => values.program === undefined || values.program === program,
  );
  if (chosen.length === 0) refuse('vfio', `--program takes vfiofuzz or type1fuzz`);
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-vfio-'));
  try {
    let good = true;
    for (const each of chosen) good = (await compareProgram(each, folder)) && good;
    return good;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (!existsSync(directory)) {
  const why = `${directory} does not exist`;
  if (positionals.length > 0) refuse('vfio', why);
  console.log(`SKIPPED vfio: ${why}`);
} else if (process.arch !== 'x64') {
  console.log(`SKIPPED vfio: the programs are for x86-64, this is ${process.arch}`);
} else {
  process.exitCode = (await main()) ? 0 : 1;
}
