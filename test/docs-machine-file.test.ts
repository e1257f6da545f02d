/** docs/machine-file.md: its example loads, and it names every key that there is. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { formGroups } from '../src/iommu/group-builder.ts';
import { loadMachine } from '../src/iommu/load-machine.ts';
import { MACHINE_SHAPE } from '../src/machine/file/machine-shape.ts';
import type { Shape } from '../src/machine/file/shape.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const page = readFileSync(join(root, 'docs', 'machine-file.md'), 'utf8');

function keysOf(shape: Shape): string[] {
  switch (shape.kind) {
    case 'map':
      return Object.entries(shape.fields).flatMap(([name, field]) => [name, ...keysOf(field)]);
    case 'list':
      return keysOf(shape.of);
    case 'either':
      return shape.options.flatMap(keysOf);
    case 'text':
    case 'word':
    case 'number':
    case 'flag':
      return [];
  }
}

test('docs/machine-file.md: the example is a machine with the groups that it says', () => {
  const [, example = ''] = /```yaml\n([\s\S]*?)```/.exec(page) ?? [];
  const machine = loadMachine(example, 'docs');
  const groups = formGroups(machine).groups.map(({ members }) =>
    members.map(({ name }) => name.slice(5)),
  );
  assert.deepEqual(groups, [
    ['00:00.0'],
    ['00:01.0'],
    ['01:00.0', '01:00.1'],
    ['00:02.0', '02:00.0', '02:10.0', '02:10.2'],
  ]);
});

test('docs/machine-file.md: every key is explained', () => {
  const missing = keysOf(MACHINE_SHAPE).filter(
    (key) => !new RegExp(`[\`{ ,]${key}[\`: ,]`).test(page),
  );
  assert.deepEqual([...new Set(missing)], []);
});
