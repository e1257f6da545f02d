import assert from 'node:assert/strict';
import test from 'node:test';
import { parseFuzzRecording } from './vfio-recording.ts';

const TEXT = `# qemu ARGS
dev 0000:00:00.0 path=P group=0 driver= physfn=
type1fuzz 3 4 160
d0 0000:00:00.0 808629c0 060000 group=0 left alone
== seed 3
open -> k0
check k0 1 -> 1
== seed 4
open -> i0
end
`;

test('a recording: the machine, the arguments, and the lines of each seed', () => {
  const recorded = parseFuzzRecording(TEXT, 'type1fuzz');
  assert.deepEqual([recorded.first, recorded.last, recorded.steps], [3, 4, 160]);
  assert.deepEqual(recorded.machine.split('\n'), [
    '# qemu ARGS',
    'dev 0000:00:00.0 path=P group=0 driver= physfn=',
    '',
  ]);
  assert.deepEqual(
    [...recorded.seeds],
    [
      [3, ['open -> k0', 'check k0 1 -> 1']],
      [4, ['open -> i0']],
    ],
  );
});

test('a recording of another program is refused', () => {
  assert.throws(() => parseFuzzRecording(TEXT, 'vfiofuzz'), /no line "vfiofuzz FIRST LAST STEPS"/);
});
