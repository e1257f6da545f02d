/**
 * `npm run selftests`: the kernel's own selftests of iommufd, unchanged, under `uiommu run`, beside what Linux got.
 *
 *   npm run selftests -- [--update] [--timeout SECONDS]     SELFTESTS=DIR npm run selftests
 *
 * With SELFTESTS the programs come from there; without, they are built from Debian's newest kernel source. --update looks
 * for a newer one now. Exit status 0 if every program reaches the floor of selftests-floor.json (which only rises), or if
 * nothing could be run here, which is then said by name; 1 if not, if a program hangs, or if uiommu itself fails.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
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
// Tests whose memory comes from huge pages; most say so in their names.
const HUGE = /_huge\.|hugepage|huge_map|access_domain_destory/;

const { values } = parseArgs({
  options: {
    update: { type: 'boolean', default: false },
    timeout: { type: 'string', default: String(LIMIT_SECONDS) },
  },
});
const limitSeconds = Number(values.timeout);
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

/** @returns whether the floor is reached */
async function runProgram(folder: string, program: string, hugePages: HugePages): Promise<boolean> {
  let ended = 0;
  const run = await runClient([join(folder, program)], {
    limitSeconds,
    merged: true,
    onOutput: (text) => {
      ended += text.match(/^(?:not )?ok /gm)?.length ?? 0;
      line.show(`${program}: ${ended} tests`);
    },
  });
  line.clear();
  const report = parseTap(run.output);
  const ours = tally(report);
  printFailures(program, report, run);
  const linux = LINUX[program];
  const beside = linux === undefined ? '' : `   (Linux 7.3.4: ${tallyText(linux)})`;
  console.log(`${program}: ${tallyText(ours)}${beside}   ${run.seconds.toFixed(1)} s`);
  const floor = (floors[program] ?? 0) - withoutHugePages(report, hugePages);
  if (ours.pass < floor) console.log(`${program}: below the floor of ${floor} that must pass`);
  else if (ours.pass > floor) {
    console.log(
      `${program}: above the floor of ${floor}; raise it in scripts/selftests-floor.json`,
    );
  }
  seconds += run.seconds;
  const complete = report.planned !== undefined && report.running === undefined;
  return ours.pass >= floor && !run.timedOut && complete;
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
  console.log(`both: ${seconds.toFixed(1)} s (Linux 7.3.4 in an emulated VM: ${LINUX_SECONDS} s)`);
  process.exitCode = good ? 0 : 1;
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.log(`SKIPPED selftests: ${error.message}`);
}
