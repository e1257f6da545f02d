/** Hostile clients, as far as a test has time for: npm run hostile makes a million calls. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Hostile } from '../../src/testing/hostile.ts';
import { Lab } from '../../src/testing/lab.ts';

const CALLS = 1500;
/** kinds of calls that have to succeed, or the clients are not hostile but blind */
const KINDS = 20;

for (const seed of [1, 2, 3]) {
  test(`hostile clients get nothing but errnos and break no rule, seed ${seed}`, () => {
    const lab = new Lab();
    const hostile = new Hostile(lab, seed);
    for (let i = 0; i < CALLS; i++) {
      hostile.step();
      lab.check();
    }
    hostile.end();
    lab.end();
    const succeeded = [...hostile.outcomes.keys()].filter((outcome) => outcome.endsWith(': ok'));
    assert.ok(succeeded.length > KINDS, `only ${succeeded.join(', ')} succeeded`);
  });
}
