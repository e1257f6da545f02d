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
import { SUPPORT, VFIO_SUPPORT } from '../../src/uapi/support.ts';
import { VFIO_IOCTLS } from '../../src/uapi/vfio-ioctls.ts';
import * as vfioOther from '../../src/uapi/vfio-other.ts';
import * as vfio from '../../src/uapi/vfio.ts';
import { CONTAINER_IOCTLS } from '../../src/vfio/container-file.ts';
import { OWNERSHIP_IOCTLS } from '../../src/vfio/device-ioctls.ts';
import { GROUP_IOCTLS } from '../../src/vfio/group-ioctls.ts';
import { PCI_IOCTLS } from '../../src/vfio/pci/ioctls.ts';
import { TYPE1_IOCTLS } from '../../src/vfio/type1/ioctls.ts';
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
  // A container's ioctls are there twice: /dev/iommu takes them too, with a level of its own.
  const names = SUPPORT.filter((section) => section !== VFIO_SUPPORT).flatMap((section) =>
    section.rows.map(({ name }) => name),
  );
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

test('every ioctl of vfio.h has one row, and is called supported exactly if a table has it', () => {
  const names = VFIO_SUPPORT.rows.map(({ name }) => name);
  assert.deepEqual(names.toSorted(), Object.keys(VFIO_IOCTLS).toSorted());
  const tables = [CONTAINER_IOCTLS, TYPE1_IOCTLS, GROUP_IOCTLS, OWNERSHIP_IOCTLS, PCI_IOCTLS];
  const handled = tables.flatMap((table) => table.names);
  const taken = VFIO_SUPPORT.rows.filter(
    ({ level }) => level === 'supported' || level === 'partial',
  );
  assert.deepEqual(taken.map(({ name }) => name).toSorted(), handled.toSorted());
});

test('the table of ioctls has every number of type ; that vfio.h has', () => {
  const numbers = Object.entries({ ...vfio, ...vfioOther }).filter(
    ([, value]) => typeof value === 'number' && value >> 8 === ';'.charCodeAt(0),
  );
  assert.deepEqual(numbers.map(([name]) => name).toSorted(), Object.keys(VFIO_IOCTLS).toSorted());
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
