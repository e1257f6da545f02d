import assert from 'node:assert/strict';
import test from 'node:test';
import { parseTap, tally } from './tap.ts';

const OUTPUT = [
  'TAP version 13',
  '1..4',
  '# Starting 4 tests from 2 test cases.',
  '#  RUN           one.good ...',
  '#            OK  one.good',
  'ok 1 one.good',
  '#  RUN           one.bad ...',
  '# file.c:66:bad:Expected -1 (-1) != self->fd (-1)',
  '# bad: Test terminated by assertion',
  '#          FAIL  one.bad',
  'not ok 2 one.bad',
  '#  RUN           two.skipped ...',
  '#      SKIP      no huge pages',
  '#            OK  two.skipped',
  'ok 3 two.skipped # SKIP no huge pages',
];

test('parseTap() reads outcomes with their reasons', () => {
  const { results, planned, running } = parseTap(OUTPUT.join('\n'));
  assert.equal(planned, 4);
  assert.equal(running, undefined);
  assert.deepEqual(results, [
    { name: 'one.good', outcome: 'pass', reasons: [] },
    {
      name: 'one.bad',
      outcome: 'fail',
      reasons: [
        'file.c:66:bad:Expected -1 (-1) != self->fd (-1)',
        'bad: Test terminated by assertion',
      ],
    },
    { name: 'two.skipped', outcome: 'skip', reasons: ['no huge pages'] },
  ]);
});

test('parseTap() names the test that was running when the output ended', () => {
  const cut = [...OUTPUT, '#  RUN           two.hangs ...'].join('\n');
  assert.equal(parseTap(cut).running, 'two.hangs');
});

test('tally() counts tests that never ended as failed', () => {
  assert.deepEqual(tally(parseTap(OUTPUT.join('\n'))), { pass: 1, fail: 2, skip: 1 });
  assert.deepEqual(tally(parseTap('')), { pass: 0, fail: 0, skip: 0 });
});
