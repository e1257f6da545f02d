/** GroupBuilder: numbers, members and reasons while devices come and go. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { GroupBuilder } from './group-builder.ts';
import { loadMachine } from './load-machine.ts';
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';

const FOUR = `devices:
  - { address: "00:01.0", type: rc-endpoint }
  - { address: "00:02.0", type: rc-endpoint }
  - { address: "00:03.0", type: rc-endpoint }
  - { address: "00:04.0", type: root-port, acs: none, secondary: "01" }
  - { address: "01:00.0" }
`;

function device(machine: Machine, name: string): PciDevice {
  const found = machine.get(`0000:${name}`);
  assert.ok(found);
  return found;
}

/** Groups every device of `machine`, and each that comes later, until it goes: as a booted machine does. */
function follow(builder: GroupBuilder, machine: Machine): void {
  const add = (one: PciDevice): void => {
    if (machine.iommuOf(one) !== undefined) builder.add(one);
  };
  for (const one of machine.devices) add(one);
  machine.subscribe({
    added: add,
    removed: (one) => {
      builder.remove(one);
    },
  });
}

function followed(): { machine: Machine; builder: GroupBuilder } {
  const machine = loadMachine(FOUR, 'test');
  const builder = new GroupBuilder();
  follow(builder, machine);
  return { machine, builder };
}

test('GroupBuilder.add: numbers are given from 0, in the order of devices', () => {
  const { builder } = followed();
  assert.deepEqual(
    builder.groups.map(({ id, members }) => [id, members.map(({ name }) => name)]),
    [
      [0, ['0000:00:01.0']],
      [1, ['0000:00:02.0']],
      [2, ['0000:00:03.0']],
      [3, ['0000:00:04.0', '0000:01:00.0']],
    ],
  );
});

test('GroupBuilder.remove: the lowest free number is given again', () => {
  const { machine, builder } = followed();
  machine.remove('0000:00:02.0');
  machine.remove('0000:00:01.0');
  assert.deepEqual(
    builder.groups.map(({ id }) => id),
    [2, 3],
  );
  machine.rescan();
  assert.equal(builder.groupOf(device(machine, '00:01.0'))?.id, 0);
  assert.equal(builder.groupOf(device(machine, '00:02.0'))?.id, 1);
});

test('GroupBuilder.remove: a bridge that goes takes what is behind it along', () => {
  const { machine, builder } = followed();
  machine.unplug('0000:00:04.0');
  assert.deepEqual(
    builder.groups.map(({ id }) => id),
    [0, 1, 2],
  );
  assert.deepEqual(machine.rescan(), []);
});

test('GroupBuilder.remove: a group that something else refers to keeps its number', () => {
  const { machine, builder } = followed();
  const group = builder.groupOf(device(machine, '00:01.0'));
  assert.ok(group);
  group.iommu.ref();
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(builder.groupOf(device(machine, '00:01.0'))?.id, 4);
  group.iommu.put();
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(builder.groupOf(device(machine, '00:01.0'))?.id, 0);
});

test('GroupBuilder.mergeOf: rule, partner and culprit of a merge; none for who made the group', () => {
  const { machine, builder } = followed();
  const merge = builder.mergeOf(device(machine, '01:00.0'));
  assert.equal(merge?.rule, 'upstream-acs');
  assert.equal(merge.with.name, '0000:00:04.0');
  assert.deepEqual(
    merge.culprits.map((culprit) => culprit.device.name),
    ['0000:00:04.0'],
  );
  assert.equal(builder.mergeOf(device(machine, '00:04.0')), undefined);
});

test('GroupBuilder.add: virtual functions get their groups when they are switched on', () => {
  const machine = loadMachine(
    `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", sriov: { total: 4 } }
  - { address: "00:02.0", type: rc-endpoint, iommu: none }
`,
    'test',
  );
  const builder = new GroupBuilder();
  follow(builder, machine);
  machine.setVirtualFunctions('0000:01:00.0', 2);
  assert.deepEqual(
    builder.groups.map(({ members }) => members.map(({ name }) => name)),
    [['0000:00:01.0'], ['0000:01:00.0'], ['0000:01:00.1'], ['0000:01:00.2']],
  );
  machine.setVirtualFunctions('0000:01:00.0', 0);
  assert.deepEqual(
    builder.groups.map(({ id }) => id),
    [0, 1],
  );
  assert.equal(builder.groupOf(device(machine, '00:02.0')), undefined);
});
