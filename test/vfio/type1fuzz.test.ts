/** The recorded programs of containers and DMA, replayed in this process: every line as Linux 7.3.4 answered it. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { parseFuzzRecording } from '../../scripts/vfio-recording.ts';
import { Type1Replay } from './type1-replay.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const folder = join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'vfio');

test('recorded programs of containers and DMA get the answers of Linux, line for line', (t) => {
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => /^type1-\d+\.txt\.gz$/.test(name))
    : [];
  if (names.length === 0) {
    t.skip(`there are no recorded programs in ${folder}`);
    return;
  }
  let lines = 0;
  for (const name of names) {
    const text = gunzipSync(readFileSync(join(folder, name))).toString();
    const { machine, seeds } = parseFuzzRecording(text, 'type1fuzz');
    const replay = new Type1Replay(machine, name);
    for (const [seed, recorded] of seeds) {
      replay.begin(seed);
      for (const line of recorded) {
        assert.equal(replay.line(line), line, `${name}, seed ${seed}: ${replay.reason}`);
        lines++;
      }
    }
  }
  assert.ok(lines > 0);
  t.diagnostic(`${lines} lines of ${names.length} machines`);
});
