/** The recorded programs of vfio-pci calls, replayed in this process: every line as Linux 7.3.4 answered it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { VFIOFUZZ } from './operations.ts';
import { Replay, splitRecording } from './replay.ts';
import { recordings } from './recordings.ts';

test('recorded programs of vfio-pci calls get the answers of Linux, line for line', (t) => {
  const files = recordings(t, 'vfio');
  if (files.length === 0) return;
  let lines = 0;
  for (const { name, text } of files) {
    const { machine, programs } = splitRecording(text);
    const replay = new Replay(machine, name, VFIOFUZZ);
    for (const program of programs) {
      lines += program.length;
      const [first] = replay.run(program);
      const where = `${name}, seed ${first?.seed}: ${first?.reason}`;
      assert.equal(first?.replayed, first?.recorded, where);
    }
  }
  assert.ok(lines > 0);
  t.diagnostic(`${lines} lines of ${files.length} machines`);
});
