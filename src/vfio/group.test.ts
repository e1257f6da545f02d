/** Group files: exclusion, what stands behind them, and what keeps them open. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { VfioPair } from '../testing/vfio-pair.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import { setIommu } from './container.ts';
import { bindNode, closeDevice, openNode, openThroughGroup, unbindNode } from './device.ts';
import {
  groupStatus,
  openGroup,
  putGroupFile,
  setContainer,
  setIommufd,
  unsetContainer,
} from './group.ts';
import { unregister } from './registration.ts';
import { newContainer, type VfioGroup } from './state.ts';

const refuses = (code: string, action: () => void): void => {
  assert.throws(action, { code });
};

/** The group of a pair in a container with SET_IOMMU. */
function inContainer(pair: VfioPair): VfioGroup {
  const { group } = pair.a;
  const container = newContainer();
  openGroup(group);
  setContainer(group, container);
  setIommu(container, VFIO_TYPE1v2_IOMMU);
  return group;
}

test('open: EBUSY a second time, and while a device is bound by its node', () => {
  const pair = new VfioPair();
  const { group } = pair.a;
  const node = openNode(pair.a);
  bindNode(node, () => pair.context('X'));
  assert.throws(() => openGroup(group), { code: 'EBUSY', message: /a \(vfio0\) of group 0/ });
  unbindNode(node);
  openGroup(group);
  refuses('EBUSY', () => void openGroup(group));
});

test('a node is not bound while the group file is open (EBUSY), whoever opened it', () => {
  const pair = new VfioPair();
  openGroup(pair.a.group);
  const node = openNode(pair.b);
  refuses('EBUSY', () => void bindNode(node, () => pair.context('X')));
  assert.equal(pair.a.group.cdevOpenCount, 0);
});

test('without the rule paths-exclude file and node go together, in either order', () => {
  const pair = new VfioPair({ rulesOff: ['paths-exclude'] });
  const node = openNode(pair.a);
  bindNode(node, () => pair.context('X'));
  const file = openGroup(pair.a.group);
  unbindNode(node);
  bindNode(node, () => pair.context('X'));
  putGroupFile(file);
});

test('a second container is EINVAL, and so is unsetting none', () => {
  const pair = new VfioPair();
  const { group } = pair.a;
  openGroup(group);
  refuses('EINVAL', () => {
    unsetContainer(group);
  });
  setContainer(group, newContainer());
  refuses('EINVAL', () => {
    setContainer(group, newContainer());
  });
  refuses('EINVAL', () => {
    setIommufd(group, pair.context('X'));
  });
});

test('a device is not opened without container, nor before SET_IOMMU (EINVAL); it leaves no trace', () => {
  const pair = new VfioPair();
  const { group } = pair.a;
  openGroup(group);
  refuses('EINVAL', () => void openThroughGroup(group, pair.a));
  setContainer(group, newContainer());
  refuses('EINVAL', () => void openThroughGroup(group, pair.a));
  assert.deepEqual([pair.a.users, pair.a.openCount, group.containerUsers], [1, 0, 1]);
});

test('a container is not unset while a device is open through it (EBUSY)', () => {
  const pair = new VfioPair();
  const group = inContainer(pair);
  const open = openThroughGroup(group, pair.a);
  refuses('EBUSY', () => {
    unsetContainer(group);
  });
  closeDevice(open);
  unsetContainer(group);
  assert.equal(pair.group.owner, undefined);
});

test('a group file outlives its descriptor while a device is open through a container', () => {
  const pair = new VfioPair();
  const group = inContainer(pair);
  const open = openThroughGroup(group, pair.a);
  const second = openThroughGroup(group, pair.a);
  assert.ok(group.opened);
  putGroupFile(group.opened);
  closeDevice(open);
  assert.equal(pair.group.owner, group, 'the second file still is open');
  closeDevice(second);
  assert.deepEqual(
    [group.opened, group.container, pair.group.owner],
    [undefined, undefined, undefined],
  );
});

test('an IOMMUFD is held by the group file, and given back with it', () => {
  const pair = new VfioPair();
  const uses = { count: 0 };
  const file = openGroup(pair.a.group);
  setIommufd(pair.a.group, pair.context('X', uses));
  assert.equal(uses.count, 1);
  putGroupFile(file);
  assert.deepEqual([uses.count, pair.a.group.iommufd], [0, undefined]);
});

test('VIABLE: while nobody claims the group, or its own container does', () => {
  const pair = new VfioPair();
  const { group } = pair.a;
  assert.deepEqual(groupStatus(group), { viable: true, containerSet: false });
  inContainer(pair);
  assert.deepEqual(groupStatus(group), { viable: true, containerSet: true });
});

test('the file of a group without devices is dead: ENODEV, and its container is free', () => {
  const pair = new VfioPair();
  const group = inContainer(pair);
  for (const device of [pair.a, pair.b]) unregister(device, () => undefined);
  assert.equal(pair.group.owner, undefined);
  refuses('ENODEV', () => void groupStatus(group));
  refuses('ENODEV', () => {
    setContainer(group, newContainer());
  });
  refuses('ENODEV', () => void openGroup(group));
});
