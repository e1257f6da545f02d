/** The fast parser gives the tree of the whole one, or none. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadMachine } from '../../iommu/load-machine.ts';
import { BUILTIN_MACHINES } from '../builtin.ts';
import { formatMachine } from './write.ts';
import { parsePlainYaml } from './plain-yaml.ts';
import { YamlError, type Tree } from './tree.ts';
import { parseYaml } from './yaml-tree.ts';

const REGULAR = formatMachine(loadMachine(BUILTIN_MACHINES['pc'] ?? '', 'pc'), {
  kernel: '7.3.4',
  readAs: 'user',
  unreadable: ['a "quoted" remark: with everything, [in] it'],
});

function whole(text: string): Tree | undefined {
  try {
    return parseYaml(text);
  } catch (error) {
    assert.ok(error instanceof YamlError, String(error));
    return undefined;
  }
}

test('parsePlainYaml reads what formatMachine writes, as the yaml package does', () => {
  const tree = parsePlainYaml(REGULAR);
  assert.ok(tree);
  assert.deepEqual(tree, parseYaml(REGULAR));
});

test('parsePlainYaml leaves what is not plainly regular to the whole parser', () => {
  for (const text of [
    '',
    'a: 1 # comment',
    'a: &x 1\nb: *x',
    "a: 'single'",
    'a: "tab\\t"',
    'a:\n  b: 1\n c: 2',
    'a: b: c',
    'a:',
    'a: null',
    '- - x',
    'a: >\n  folded',
    '--- \na: 1',
    'a: 1\na: 2',
    'a: {b: 1}',
    '"a": 1',
    'a: |\n\n  x',
    'a: { null: 0 }',
  ]) {
    assert.equal(parsePlainYaml(text), undefined, JSON.stringify(text));
  }
});

test('parsePlainYaml: whatever it accepts, the yaml package reads the same', () => {
  const piece = fc.constantFrom(
    ...[
      'a: ',
      'b:',
      'c',
      '- ',
      '\n',
      '\n  ',
      '\n    ',
      ' ',
      '|',
      '"x"',
      '0x1',
      '1.5',
      '00:01.0',
      '#',
      '~',
      '{ ',
      ' }',
    ],
    ...[
      '[',
      ']',
      ', ',
      'x: y',
      '-',
      ':',
      '.',
      'null',
      'true',
      '+',
      '\\',
      '...',
      '---',
      '?',
      '! ',
      '@',
      '%',
    ],
  );
  const pieces = fc.array(piece, { maxLength: 14 }).map((parts) => parts.join(''));
  const cut = fc.tuple(fc.nat(REGULAR.length), fc.nat(6), fc.oneof(piece, fc.constant('')));
  const mutated = fc
    .array(cut, { maxLength: 3 })
    .map((cuts) =>
      cuts.reduce(
        (text, [at, length, insert]) => text.slice(0, at) + insert + text.slice(at + length),
        REGULAR,
      ),
    );
  fc.assert(
    fc.property(fc.oneof(pieces, mutated), (text) => {
      const fast = parsePlainYaml(text);
      if (fast !== undefined) assert.deepEqual(fast, whole(text));
    }),
    { numRuns: 3000 },
  );
});
