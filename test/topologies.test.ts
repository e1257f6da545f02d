/** The recorded machines: the groups of a real kernel, from the devices alone; and each through the machine file. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { compare } from '../scripts/topologies.ts';
import { loadMachine } from '../src/iommu/load-machine.ts';
import { parseDump } from '../src/machine/file/recording.ts';
import { formatMachine } from '../src/machine/file/write.ts';
import type { Machine } from '../src/machine/machine.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const shared = process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared');
const folder = join(shared, 'topologies');

function recordings(t: TestContext): { name: string; text: string }[] {
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => name.endsWith('.txt.gz'))
    : [];
  if (names.length === 0) t.skip(`there are no recorded machines in ${folder}`);
  return names.map((name) => ({
    name,
    text: gunzipSync(readFileSync(join(folder, name))).toString(),
  }));
}

/** What must survive the machine file. */
function essence(machine: Machine): unknown {
  return {
    devices: [...machine.devices].map((device) => ({
      name: device.name,
      bus: device.bus.name,
      behind: device.bus.self?.name,
      config: Buffer.from(device.config.bytes).toString('hex'),
      physfn: device.physfn?.name,
      facts: [device.facts.driver, device.facts.recordedGroup],
    })),
    groups: [...machine.recordedGroups.values()].map(({ id, type, reserved }) => ({
      id,
      type,
      reserved: reserved.map((region) => [region.start, region.last, region.type].join(' ')),
    })),
  };
}

test('recorded machines: every group and every number is the kernel’s, at once and one device at a time', (t) => {
  for (const { name, text } of recordings(t)) assert.deepEqual(compare(text, name), [], name);
});

test('recorded machines: the machine file gives each one back', (t) => {
  for (const { name, text } of recordings(t)) {
    const machine = parseDump(text, name);
    const again = loadMachine(formatMachine(machine), name);
    assert.deepEqual(essence(again), essence(machine), name);
  }
});

test('recorded machines: a planted error is found and told with a reason', (t) => {
  const [first] = recordings(t);
  if (first === undefined) return;
  const planted = first.text.replace(/(dev 0000:01:00\.0 .*group=)\d+/, '$199');
  assert.notEqual(planted, first.text);
  const lines = compare(planted, first.name);
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? '', /^all at once: 0000:01:00\.0: kernel 99, uiommu \d+ \(.+\)$/);
});
