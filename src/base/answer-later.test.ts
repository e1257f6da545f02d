/** Operations of callers that cannot wait. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { answerAtOnce } from './answer-later.ts';
import { Errno } from './errno.ts';

test('answerAtOnce gives the value of an operation that ends at once', () => {
  assert.equal(
    answerAtOnce('waits', (answer) => {
      answer(4);
    }),
    4,
  );
});

test('answerAtOnce throws the refusal of an operation that ends at once', () => {
  const refusal = new Errno('ENODEV', 'there is no such device');
  assert.throws(
    () =>
      answerAtOnce('waits', (answer) => {
        answer(refusal);
      }),
    refusal,
  );
});

test('answerAtOnce refuses with EAGAIN where the operation goes on', () => {
  let later: (outcome: number) => void = () => undefined;
  assert.throws(() => answerAtOnce('unbinding waits', (answer) => (later = answer)), {
    code: 'EAGAIN',
    message: /^unbinding waits; /,
  });
  assert.doesNotThrow(() => {
    later(0);
  });
});
