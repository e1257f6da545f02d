/** GroupFormer: numbers, members and reasons while devices come and go. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { GroupFormer } from './group-former.ts';
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

function followed(): { machine: Machine; former: GroupFormer } {
  const machine = loadMachine(FOUR, 'test');
  const former = new GroupFormer();
  former.follow(machine);
  return { machine, former };
}

test('GroupFormer.add: numbers are given from 0, in the order of devices', () => {
  const { former } = followed();
  assert.deepEqual(
    former.groups.map(({ id, members }) => [id, members.map(({ name }) => name)]),
    [
      [0, ['0000:00:01.0']],
      [1, ['0000:00:02.0']],
      [2, ['0000:00:03.0']],
      [3, ['0000:00:04.0', '0000:01:00.0']],
    ],
  );
});

test('GroupFormer.remove: the lowest free number is given again', () => {
  const { machine, former } = followed();
  machine.remove('0000:00:02.0');
  machine.remove('0000:00:01.0');
  assert.deepEqual(
    former.groups.map(({ id }) => id),
    [2, 3],
  );
  machine.rescan();
  assert.equal(former.groupOf(device(machine, '00:01.0'))?.id, 0);
  assert.equal(former.groupOf(device(machine, '00:02.0'))?.id, 1);
});

test('GroupFormer.remove: a bridge that goes takes what is behind it along', () => {
  const { machine, former } = followed();
  machine.unplug('0000:00:04.0');
  assert.deepEqual(
    former.groups.map(({ id }) => id),
    [0, 1, 2],
  );
  assert.deepEqual(machine.rescan(), []);
});

test('GroupFormer.hold: a held number stays taken although its members went', () => {
  const { machine, former } = followed();
  const group = former.groupOf(device(machine, '00:01.0'));
  assert.ok(group);
  former.hold(group);
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(former.groupOf(device(machine, '00:01.0'))?.id, 4);
  former.release(group);
  machine.remove('0000:00:01.0');
  machine.rescan();
  assert.equal(former.groupOf(device(machine, '00:01.0'))?.id, 0);
});

test('GroupFormer.mergeOf: rule, partner and culprit of a merge; none for who made the group', () => {
  const { machine, former } = followed();
  const merge = former.mergeOf(device(machine, '01:00.0'));
  assert.equal(merge?.rule, 'upstream-acs');
  assert.equal(merge.with.name, '0000:00:04.0');
  assert.deepEqual(
    merge.culprits.map((culprit) => culprit.device.name),
    ['0000:00:04.0'],
  );
  assert.equal(former.mergeOf(device(machine, '00:04.0')), undefined);
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
  const former = new GroupFormer();
  former.follow(machine);
  machine.setVirtualFunctions('0000:01:00.0', 2);
  assert.deepEqual(
    former.groups.map(({ members }) => members.map(({ name }) => name)),
    [['0000:00:01.0'], ['0000:01:00.0'], ['0000:01:00.1'], ['0000:01:00.2']],
  );
  machine.setVirtualFunctions('0000:01:00.0', 0);
  assert.deepEqual(
    former.groups.map(({ id }) => id),
    [0, 1],
  );
  assert.equal(former.groupOf(device(machine, '00:02.0')), undefined);
});
