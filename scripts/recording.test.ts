import assert from 'node:assert/strict';
import test from 'node:test';
import { firstDifference, ioctlOfLine, parseRecording, stretches } from './recording.ts';

test('parseRecording() splits at the seeds', () => {
  const recording = parseRecording('== seed 3\na -> 0\nb -> E2\n== seed 5\n== seed 6\nc -> 0\n');
  assert.deepEqual(
    [...recording],
    [
      [3, ['a -> 0', 'b -> E2']],
      [5, []],
      [6, ['c -> 0']],
    ],
  );
});

test('stretches() breaks at gaps', () => {
  assert.deepEqual(stretches([6, 1, 2, 3, 9, 8]), [
    [1, 3],
    [6, 6],
    [8, 9],
  ]);
  assert.deepEqual(stretches([]), []);
});

test('firstDifference() finds a changed line and an end that comes too early', () => {
  assert.equal(firstDifference(['a', 'b'], ['a', 'b']), undefined);
  assert.deepEqual(firstDifference(['a', 'b'], ['a', 'c']), { line: 1, recorded: 'b', ours: 'c' });
  assert.deepEqual(firstDifference(['a', 'b'], ['a']), {
    line: 1,
    recorded: 'b',
    ours: undefined,
  });
  assert.deepEqual(firstDifference([], ['a']), { line: 0, recorded: undefined, ours: 'a' });
});

test('ioctlOfLine() does not count reopenings', () => {
  const lines = ['ioas_alloc', 'reopen 0 ok', 'map', 'reopen 0 ok'];
  assert.deepEqual(
    lines.map((_, line) => ioctlOfLine(lines, line)),
    [0, undefined, 1, undefined],
  );
  assert.equal(ioctlOfLine(lines, 4), undefined);
});
