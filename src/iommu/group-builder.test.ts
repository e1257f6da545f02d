/** GroupFormer: numbers, members and reasons while devices come and go. */
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

function followed(): { machine: Machine; builder: GroupBuilder } {
  const machine = loadMachine(FOUR, 'test');
  const builder = new GroupBuilder();
  builder.follow(machine);
  return { machine, builder: builder };
}

test('GroupFormer.add: numbers are given from 0, in the order of devices', () => {
  const { builder: builder } = followed();
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

test('GroupFormer.remove: the lowest free number is given again', () => {
  const { machine, builder: builder } = followed();
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

test('GroupFormer.remove: a bridge that goes takes what is behind it along', () => {
  const { machine, builder: builder } = followed();
  machine.unplug('0000:00:04.0');
  assert.deepEqual(
    builder.groups.map(({ id }) => id),
    [0, 1, 2],
  );
  assert.deepEqual(machine.rescan(), []);
});

test('GroupFormer.hold: a held number stays taken although its members went', () => {
  const { machine, builder: builder } = followed();
  const group = builder.groupOf(device(machine, '00:01.0'));
  assert.ok(group);
  builder.hold(group);
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(builder.groupOf(device(machine, '00:01.0'))?.id, 4);
  builder.release(group);
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(builder.groupOf(device(machine, '00:01.0'))?.id, 0);
});

test('GroupFormer.mergeOf: rule, partner and culprit of a merge; none for who made the group', () => {
  const { machine, builder: builder } = followed();
  const merge = builder.mergeOf(device(machine, '01:00.0'));
  assert.equal(merge?.rule, 'upstream-acs');
  assert.equal(merge.with.name, '0000:00:04.0');
  assert.deepEqual(
    merge.culprits.map((culprit) => culprit.device.name),
    ['0000:00:04.0'],
  );
  assert.equal(builder.mergeOf(device(machine, '00:04.0')), undefined);
});

test('GroupFormer.follow: virtual functions get their groups when they are switched on', () => {
  const machine = loadMachine(
    `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", sriov: { total: 4 } }
  - { address: "00:02.0", type: rc-endpoint, iommu: none }
`,
    'test',
  );
  const builder = new GroupBuilder();
  builder.follow(machine);
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
