/** Turn: what a call that is begun again remembers. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { Errno } from '../base/errno.ts';
import { Again, Turn } from './turn.ts';

function busy(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

test('inPieces: leaves the call when its slice is over, and goes on where it was', () => {
  const turn = new Turn(0n);
  const steps: number[] = [];
  let turns = 0;
  for (let over = false; !over && turns < 100; turns++) {
    turn.begin();
    try {
      turn.inPieces('a tail', 10, (done) => {
        steps.push(done);
        busy(1.5);
        return done + 1;
      });
      over = true;
    } catch (error) {
      assert.ok(error instanceof Again && error instanceof Errno && turn.again === error);
    }
  }
  assert.deepEqual(steps, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.ok(turns > 1, 'all of it in one turn');
  assert.equal(turn.again, undefined);
});

test('inPieces: what is short is done at once, and what was done is not done again', () => {
  const turn = new Turn(0n);
  let steps = 0;
  const step = (): number => ++steps;
  turn.begin();
  turn.inPieces('a tail', 1, step);
  turn.inPieces('a tail', 1, step);
  turn.inPieces('another', 2, step);
  assert.equal(steps, 2);
});
