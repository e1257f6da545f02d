/** What a real kernel shows in /sys and /dev of recorded machines, and what writes there do, with their uevents. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { compareDump, compareFuzz, recordingsDirectory } from '../../scripts/sysfs.ts';

const directory = recordingsDirectory();
const NO_RECORDINGS = 'no recordings: ../shared/sysfs or $UIOMMU_SHARED/sysfs';

/** What firmware of the recorder and the selftest's mock IOMMU add (docs/divergence.md). */
const NOT_MODELLED = /\/QEMU0002:00|iommufd_selftest_iommu|\/cmos_nvram0\/nvmem/;

function recordings(pattern: RegExp): string[] {
  if (directory === undefined) return [];
  return readdirSync(directory)
    .filter((name) => pattern.test(name))
    .map((name) => join(directory, name));
}

test('every name below /sys and /dev is what a real kernel shows, but for firmware', (t) => {
  const paths = recordings(/^sysfs-\d+\.txt\.gz$/);
  if (paths.length === 0) {
    t.skip(NO_RECORDINGS);
    return;
  }
  const differences: string[] = [];
  for (const path of paths) {
    const { total, identical } = compareDump(path, (text) => differences.push(text));
    assert.ok(identical >= 0.98 * total, `${path}: ${identical} of ${total} lines`);
  }
  assert.deepEqual(
    differences.filter((text) => !NOT_MODELLED.test(text)),
    [],
  );
});

test('recorded programs of writes to sysfs end line for line as on a real kernel, uevents included', (t) => {
  const paths = recordings(/^sysfuzz-\d+\.txt\.gz$/);
  if (paths.length === 0) {
    t.skip(NO_RECORDINGS);
    return;
  }
  const differences: string[] = [];
  let programs = 0;
  for (const path of paths) programs += compareFuzz(path, (text) => differences.push(text)).total;
  assert.ok(programs > 0, 'the directory has no recording');
  assert.deepEqual(differences, []);
});
