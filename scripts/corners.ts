/**
 * `npm run corners`: random programs at the edges of /dev/iommu, against what a real Linux answered.
 *
 *   npm run corners -- [--seeds A-B]
 *
 * test/programs/corners runs under `uiommu run` for the seeds of test/recordings/corners.txt.gz, which Linux printed in a
 * virtual machine (`npm run linux-vm`). Exit status 1 if a seed differs, of which the first differing line is printed, or if a
 * program or uiommu ends badly; 2 for an argument that makes no sense. As root alone: the programs start processes that give it
 * up.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { chooseSeeds, parseOptions } from './arguments.ts';
import { buildStatic, kernelTree, Skipped } from './kernel-source.ts';
import { progress } from './progress.ts';
import { firstDifference, parseRecording, stretches, type Recording } from './recording.ts';
import { ROOT, runClient } from './run-client.ts';

const LIMIT_SECONDS = 300;

const { values } = parseOptions('corners', { options: { seeds: { type: 'string' } } });
const line = progress();

/** The recording, and how many steps each of its seeds has. */
type Recorded = { readonly seeds: Recording; readonly steps: number };

function recorded(): Recorded {
  const file = join(ROOT, 'test', 'recordings', 'corners.txt.gz');
  const text = gunzipSync(readFileSync(file)).toString('latin1');
  return { seeds: parseRecording(text), steps: Number(/^# (\d+) steps/.exec(text)?.[1]) };
}

/** Runs a stretch of seeds and prints what differs. @returns how many are identical, and whether all ended well */
async function runStretch(
  program: string,
  [first, last]: [number, number],
  { seeds, steps }: Recorded,
): Promise<{ identical: number; endedWell: boolean }> {
  const command = [program, String(first), String(last), String(steps)];
  const run = await runClient(command, { limitSeconds: LIMIT_SECONDS, asRoot: false });
  const how = run.timedOut ? 'hangs' : `status ${run.status ?? 'signal'}`;
  if (run.timedOut || run.status !== 0) console.log(`seeds ${first}-${last}: ${how}`);
  if (run.errors !== '') console.log(run.errors.trimEnd());
  const ours = parseRecording(run.output);
  let identical = 0;
  for (let seed = first; seed <= last; seed++) {
    const difference = firstDifference(seeds.get(seed) ?? [], ours.get(seed) ?? []);
    if (difference === undefined) {
      identical++;
      continue;
    }
    console.log(`seed ${seed}, step ${difference.line}`);
    console.log(`  Linux:  ${difference.recorded ?? '(ends)'}`);
    console.log(`  uiommu: ${difference.ours ?? '(ends)'}`);
  }
  return { identical, endedWell: !run.timedOut && run.status === 0 && run.errors === '' };
}

async function main(): Promise<boolean> {
  if (process.getuid?.() !== 0) throw new Skipped('only root can become somebody else');
  const folder = join(ROOT, 'test', 'programs', 'corners');
  const sources = readdirSync(folder).filter((name) => name.endsWith('.c'));
  const tree = await kernelTree(line, false);
  const program = buildStatic(
    tree,
    sources.map((name) => join(folder, name)),
    'corners',
  );
  const all = recorded();
  const chosen = chooseSeeds('corners', all.seeds, values.seeds);
  let identical = 0;
  let endedWell = true;
  for (const stretch of stretches(chosen)) {
    const result = await runStretch(program, stretch, all);
    identical += result.identical;
    endedWell &&= result.endedWell;
  }
  console.log(`corners: ${identical} of ${chosen.length} seeds identical`);
  return endedWell && identical === chosen.length;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.log(`SKIPPED corners: ${error.message}`);
}
