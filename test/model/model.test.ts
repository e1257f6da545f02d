/**
 * Random sequences of calls on the engine and on a plain model find no difference. UIOMMU_MODEL_RUNS sets how many (npm run
 * model makes 10,000).
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ExtentTable } from '../../src/iommu/page-table.ts';
import { Pages } from '../../src/pinning/pages.ts';
import { Reservations } from '../../src/iommufd/reservations.ts';
import { prepare, sequences, situations, type ModelCommand } from './commands.ts';
import { World } from './world.ts';

const RUNS = Number(process.env['UIOMMU_MODEL_RUNS'] ?? '300');

function modelProperty(): fc.IProperty<[number, ModelCommand[]]> {
  return fc.property(situations, sequences, (situation, sequence) => {
    const world = new World();
    prepare(world, situation);
    for (const command of sequence) command.run(world);
    world.end();
  });
}

test('the engine answers, and then is, as the plain model says', () => {
  assert.ok(RUNS > 0);
  fc.assert(modelProperty(), { numRuns: RUNS });
});

type Method = (this: unknown, ...given: unknown[]) => unknown;

/**
 * Puts a bug in on purpose, has it found, and takes it out again.
 * @param instead makes the wrong method from the right one
 * @returns the steps that are left of the sequence that shows the bug
 */
function stepsThatShow(
  prototype: object,
  name: string,
  instead: (right: Method) => Method,
): string[] {
  const right = Reflect.get(prototype, name) as Method;
  Reflect.set(prototype, name, instead(right));
  try {
    const result = fc.check(modelProperty(), { numRuns: 500, seed: 1 });
    assert.ok(result.failed, 'the planted bug is found');
    return (result.counterexample?.[1] ?? []).map(String);
  } finally {
    Reflect.set(prototype, name, right);
  }
}

test('a page table that keeps some of what is unmapped is found, and shown in a few steps', () => {
  const steps = stepsThatShow(ExtentTable.prototype, 'unmap', (right) => {
    return function (this: unknown, ...given) {
      const [span] = given as [{ readonly firstPage: number }];
      return span.firstPage % 2 === 0 ? right.apply(this, given) : undefined;
    };
  });
  assert.ok(steps.length <= 5, steps.join('\n'));
});

test('an area that can be mapped over a reservation is found, and shown in a few steps', () => {
  const steps = stepsThatShow(Reservations.prototype, 'firstOverlap', () => () => undefined);
  assert.ok(steps.length <= 5, steps.join('\n'));
});

test('pages that stay pinned when one of several areas goes are found, and shown in a few steps', () => {
  const steps = stepsThatShow(Pages.prototype, 'release', (right) => {
    return function (this: unknown, ...given) {
      return this instanceof Pages && this.users === 1 ? right.apply(this, given) : undefined;
    };
  });
  assert.ok(steps.length <= 7, steps.join('\n'));
});
