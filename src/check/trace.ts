/**
 * A counterexample as a story: what was done, step by step, and what is wrong in the end.
 *
 * The path of the exploration is one of packed states, in which users and devices may have changed names; the story finds, from
 * the true beginning, an action for each step that leads to a state which packs to the next one.
 */
import { Errno } from '../base/errno.ts';
import { actionsOf, type Action } from './actions.ts';
import { brokenInvariant } from './invariants.ts';
import type { World } from './world.ts';

export type Trace = {
  readonly steps: readonly string[];
  readonly end: string;
};

/**
 * @param make a world in its beginning; called more than once
 * @param path packed states from the beginning to the broken one
 * @param what what was found wrong, in the names of the packed state
 */
export function explain(make: () => World, path: readonly Uint32Array[], what: string): Trace {
  const chosen: Action[] = [];
  let world = replay(make, chosen);
  for (const next of path.slice(1)) {
    const action = actionsOf(world).find((each) => leadsTo(make, [...chosen, each], next));
    if (action === undefined) throw new Error('the path cannot be walked again');
    chosen.push(action);
    world = replay(make, chosen);
  }
  const end = brokenInvariant(world);
  const named = end === undefined ? what : `${end.what} (invariant ${end.invariant.name})`;
  return { steps: chosen.map(({ text }) => text), end: named };
}

function replay(make: () => World, actions: readonly Action[]): World {
  const world = make();
  world.start();
  for (const action of actions) action.run(world);
  return world;
}

function leadsTo(make: () => World, actions: readonly Action[], wanted: Uint32Array): boolean {
  const world = make();
  world.start();
  try {
    for (const action of actions) {
      if (!action.can(world)) return false;
      action.run(world);
    }
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
  return world.save().every((word, i) => word === wanted[i]);
}
