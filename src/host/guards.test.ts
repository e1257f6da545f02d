/** Guards: each reason once, and only what is in the way. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { GroupView } from '../iommu/group-view.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { guardsOf, heldBy } from './guards.ts';
import type { Held, Holder, HolderIndex, Holders } from './holders.ts';

const A = '0000:00:1f.0';
const B = '0000:00:1f.3';

/** An index that answers what it is given, by device. */
function indexOf(answers: Readonly<Record<string, readonly Holder[]>>): HolderIndex {
  const index = {
    holdersOf: ({ name }: Held): Holders => ({ holders: answers[name] ?? [], hiddenProcesses: 0 }),
  };
  return index as unknown as HolderIndex;
}

function view(): GroupView {
  return new GroupView(
    loadMachine(
      `devices:\n  - { address: "00:1f.0", type: pci }\n  - { address: "00:1f.3", type: pci }\n`,
      'test',
    ),
  );
}

test('guardsOf: what nothing depends on is no guard, nor is a device that does not exist', () => {
  const up: Holder = { kind: 'interface-up', sentence: 'eth0 is up', vital: false };
  assert.deepEqual(guardsOf(indexOf({ [A]: [up] }), view(), [A, '0000:00:02.0']), []);
});

test('guardsOf: a group that is open is said once for all its members, a mount for the device that has it', () => {
  const open: Holder = {
    kind: 'vfio-user',
    sentence: '/dev/vfio/0 is open in x (1)',
    vital: false,
  };
  const mount: Holder = { kind: 'mount', sentence: '/dev/sda is mounted at /', vital: true };
  const found = guardsOf(indexOf({ [A]: [open], [B]: [open, mount] }), view(), [A, B]);
  assert.deepEqual(
    found.map(({ rule, sentence }) => [rule, sentence]),
    [
      ['in-use', `${A} is in use: /dev/vfio/0 is open in x (1)`],
      ['vital', `this system needs ${B}: /dev/sda is mounted at /`],
    ],
  );
});

test('heldBy: the whole group goes with a device', () => {
  const groups = view();
  const device = groups.machine.get(B);
  assert.ok(device);
  assert.deepEqual(heldBy(groups, device), { name: B, group: 0, members: [A, B] });
});
