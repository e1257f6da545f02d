/**
 * Sweep: every failure point of a call fails in turn. A step is tried with the first point failing, then the second, and so
 * on until it passes; after each failure everything must be as it was before (snapshot), and the invariants must hold.
 *
 * After the TEST_FAIL_NTH of tools/testing/selftests/iommu/iommufd_fail_nth.c, which looks for leaks alone.
 */
import assert from 'node:assert/strict';
import { Errno } from '../base/errno.ts';
import type { Lab } from './lab.ts';
import { snapshot } from './snapshot.ts';

// No call passes more points than this; a sweep that goes on is a loop.
const MAX_POINTS = 500;

export class Sweep {
  readonly #lab: Lab;
  /** points that were made to fail, in the order in which they were met */
  readonly failed: string[] = [];

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  /**
   * @param act one call of the engine. A refusal that it swallows ends the sweep of the step: the call has taken effect.
   * @returns what `act` returns when nothing fails any more
   */
  step<T>(name: string, act: () => T): T {
    const { faults } = this.#lab;
    const before = snapshot(this.#lab);
    for (let nth = 1; nth < MAX_POINTS; nth++) {
      faults.arm(nth);
      try {
        const result = act();
        if (faults.fired !== undefined) this.failed.push(faults.fired);
        faults.arm(0);
        this.#lab.check();
        return result;
      } catch (error) {
        if (!(error instanceof Errno) || faults.fired === undefined) throw error;
        const point = faults.fired;
        faults.arm(0);
        this.failed.push(point);
        assert.deepEqual(
          snapshot(this.#lab),
          before,
          `${name} leaves traces when "${point}" fails`,
        );
        this.#lab.check();
      }
    }
    throw new Error(`${name} has more than ${MAX_POINTS} failure points`);
  }
}
