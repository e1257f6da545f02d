/**
 * `npm run selftests`: the kernel's own selftests of iommufd, unchanged, under `uiommu run`, beside what Linux got.
 *
 *   npm run selftests -- [--update] [--timeout SECONDS] [--jobs N]     SELFTESTS=DIR npm run selftests
 *
 * With SELFTESTS the programs come from there; without, they are built from Debian's newest kernel source. --update looks
 * for a newer one now. The tests of a program run in N parts at a time, each on a machine of its own: as many as there are
 * processors, unless said otherwise; 1 runs them one after the other, as Linux's figure was measured. Exit status 0 if every
 * program reaches the floor of selftests-floor.json (which only rises), or if nothing could be run here, which is then said by
 * name; 1 if not, if a program hangs, or if uiommu itself fails; 2 for an argument that makes no sense.
 */
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { numberOption, parseOptions } from './arguments.ts';
import { listTests, share } from './harness.ts';
import { buildPrograms, kernelTree, PROGRAMS, Skipped } from './kernel-source.ts';
import { reserveHugePages, type HugePages } from './huge-pages.ts';
import { progress } from './progress.ts';
import { ROOT, runClient, type Run } from './run-client.ts';
import { parseTap, tally, type Report, type Tally } from './tap.ts';

// A real Linux 7.3.4 in a VM under software emulation: seconds for both together, boot not counted.
const LINUX: Readonly<Record<string, Tally>> = {
  iommufd: { pass: 233, fail: 8, skip: 5 },
  iommufd_fail_nth: { pass: 8, fail: 0, skip: 0 },
};
const LINUX_SECONDS = 9;
const LIMIT_SECONDS = 300;
const REASONS_SHOWN = 2;
// A part takes about one processor, which program and uiommu share; more parts than these only start more often.
const MOST_JOBS = 4;
// Tests whose memory comes from huge pages; most say so in their names.
const HUGE = /_huge\.|hugepage|huge_map|access_domain_destory/;

const { values } = parseOptions('selftests', {
  options: {
    update: { type: 'boolean', default: false },
    timeout: { type: 'string', default: String(LIMIT_SECONDS) },
    jobs: { type: 'string', default: String(Math.min(availableParallelism(), MOST_JOBS)) },
  },
});
const limitSeconds = numberOption('selftests', { name: 'timeout', text: values.timeout });
const jobs = numberOption('selftests', { name: 'jobs', text: values.jobs, whole: true });
const line = progress();

async function programsFolder(): Promise<string> {
  const given = process.env['SELFTESTS'];
  if (given !== undefined && given !== '') {
    const missing = PROGRAMS.filter((name) => !existsSync(join(given, name)));
    if (missing.length > 0) {
      console.error(`selftests: SELFTESTS=${given} has no ${missing.join(' and no ')}`);
      process.exit(2);
    }
    return resolve(given);
  }
  const tree = await kernelTree(line, values.update);
  console.log(`kernel source: Debian's ${tree.version}`);
  return buildPrograms(tree, line);
}

const tallyText = ({ pass, fail, skip }: Tally): string =>
  `${pass} pass, ${fail} fail, ${skip} skip of ${pass + fail + skip}`;

function printFailures(program: string, report: Report, run: Run): void {
  for (const { name, outcome, reasons } of report.results) {
    if (outcome === 'pass') continue;
    const shown = reasons.slice(0, REASONS_SHOWN).join('; ');
    console.log(`  ${outcome} ${name}${shown === '' ? '' : `: ${shown}`}`);
  }
  if (run.timedOut) {
    const where = report.running ?? 'before the first test or after the last';
    console.log(`  HANG ${program}: nothing for the rest of ${limitSeconds} s in ${where}`);
  } else if (report.planned === undefined || report.running !== undefined) {
    console.log(`  CUT OFF ${program}: ended with status ${run.status ?? 'by a signal'}`);
    console.log(run.output.split('\n').slice(-12).join('\n').replace(/^/gm, '    '));
  }
  const own = run.output.split('\n').filter((text) => text.startsWith('uiommu: '));
  for (const text of own.slice(0, 10)) console.log(`  ${text}`);
}

