/** The checker: whole state spaces, what each rule protects from, and stopping half-way. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Task } from '../check/exploration.ts';
import { BUILT_IN_MACHINES, DEFAULT_BOUNDS, DEMONSTRATIONS } from '../check/model.ts';
import {
  OWNERSHIP_RULES,
  PROFILES,
  type OwnershipRule,
  type ProfileName,
} from '../iommu/profile.ts';
import { explore } from './explore.ts';

const WIDE = { threads: 1, maxStates: 1_000_000 } as const;

function task(machine: string, given: Partial<Omit<Task, 'machine'>> = {}): Task {
  const found = BUILT_IN_MACHINES.find(({ name }) => name === machine);
  assert.ok(found, machine);
  return { machine: found, profile: 'linux', bounds: DEFAULT_BOUNDS, rulesOff: [], ...given };
}

for (const profile of Object.keys(PROFILES) as ProfileName[]) {
  for (const machine of ['pair', 'pair-one-id']) {
    test(`${machine}, profile ${profile}: every state is visited and all invariants hold`, async () => {
      const outcome = await explore(task(machine, { profile }), WIDE);
      assert.equal(outcome.end, 'whole', JSON.stringify(outcome.story));
      assert.equal(outcome.expanded, outcome.states);
      assert.ok(outcome.states > 500, `${outcome.states} states are too few to mean anything`);
    });
  }
}

for (const profile of ['singleton', 'subgroup'] as const) {
  test(`pair-direct, profile ${profile}: a device that cannot join its group harms nobody`, async () => {
    const outcome = await explore(task('pair-direct', { profile }), WIDE);
    assert.equal(outcome.end, 'whole', JSON.stringify(outcome.story));
  });
}

test('pair-direct, profile linux: the known weakness of Linux is found, in six steps', async () => {
  const { end, story } = await explore(task('pair-direct'), WIDE);
  assert.equal(end, 'counterexample');
  assert.equal(story?.steps.length, 6);
  assert.match(story.end, /i915 does kernel DMA through A while user X owns the group/);
});

for (const rule of Object.keys(OWNERSHIP_RULES) as OwnershipRule[]) {
  test(`without the rule ${rule} there is a counterexample`, async () => {
    const { machine, profile } = DEMONSTRATIONS[rule];
    const { end, story } = await explore(task(machine, { profile, rulesOff: [rule] }), WIDE);
    assert.equal(end, 'counterexample');
    assert.ok((story?.steps.length ?? 0) > 0);
  });
}

test('threads find what one thread finds', async () => {
  const bounds = { ...DEFAULT_BOUNDS, override: true };
  const alone = await explore(task('pair', { bounds }), WIDE);
  const together = await explore(task('pair', { bounds }), { ...WIDE, threads: 2 });
  assert.deepEqual([together.end, together.states], ['whole', alone.states]);
});

test('an interrupted exploration says how far it came', async () => {
  const interrupt = new AbortController();
  const outcome = await explore(task('two-groups'), {
    ...WIDE,
    signal: interrupt.signal,
    progress: ({ expanded }) => {
      if (expanded > 2000) interrupt.abort();
    },
  });
  assert.equal(outcome.end, 'interrupted');
  assert.ok(outcome.expanded > 2000 && outcome.expanded < outcome.states);
});
