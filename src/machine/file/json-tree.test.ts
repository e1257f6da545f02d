/** The fast reader gives the tree of the YAML reader, or none. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadMachine } from '../../iommu/load-machine.ts';
import { BUILTIN_MACHINES } from '../builtin.ts';
import { formatJson, parseJson } from './json-tree.ts';
import type { Tree } from './tree.ts';
import { formatMachine } from './write.ts';
import { parseYaml } from './yaml-tree.ts';

const CAPTURE = formatMachine(loadMachine(BUILTIN_MACHINES['pc'] ?? '', 'pc'), {
  kernel: '7.3.4',
  readAs: 'user',
  unreadable: ['a "quoted" remark: with everything, [in] it\n\u2028é'],
});

/** A tree without its places. */
function bare(tree: Tree | undefined): unknown {
  switch (tree?.kind) {
    case undefined:
      return undefined;
    case 'list':
      return tree.items.map(bare);
    case 'map':
      return tree.pairs.map(({ name, value }) => [name, bare(value)]);
    case 'scalar':
      return { text: tree.text, quoted: tree.quoted };
  }
}

test('parseJson reads what formatMachine writes, as the yaml package does', () => {
  const tree = parseJson(CAPTURE);
  assert.ok(tree);
  assert.deepEqual(bare(tree), bare(parseYaml(CAPTURE)));
});

test('formatMachine writes a line for each device', () => {
  const lines = CAPTURE.split('\n').filter((line) => line.startsWith('{"address":'));
  const machine = loadMachine(BUILTIN_MACHINES['pc'] ?? '', 'pc');
  assert.equal(lines.length, machine.deviceCount);
});

test('parseJson leaves what it would write otherwise to the yaml package', () => {
  for (const text of [
    '',
    '{}',
    '{"a":1}',
    '{\n"a": 1,\n"a": 2\n}\n',
    '{\n"a": 1 \n}\n',
    '{\n"a": 01\n}\n',
    '{\n"a": 1\n}',
    'a: 1\n',
    '[\n1\n]\n',
    '{\n"a": "\\u0062"\n}\n',
  ]) {
    assert.equal(parseJson(text), undefined, JSON.stringify(text));
  }
});

test('parseJson: whatever it accepts, the yaml package reads the same', () => {
  const leaf = fc.oneof(fc.string({ unit: 'grapheme' }), fc.nat(), fc.boolean());
  const { file } = fc.letrec((tie) => ({
    value: fc.oneof({ depthSize: 'small' }, leaf, fc.array(tie('value')), tie('file')),
    file: fc.dictionary(fc.stringMatching(/^[a-z][a-z-]{0,8}$/), tie('value')),
  }));
  fc.assert(
    fc.property(file, (value) => {
      const text = formatJson(value);
      assert.deepEqual(bare(parseJson(text)), bare(parseYaml(text)));
    }),
    { numRuns: 500 },
  );
});
