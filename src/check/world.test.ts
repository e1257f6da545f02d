/** States that are put down and taken up: nothing that matters is lost. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import type { ProfileName } from '../iommu/profile.ts';
import { actionsOf, type Action } from './actions.ts';
import { worldOf } from './exploration.ts';
import { Expander, Frontier } from './explorer.ts';
import { BUILT_IN_MACHINES, DEFAULT_BOUNDS, type CheckBounds } from './model.ts';
import type { World } from './world.ts';

const ONE_USER: CheckBounds = { ...DEFAULT_BOUNDS, users: 1 };

function world(name: string, profile: ProfileName = 'linux', bounds = ONE_USER): World {
  const machine = BUILT_IN_MACHINES.find((each) => each.name === name);
  assert.ok(machine, name);
  return worldOf({ machine, profile, bounds, rulesOff: [] });
}

/** Every state, packed. */
function* statesOf(make: () => World): Generator<Uint32Array> {
  const expander = new Expander(make());
  const { words } = expander.world.packing;
  const frontier = new Frontier(words);
  frontier.add(make().start(), 0, 0);
  for (let batch = frontier.take(64); batch !== undefined; batch = frontier.take(64)) {
    const { successors, origins, failure } = expander.expand(batch.states);
    assert.equal(failure, undefined);
    for (let i = 0; i < origins.length; i++) frontier.add(successors, i * words, 0);
    for (let i = 0; i < batch.states.length; i += words) yield batch.states.slice(i, i + words);
  }
}

function rowOf(state: World): Uint8Array {
  const row = new Uint8Array(state.packing.cells.length);
  state.saveRow(row);
  return row;
}

/** What an action does to a world: its row, or the errno of a refusal; undefined for one that makes no sense. */
function outcome(action: Action, on: World): string | undefined {
  if (!action.can(on)) return undefined;
  try {
    action.run(on);
  } catch (error) {
    if (error instanceof Errno) return error.code;
    throw error;
  }
  return rowOf(on).join(' ');
}

for (const [name, profile, bounds] of [
  ['pair', 'linux', ONE_USER],
  ['pair', 'linux', { ...ONE_USER, override: true, groupFiles: false }],
  ['pair-one-id', 'subgroup', ONE_USER],
  ['pair-direct', 'singleton', ONE_USER],
] as const) {
  const kind = bounds === ONE_USER ? '' : ', driver_override as a state';
  test(`${name}, profile ${profile}${kind}: after any action a state that was put down and taken up behaves the same`, () => {
    const make = (): World => world(name, profile, bounds);
    const [lived, reloaded] = [make(), make()];
    const actions = actionsOf(lived);
    let compared = 0;
    for (const state of statesOf(make)) {
      for (const first of actions) {
        lived.load(state, 0);
        const between = outcome(first, lived);
        if (between?.includes(' ') !== true) continue;
        const row = rowOf(lived);
        for (const second of actions) {
          lived.load(state, 0);
          outcome(first, lived);
          reloaded.loadRow(row);
          assert.deepEqual(
            outcome(second, lived),
            outcome(second, reloaded),
            `${first.text}; ${second.text}`,
          );
          compared++;
        }
      }
    }
    assert.ok(compared > 1000, `${compared} pairs are too few to mean anything`);
  });
}

for (const [name, profile] of [
  ['pair-ats', 'linux'],
  ['pair-one-id', 'subgroup'],
  ['two-groups', 'linux'],
] as const) {
  test(`${name}, profile ${profile}: a state that was gone back to behaves as one that was loaded whole`, () => {
    const make = (): World => world(name, profile);
    const [gone, whole] = [make(), make()];
    const actions = actionsOf(gone);
    let compared = 0;
    // Both orders, so that each action comes after those that come before it and those that come after it.
    for (const order of [actions, [...actions].reverse()]) {
      for (const state of statesOf(make)) {
        gone.load(state, 0);
        for (const action of order) {
          whole.load(state, 0);
          assert.equal(outcome(action, gone), outcome(action, whole), action.text);
          gone.save();
          gone.reload();
          compared++;
        }
      }
    }
    assert.ok(compared > 1000, `${compared} steps are too few to mean anything`);
  });
}

test('every state is the same row after it was loaded, in a world that has seen others', () => {
  const used = world('pair-ats');
  for (const state of statesOf(() => world('pair-ats'))) {
    used.load(state, 0);
    assert.deepEqual(used.save().slice(), state);
  }
});

test('a number that no state can have is a bug, and is named', () => {
  const broken = world('pair');
  broken.start();
  const [group] = broken.groups;
  assert.ok(group);
  group.ownerCount = -1;
  assert.throws(() => broken.save(), /ownerCount is -1, which no state can have/);
});

test('users that exchange their names make the same state', () => {
  const packed = [0, 1].map((user) => {
    const state = world('pair', 'linux', { ...DEFAULT_BOUNDS, users: 2 });
    state.start();
    const name = String(state.users[user]?.name);
    for (const text of [
      'vfio-pci is bound to A',
      `${name} opens the node of A`,
      `${name} binds A to its IOMMUFD`,
      `${name} attaches A to its IOAS 1`,
    ]) {
      const action = actionsOf(state).find((each) => each.text === text);
      assert.ok(action, text);
      action.run(state);
    }
    return state.save().slice();
  });
  assert.deepEqual(packed[0], packed[1]);
});
