/** Recorded programs of driver binding, claims and VFIO calls on real kernels: every line has to come out as there. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { recordingsDirectory, replayFile } from '../../scripts/ownership-replay.ts';

const directory = recordingsDirectory();

test('every recorded ownership program is replayed line for line', (t) => {
  if (directory === undefined) {
    t.skip('no recordings: ../shared/ownership or $UIOMMU_SHARED/ownership');
    return;
  }
  const differences: string[] = [];
  let programs = 0;
  for (const name of readdirSync(directory).filter((file) => file.endsWith('.txt.gz'))) {
    const tell = (text: string): void => void differences.push(text);
    programs += replayFile(join(directory, name), tell).programs;
  }
  assert.ok(programs > 0, 'the directory has no recording');
  assert.deepEqual(differences, []);
});
