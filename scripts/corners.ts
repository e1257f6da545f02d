/**
 * `npm run corners`: random programs at the edges of /dev/iommu, against what a real Linux answered.
 *
 *   npm run corners -- [--seeds A-B]
 *
 * test/programs/corners runs under `uiommu run` for the seeds of test/recordings/corners.txt.gz, which Linux printed in a
 * virtual machine (`npm run linux-vm`). Exit status 1 if a seed differs; the first differing line of each is printed. As root
 * alone: the programs start processes that give it up.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { buildStatic, kernelTree, Skipped } from './kernel-source.ts';
import { progress } from './progress.ts';
import { firstDifference, parseRecording, stretches } from './recording.ts';
import { ROOT, runClient } from './run-client.ts';

const LIMIT_SECONDS = 300;

const { values } = parseArgs({ options: { seeds: { type: 'string' } } });
const line = progress();

/** @returns the recording, and how many steps each of its seeds has */
function recorded(): { seeds: ReturnType<typeof parseRecording>; steps: number } {
  const file = join(ROOT, 'test', 'recordings', 'corners.txt.gz');
  const text = gunzipSync(readFileSync(file)).toString('latin1');
  return { seeds: parseRecording(text), steps: Number(/^# (\d+) steps/.exec(text)?.[1]) };
}

function wanted(all: Iterable<number>): number[] {
  const range = /^(\d+)(?:-(\d+))?$/.exec(values.seeds ?? '0-9999');
  if (range === null) throw new Error(`--seeds takes A or A-B, not "${values.seeds ?? ''}"`);
  const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
  const chosen = [...all].filter((seed) => seed >= first && seed <= last);
  if (chosen.length === 0) throw new Error(`the recording has no seed in ${values.seeds ?? ''}`);
  return chosen;
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
  const { seeds, steps } = recorded();
  const chosen = wanted(seeds.keys());
  let identical = 0;
  for (const [first, last] of stretches(chosen)) {
    const command = [program, String(first), String(last), String(steps)];
    const run = await runClient(command, { limitSeconds: LIMIT_SECONDS, asRoot: false });
    if (run.timedOut || run.status !== 0) {
      console.log(
        `seeds ${first}-${last}: ${run.timedOut ? 'hangs' : `status ${run.status ?? 'signal'}`}`,
      );
    }
    if (run.errors !== '') console.log(run.errors.trimEnd());
    const ours = parseRecording(run.output);
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
  }
  console.log(`corners: ${identical} of ${chosen.length} seeds identical`);
  return identical === chosen.length;
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.log(`SKIPPED corners: ${error.message}`);
}
