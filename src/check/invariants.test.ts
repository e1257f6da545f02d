/** Each invariant finds the state that it is there for. The states are made by hand: the engine does not reach them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { IommuDevice } from '../iommu/domain.ts';
import type { IommuGroup } from '../iommu/group.ts';
import type { ProfileName } from '../iommu/profile.ts';
import { actionsOf } from './actions.ts';
import { item } from './cells.ts';
import { worldOf } from './exploration.ts';
import { brokenInvariant, INVARIANTS } from './invariants.ts';
import { BUILT_IN_MACHINES, DEFAULT_BOUNDS } from './model.ts';
import type { World } from './world.ts';

/** A world after some actions, by their text. */
function after(machine: string, profile: ProfileName, texts: readonly string[]): World {
  const found = BUILT_IN_MACHINES.find(({ name }) => name === machine);
  assert.ok(found, machine);
  const world = worldOf({ machine: found, profile, bounds: DEFAULT_BOUNDS, rulesOff: [] });
  world.start();
  for (const text of texts) {
    const action = actionsOf(world).find((each) => each.text === text);
    assert.ok(action, text);
    assert.ok(action.can(world), text);
    action.run(world);
    assert.equal(brokenInvariant(world), undefined, text);
  }
  return world;
}

const group = (world: World): IommuGroup => item(world.groups, 0);
const a = (world: World): IommuDevice => item(world.devices, 0);
const b = (world: World): IommuDevice => item(world.devices, 1);

const A_BOUND = [
  'vfio-pci is bound to A',
  'user X opens the node of A',
  'user X binds A to its IOMMUFD',
];

type Case = {
  readonly machine?: string;
  readonly profile?: ProfileName;
  readonly texts: readonly string[];
  spoil(world: World): void;
};

const CASES: Readonly<Record<string, Case>> = {
  'kernel-or-user': {
    texts: ['nvme is about to be probed on A'],
    spoil: (world) => {
      group(world).owner = world.users[0];
    },
  },
  'one-owner': {
    texts: [...A_BOUND, 'vfio-pci is bound to B'],
    spoil: (world) => {
      const device = world.registered(1);
      assert.ok(device);
      device.binding = world.users[1]?.bindings[1];
    },
  },
  'own-memory-only': {
    texts: [...A_BOUND, 'user X attaches A to its IOAS 1'],
    spoil: (world) => {
      group(world).owner = world.users[1];
    },
  },
  'blocked-until-attached': {
    texts: [...A_BOUND, 'user X attaches A to its IOAS 1'],
    spoil: (world) => {
      item(group(world).subgroups, 0).pasidArray.clear();
    },
  },
  'nothing-in-reset': {
    machine: 'pair-ats',
    texts: [...A_BOUND, 'user X attaches A to its IOAS 1', 'a reset of A begins'],
    spoil: (world) => {
      a(world).attached = b(world).attached;
    },
  },
  'default-when-free': {
    texts: [],
    spoil: (world) => {
      item(group(world).subgroups, 0).domain = world.inventory.blockingDomain;
    },
  },
  'claims-end': {
    texts: A_BOUND,
    spoil: (world) => {
      group(world).ownerCount++;
    },
  },
  'one-domain': {
    texts: [],
    spoil: (world) => {
      b(world).attached = world.inventory.blockingDomain;
    },
  },
  distinguishable: {
    machine: 'pair-one-id',
    profile: 'subgroup',
    texts: [...A_BOUND, 'user X attaches A to its IOAS 1'],
    spoil: (world) => {
      // One page table for each, as if their requests could be distinguished.
      const { blockingDomain } = world.inventory;
      item(group(world).subgroups, 0).members.pop();
      const own = group(world).addSubgroup();
      own.members.push(b(world));
      own.domain = blockingDomain;
      b(world).attached = blockingDomain;
    },
  },
  'one-interface': {
    texts: A_BOUND,
    spoil: (world) => {
      const vfio = world.vfioGroup(0);
      assert.ok(vfio);
      vfio.opened = { group: vfio, references: 1 };
    },
  },
  'driver-outlives-users': {
    texts: A_BOUND.slice(0, 2),
    spoil: (world) => {
      item(world.bus, 0).driver = undefined;
    },
  },
  'mapped-one-to-one': {
    machine: 'pair-direct',
    texts: [],
    spoil: (world) => {
      for (const device of [a(world), b(world)]) device.attached = undefined;
      item(group(world).subgroups, 0).domain = undefined;
      group(world).defaultDomain = undefined;
    },
  },
  'one-bound-node': {
    machine: 'pair',
    profile: 'singleton',
    texts: ['B is removed', ...A_BOUND, 'B is plugged', 'vfio-pci is bound to B'],
    spoil: (world) => {
      const device = world.registered(1);
      assert.ok(device);
      device.binding = world.users[0]?.bindings[1];
      group(world).ownerCount++;
    },
  },
};

for (const { name } of INVARIANTS) {
  test(`${name}: a state that breaks it is found`, () => {
    const found = CASES[name];
    assert.ok(found, `no case for ${name}`);
    const world = after(found.machine ?? 'pair', found.profile ?? 'linux', found.texts);
    found.spoil(world);
    assert.equal(brokenInvariant(world)?.invariant.name, name);
  });
}
