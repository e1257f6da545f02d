/** Parked calls: the table over a listener that only remembers, and whole programs whose calls wait. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';

import { compiled, stubRun, type StubOutcome } from '../../test/programs/support.ts';
import { PENDING, type Outcome } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import type { CallId } from '../os/seccomp.ts';
import { MOST_PARKED, PendingCalls, type Parking } from './pending.ts';

const EBUSY = -16;
const EAGAIN = -11;

/** A listener whose calls have ascending IDs. */
class Calls implements Parking {
  callId: CallId = { low: 0, high: 1 };
  readonly dead = new Set<number>();
  readonly answers: [number, number][] = [];

  next(): void {
    this.callId = { low: this.callId.low + 1, high: 1 };
  }

  waits({ low }: CallId): boolean {
    return !this.dead.has(low);
  }

  answerParked({ low }: CallId, result: number): boolean {
    this.answers.push([low, result]);
    return this.waits({ low, high: 1 });
  }
}

type Answer = (outcome: Outcome) => void;

function lab() {
  const calls = new Calls();
  const pending = new PendingCalls(calls);
  const ends: [Outcome, boolean][] = [];
  const reasons: string[] = [];
  /** Parks the next call. @returns answers it */
  const parkOne = (): Answer => {
    calls.next();
    let answer: Answer = () => undefined;
    const result = pending.begin('waits', (given) => (answer = given));
    assert.equal(result, PENDING);
    pending.park(
      (...end) => ends.push(end),
      (why) => reasons.push(why),
    );
    return answer;
  };
  return { calls, pending, ends, reasons, parkOne };
}

test('begin: an outcome that is there at once is the answer, a refusal is thrown', () => {
  const { calls, pending } = lab();
  const refusal = new Errno('EBUSY', 'in use');
  assert.equal(
    pending.begin('waits', (answer) => {
      answer(12);
    }),
    12,
  );
  assert.throws(
    () =>
      pending.begin('waits', (answer) => {
        answer(refusal);
      }),
    refusal,
  );
  assert.deepEqual([pending.count, calls.answers], [0, []]);
});

test('park: calls are answered in any order, with a value or a negative errno', () => {
  const { calls, pending, ends, reasons, parkOne } = lab();
  const [first, second] = [parkOne(), parkOne()];
  calls.next();
  assert.deepEqual([pending.count, reasons], [2, ['waits', 'waits']]);
  second(5);
  const refusal = new Errno('EBUSY', 'in use');
  first(refusal);
  assert.deepEqual(calls.answers, [
    [2, 5],
    [1, EBUSY],
  ]);
  assert.deepEqual(ends, [
    [5, true],
    [refusal, true],
  ]);
  assert.equal(pending.count, 0);
});

test('park: an operation that ended since it began answers at once and never waits', () => {
  const { calls, pending } = lab();
  let answer: Answer = () => undefined;
  assert.equal(
    pending.begin('waits', (given) => (answer = given)),
    PENDING,
  );
  answer(3);
  const reasons: string[] = [];
  pending.park(
    () => undefined,
    (why) => reasons.push(why),
  );
  assert.deepEqual([calls.answers, reasons, pending.count], [[[0, 3]], [], 0]);
});

test('park: the outcome of a dead caller is reported as not delivered', () => {
  const { calls, ends, parkOne } = lab();
  const answer = parkOne();
  calls.dead.add(1);
  answer(0);
  assert.deepEqual(ends, [[0, false]]);
});

test('an operation that answers twice is a bug', () => {
  const answer = lab().parkOne();
  answer(0);
  assert.throws(() => {
    answer(0);
  }, /answered twice/);
});

test('begin: a call beyond the limit is refused before its operation begins; dead callers count no more', () => {
  const { calls, pending, parkOne } = lab();
  const answers = Array.from({ length: MOST_PARKED }, parkOne);
  let begun = false;
  const start = (): void => {
    begun = true;
  };
  assert.throws(() => pending.begin('waits', start), { code: 'EAGAIN' });
  assert.equal(begun, false);
  calls.dead.add(1);
  assert.equal(pending.begin('waits', start), PENDING);
  // The operation of the dead caller goes on, and ends.
  answers[0]?.(1);
  assert.deepEqual(calls.answers, [[1, 1]]);
});

async function waits(t: TestContext, name: string): Promise<StubOutcome | undefined> {
  const binary = compiled(t, 'waits');
  return binary === undefined ? undefined : stubRun([binary, name]);
}

async function shows(t: TestContext, name: string, lines: readonly string[]): Promise<void> {
  const outcome = await waits(t, name);
  if (outcome !== undefined) assert.deepEqual(outcome, { status: 0, lines, stderr: '' });
}

test('a call waits while others are answered, and gets its value or errno', (t) =>
  shows(t, 'answered', ['echo 42', 'value 7', `errno ${EBUSY}`]));

test('a call waits for the last close in another process', (t) =>
  shows(t, 'closed', ['echo 42', 'closed 5']));

test('signals of a waiting caller are handled after its answer, and the call is not repeated', (t) =>
  shows(t, 'signalled', [
    'handled 0 waiting 1',
    'value 9 handled 1 waiting 0',
    'handled 0 waiting 1',
    'value 9 handled 1 waiting 0',
  ]));

test('a waiting caller can be killed; its operation goes on', (t) =>
  shows(t, 'killed', ['signal 9 waiting 1', 'waiting 0 echo 42']));

test('a waiting caller ends when its process execs; its operation goes on', (t) =>
  shows(t, 'replaced', ['status 0 waiting 1', 'waiting 0 echo 42']));

test('one call too many is refused with EAGAIN; callers that were killed count no more', (t) =>
  shows(t, 'full', [
    `one more ${EAGAIN} waiting ${MOST_PARKED}`,
    `waiting ${MOST_PARKED + 1}`,
    'value 8',
  ]));

test('a write waits though its file is closed meanwhile', (t) =>
  shows(t, 'written', ['echo 42', 'value 2']));

test('trace: a call that waits is shown when it begins to wait and when it is answered', async (t) => {
  const binary = compiled(t, 'waits');
  if (binary === undefined) return;
  const { stderr } = await stubRun(['--trace', binary, 'closed']);
  const lines = stderr.split('\n').filter((line) => /unfinished| = 5 /.test(line));
  assert.equal(lines.length, 2, stderr);
  assert.equal(
    lines[0],
    'ioctl(3</dev/uiommu-stub>) = ? <unfinished: waits for a file of the device to be closed>',
  );
  assert.match(lines[1] ?? '', /^ioctl\(3<\/dev\/uiommu-stub>\) = 5 <\d+µs>$/);
});

test('trace: a caller that is gone when its call is answered is shown as such', async (t) => {
  const binary = compiled(t, 'waits');
  if (binary === undefined) return;
  const { stderr } = await stubRun(['--trace', binary, 'killed']);
  assert.match(stderr, /^ioctl\(.*\) = 3 <\d+µs> \(its caller had ended\)$/m);
});
