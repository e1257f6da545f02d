/** The recorded programs of containers and DMA, replayed in this process: every line as Linux 7.3.4 answered it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { parseFuzzRecording } from '../../scripts/vfio-recording.ts';
import { Type1Replay } from './type1-replay.ts';
import { recordings } from './recordings.ts';

test('recorded programs of containers and DMA get the answers of Linux, line for line', (t) => {
  const files = recordings(t, 'type1');
  if (files.length === 0) return;
  let lines = 0;
  for (const { name, text } of files) {
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
  t.diagnostic(`${lines} lines of ${files.length} machines`);
});
