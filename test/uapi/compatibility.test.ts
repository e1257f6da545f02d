/** docs/compatibility.md: complete, up to date, and true as far as that can be seen from here. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { format } from 'prettier';
import { compatibilityPage } from '../../scripts/compatibility-page.ts';
import { ROOT } from '../../scripts/run-client.ts';
import { OPS_BY_NUMBER } from '../../src/iommufd/ioctls.ts';
import { IOMMUFD_IOCTLS } from '../../src/uapi/ioctls.ts';
import * as mock from '../../src/uapi/iommufd-test.ts';
import * as iommufd from '../../src/uapi/iommufd.ts';
import { SUPPORT } from '../../src/uapi/support.ts';
import { kernelTree } from './headers.ts';

const rows = SUPPORT.flatMap((section) => section.rows);

test('docs/compatibility.md is up to date', async () => {
  const page = readFileSync(join(ROOT, 'docs', 'compatibility.md'), 'utf8');
  const wanted = await format(compatibilityPage(), { parser: 'markdown', printWidth: 100 });
  assert.equal(page, wanted, 'run `npm run compatibility`');
});

test('every ioctl, flag and value of the headers has exactly one row', () => {
  const constants = [...Object.entries(iommufd), ...Object.entries(mock)]
    .filter(([name, value]) => typeof value === 'number' && !name.startsWith('IOMMUFD_CMD_'))
    .map(([name]) => name);
  const names = rows.map(({ name }) => name);
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
    'twice',
  );
  assert.deepEqual(
    constants.filter((name) => !names.includes(name)),
    [],
    'missing',
  );
  assert.deepEqual(
    names.filter((name) => !constants.includes(name) && !name.startsWith('VFIO_')),
    [],
    'unknown',
  );
  assert.ok(Object.keys(IOMMUFD_IOCTLS).every((name) => names.includes(name)));
});

test('an ioctl is called supported exactly if the engine has a handler for it', () => {
  const handled = OPS_BY_NUMBER.flatMap((op) => (op === undefined ? [] : [op.spec.name]));
  const supported = rows
    .filter(({ name, level }) => name in IOMMUFD_IOCTLS && level !== 'declared')
    .map(({ name }) => name);
  assert.deepEqual(supported.sort(), handled.sort());
});

const tree = kernelTree();
const sources = ['iommufd.c', 'iommufd_fail_nth.c']
  .map((name) => join(tree ?? '', 'tools/testing/selftests/iommu', name))
  .filter((file) => tree !== undefined && existsSync(file));

test(
  'the kernel has a test of every name that the page gives',
  {
    skip: sources.length === 0 && 'no kernel source: `npm run selftests` fetches it',
  },
  () => {
    const text = sources.map((file) => readFileSync(file, 'utf8')).join('\n');
    const known = new Set(
      [...text.matchAll(/^TEST_(?:F|FAIL_NTH)\((\w+), (\w+)\)/gm)].map(
        (match) => `${match[1] ?? ''}.${match[2] ?? ''}`,
      ),
    );
    assert.ok(known.size > 50);
    const named = rows.flatMap((row) => row.test ?? []);
    assert.deepEqual(
      named.filter((name) => !known.has(name)),
      [],
    );
  },
);
