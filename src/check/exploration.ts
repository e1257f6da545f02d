/**
 * What the parts of an exploration tell each other: the task as plain data, so that it can be sent to a thread, and what came
 * of it.
 */
import type { OwnershipRule, ProfileName } from '../iommu/profile.ts';
import { INVARIANTS } from './invariants.ts';
import type { CheckBounds, CheckMachine } from './model.ts';
import { World } from './world.ts';

export type Task = {
  readonly machine: CheckMachine;
  readonly profile: ProfileName;
  readonly bounds: CheckBounds;
  readonly rulesOff: readonly OwnershipRule[];
};

/** A world in which nothing has happened yet. */
export function worldOf({ machine, profile, bounds, rulesOff }: Task): World {
  return new World(machine, { profile, bounds, rulesOff: new Set(rulesOff) });
}

export type Outcome = {
  readonly states: number;
  readonly expanded: number;
  readonly steps: number;
  /** bytes that the states took */
  readonly memory: number;
  /** `whole`: every state was visited; otherwise why not */
  readonly end: 'whole' | 'counterexample' | 'limit' | 'interrupted';
  readonly story: { readonly steps: readonly string[]; readonly end: string } | undefined;
};

/** The bounds in words, printed with every result. */
export function describeBounds({ machine, bounds }: Task): string {
  const { users, ioases, override, hotplug, groupFiles } = bounds;
  const parts = [
    `${machine.devices.length} devices`,
    `${users} users with ${ioases} IOAS${ioases === 1 ? '' : 'es'}, one container and one descriptor of each kind per device`,
    'a probe in two steps, all else in one',
    override
      ? 'driver_override as a state'
      : 'driver_override folded into the choice of the driver that is probed',
    hotplug ? 'hot-add and hot-remove' : 'no hot-add, no hot-remove',
    groupFiles ? 'device nodes and group files' : 'device nodes alone',
  ];
  return parts.join('; ');
}

/** How many invariants hold in every state that was visited. */
export const INVARIANT_COUNT = INVARIANTS.length;