/** Tests that failed for want of huge pages: they map some before they ask /dev/iommu anything. */
function withoutHugePages(report: Report, hugePages: HugePages): number {
  if (hugePages.lacking === undefined) return 0;
  const lost = report.results.filter(({ name, outcome }) => outcome === 'fail' && HUGE.test(name));
  if (lost.length > 0) {
    console.log(`  ${lost.length} of these tests need huge pages: ${hugePages.lacking}`);
  }
  return lost.length;
}

/** What one process of a program did, and how many tests it was to run; undefined for all. */
type Part = { readonly run: Run; readonly report: Report; readonly asked: number | undefined };

/** Runs a program whole, or in parts at the same time. */
async function runParts(folder: string, program: string): Promise<Part[]> {
  const path = join(folder, program);
  const names = jobs === 1 ? [] : listTests(path);
  const parts = names.length === 0 ? [[]] : share(names, jobs, HUGE);
  let ended = 0;
  const onOutput = (text: string): void => {
    ended += text.match(/^(?:not )?ok /gm)?.length ?? 0;
    line.show(`${program}: ${ended} tests`);
  };
  const runs = parts.map(async (tests): Promise<Part> => {
    const command = [path, ...tests.flatMap((name) => ['-r', name])];
    const run = await runClient(command, { limitSeconds, merged: true, onOutput });
    const asked = tests.length === 0 ? undefined : tests.length;
    return { run, report: parseTap(run.output), asked };
  });
  return Promise.all(runs);
}

const sum = (tallies: readonly Tally[], outcome: keyof Tally): number =>
  tallies.reduce((total, each) => total + each[outcome], 0);

/** @returns whether the floor is reached */
async function runProgram(folder: string, program: string, hugePages: HugePages): Promise<boolean> {
  const begun = performance.now();
  const parts = await runParts(folder, program);
  const took = (performance.now() - begun) / 1000;
  seconds += took;
  line.clear();
  const tallies = parts.map(({ report }) => tally(report));
  const ours = {
    pass: sum(tallies, 'pass'),
    fail: sum(tallies, 'fail'),
    skip: sum(tallies, 'skip'),
  };
  for (const { report, run } of parts) printFailures(program, report, run);
  const linux = LINUX[program];
  const beside = linux === undefined ? '' : `   (Linux 7.3.4: ${tallyText(linux)})`;
  const atOnce = parts.length === 1 ? '' : `, ${parts.length} parts at once`;
  console.log(`${program}: ${tallyText(ours)}${beside}   ${took.toFixed(1)} s${atOnce}`);
  const lost = parts.reduce((total, { report }) => total + withoutHugePages(report, hugePages), 0);
  const floor = (floors[program] ?? 0) - lost;
  if (ours.pass < floor) console.log(`${program}: below the floor of ${floor} that must pass`);
  else if (ours.pass > floor) {
    console.log(
      `${program}: above the floor of ${floor}; raise it in scripts/selftests-floor.json`,
    );
  }
  const complete = parts.every(({ report: { planned, running }, run, asked }) => {
    const lost = asked !== undefined && planned !== undefined && planned !== asked;
    if (lost) console.log(`${program}: ${planned} tests ran where ${asked} were asked for`);
    return planned !== undefined && running === undefined && !run.timedOut && !lost;
  });
  return ours.pass >= floor && complete;
}

const floors = JSON.parse(
  readFileSync(join(ROOT, 'scripts', 'selftests-floor.json'), 'utf8'),
) as Record<string, number>;
let seconds = 0;

try {
  const folder = await programsFolder();
  const hugePages = reserveHugePages();
  let good = true;
  try {
    for (const program of PROGRAMS) {
      good = (await runProgram(folder, program, hugePages)) && good;
    }
  } finally {
    hugePages.giveBack();
  }
  const how = jobs === 1 ? '' : `, up to ${jobs} parts at once`;
  const linux = `Linux 7.3.4 in an emulated VM, one test after the other: ${LINUX_SECONDS} s`;
  console.log(`both: ${seconds.toFixed(1)} s${how} (${linux})`);
  process.exitCode = good ? 0 : 1;
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.log(`SKIPPED selftests: ${error.message}`);
}
