/** The parts of an exploration: what expanding reports, and which states are kept. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import type { Action } from './actions.ts';
import { worldOf } from './exploration.ts';
import { Expander, Frontier } from './explorer.ts';
import { BUILT_IN_MACHINES, DEFAULT_BOUNDS } from './model.ts';

function expander(): { readonly expander: Expander; readonly start: Uint32Array } {
  const [machine] = BUILT_IN_MACHINES;
  assert.ok(machine);
  const task = { machine, profile: 'linux', bounds: DEFAULT_BOUNDS, rulesOff: [] } as const;
  return { expander: new Expander(worldOf(task)), start: worldOf(task).start().slice() };
}

/** Expands the first state with one action instead of those of the world. */
function expandWith(run: Action['run']): string | undefined {
  const { expander: with1, start } = expander();
  const actions = with1.actions as Action[];
  actions.length = 0;
  actions.push({ text: 'it happens', can: () => true, run });
  return with1.expand(start).failure?.what;
}

test('a refusal that leaves a trace is reported', () => {
  const what = expandWith((world) => {
    const [device] = world.devices;
    assert.ok(device);
    device.kernelDriver = 'nvme';
    throw new Errno('EBUSY', 'no');
  });
  assert.equal(what, 'it happens: refused (no), and yet the state has changed');
});

test('anything thrown that is not an Errno is reported', () => {
  const what = expandWith(() => {
    throw new Error('a bug');
  });
  assert.equal(what, 'it happens: Error: a bug');
});

test('a refusal without trace is no failure and no successor', () => {
  const { expander: with1, start } = expander();
  const actions = with1.actions as Action[];
  actions.length = 0;
  actions.push({
    text: 'it is refused',
    can: () => true,
    run: () => {
      throw new Errno('EPERM', 'no');
    },
  });
  const { successors, failure, steps } = with1.expand(start);
  assert.deepEqual([successors.length, failure, steps], [0, undefined, 1]);
});

test('an action does not see what the one before it did', () => {
  const { expander: with1, start } = expander();
  const { words } = with1.world.packing;
  const { successors, origins } = with1.expand(start);
  const alone = new Set<string>();
  for (const action of with1.actions) {
    with1.world.load(start, 0);
    if (!action.can(with1.world)) continue;
    action.run(with1.world);
    alone.add(with1.world.save().join(' '));
  }
  const together = new Set<string>();
  for (let i = 0; i < origins.length; i++) {
    together.add(successors.slice(i * words, (i + 1) * words).join(' '));
  }
  assert.deepEqual(together, alone);
});

test('a frontier keeps each state once, hands all out in order, and knows the way to each', () => {
  const frontier = new Frontier(2);
  frontier.add(Uint32Array.of(1, 2), 0, 0);
  frontier.add(Uint32Array.of(0, 3, 4), 1, 0);
  frontier.add(Uint32Array.of(1, 2), 0, 1);
  frontier.add(Uint32Array.of(5, 6), 0, 1);
  assert.equal(frontier.count, 3);
  assert.deepEqual(frontier.take(2), { first: 0, states: Uint32Array.of(1, 2, 3, 4) });
  assert.deepEqual(frontier.take(2), { first: 2, states: Uint32Array.of(5, 6) });
  assert.equal(frontier.take(2), undefined);
  assert.deepEqual(frontier.path(2), [
    Uint32Array.of(1, 2),
    Uint32Array.of(3, 4),
    Uint32Array.of(5, 6),
  ]);
});

test('a frontier that grows forgets nothing', () => {
  const frontier = new Frontier(1);
  for (const round of [0, 1]) {
    for (let i = 0; i < 50_000; i++) frontier.add(Uint32Array.of(i * 7), 0, 0);
    assert.equal(frontier.count, 50_000, `round ${round}`);
  }
});
