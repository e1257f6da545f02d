/** check-field: what a case wants, and what counts as a difference. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import {
  casesIn,
  groupDifferences,
  missingCalls,
  parseExpected,
  runCase,
  shellWords,
} from './check-field.ts';

test('parseExpected: groups, marks, words and comments', () => {
  const { groups, numbers, partial, words } = parseExpected([
    'numbers',
    '2: 01:00.1 0001:00:00.0 # a comment',
    'why LAN lacks echo 1 > /a b',
  ]);
  assert.deepEqual([...groups], [[2, '0000:01:00.1 0001:00:00.0']]);
  assert.deepEqual([numbers, partial], [true, false]);
  assert.deepEqual(words, [{ device: 'LAN', wanted: false, text: 'echo 1 > /a b' }]);
});

test('groupDifferences: sets alone, numbers where they count, others where the list is partial', () => {
  const groups = new Map([[7, 'a b']]);
  const found = new Map([
    [0, 'a b'],
    [1, 'c'],
  ]);
  const compare = (numbers: boolean, partial: boolean): number =>
    groupDifferences({ groups, numbers, partial }, found).length;
  assert.equal(compare(false, true), 0);
  assert.equal(compare(false, false), 1, 'c is not in the list');
  assert.equal(compare(true, false), 3, 'groups 0, 1 and 7 differ');
});

test('shellWords splits as a shell does', () => {
  assert.deepEqual(shellWords(`-m 'a b.yaml' --x="c d"  e`), ['-m', 'a b.yaml', '--x=c d', 'e']);
});

test('missingCalls: refused calls that uiommu does not have, each once', () => {
  const call = { call: 'VFIO_IOMMU_MAP_DMA', error: 'ENOTTY', reason: 'it is not supported here' };
  const other = { call: 'VFIO_SET_IOMMU', error: 'EINVAL', reason: 'the container has no group' };
  const trace = [call, other, call].map((event) => JSON.stringify(event)).join('\n');
  assert.deepEqual(missingCalls(trace), ['VFIO_IOMMU_MAP_DMA']);
});

test('runCase: a machine with its groups and words; a planted difference is found', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-field-test-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  writeFileSync(join(folder, '01-two.yaml'), 'devices:\n  - { address: "00:02.0", type: pci }\n');
  const outcome = (expected: string): readonly string[] => {
    writeFileSync(join(folder, '01-two.expected'), expected);
    return casesIn(folder).flatMap((field) => runCase(field).differences);
  };
  assert.deepEqual(outcome('numbers\n0: 00:02.0\nwhy 00:02.0 has driver_override\n'), []);
  assert.deepEqual(outcome('0: 00:02.0 00:03.0\nwhy 00:02.0 lacks driver_override\n'), [
    'why 00:02.0 says: driver_override',
    'Linux only: 0000:00:02.0 0000:00:03.0',
    'uiommu only: 0000:00:02.0',
  ]);
});
