/** The recorded programs of vfio-pci calls, replayed in this process: every line as Linux 7.3.4 answered it. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { VFIOFUZZ } from './operations.ts';
import { Replay, splitRecording } from './replay.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const folder = join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'vfio');

test('recorded programs of vfio-pci calls get the answers of Linux, line for line', (t) => {
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => /^vfio-\d+\.txt\.gz$/.test(name))
    : [];
  if (names.length === 0) {
    t.skip(`there are no recorded programs in ${folder}`);
    return;
  }
  let lines = 0;
  for (const name of names) {
    const text = gunzipSync(readFileSync(join(folder, name))).toString();
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
  t.diagnostic(`${lines} lines of ${names.length} machines`);
});
