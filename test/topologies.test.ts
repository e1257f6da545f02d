/** The recorded machines: the groups of a real kernel, from the devices alone. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { GroupFormer } from '../src/iommu/group-former.ts';
import { parseDump } from '../src/machine/dump.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const shared = process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared');
const recordings = join(shared, 'topologies');
const files = existsSync(recordings)
  ? readdirSync(recordings).filter((name) => name.endsWith('.txt.gz'))
  : [];

test('recorded machines: every group and every number is the kernel’s', (t) => {
  if (files.length === 0) {
    t.skip(`no recordings in ${recordings}`);
    return;
  }
  for (const file of files) {
    const text = gunzipSync(readFileSync(join(recordings, file))).toString();
    const machine = parseDump(text, file);
    const former = new GroupFormer();
    for (const device of machine.devices) former.add(device);
    const ours = [...machine.devices].map((device) => [device.name, former.groupOf(device)?.id]);
    const kernel = [...machine.devices].map((device) => [device.name, device.facts.recordedGroup]);
    assert.deepEqual(ours, kernel, file);
  }
});
