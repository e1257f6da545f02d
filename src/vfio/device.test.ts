/** Opening devices: what a refused or closed file leaves, and in which order driver and claim come. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { VfioPair } from '../testing/vfio-pair.ts';
import { bindNode, closeDevice, openNode, openThroughGroup, requireAccess } from './device.ts';
import { openGroup, setIommufd } from './group.ts';
import { attachPt, detachPt } from './iommufd.ts';
import type { VfioDevice, VfioDeviceOps } from './state.ts';

test('a node gives access only once it is bound (EINVAL), and is bound once (EINVAL)', () => {
  const pair = new VfioPair();
  const open = openNode(pair.a);
  assert.throws(
    () => {
      requireAccess(open);
    },
    { code: 'EINVAL' },
  );
  assert.equal(
    bindNode(open, () => pair.context('X')),
    7,
  );
  requireAccess(open);
  assert.throws(() => bindNode(open, () => pair.context('X')), { code: 'EINVAL' });
});

test('a device that one file has bound is EINVAL for another one', () => {
  const pair = new VfioPair();
  bindNode(openNode(pair.a), () => pair.context('X'));
  assert.throws(() => bindNode(openNode(pair.a), () => pair.context('X')), { code: 'EINVAL' });
});

test('BIND_IOMMUFD asks for the token, then for the context', () => {
  const asked: string[] = [];
  const pair = new VfioPair({
    vfioOps: {
      matchToken: () => {
        asked.push('token');
        throw new Errno('EACCES', 'another token');
      },
    },
  });
  const bind = (): number =>
    bindNode(openNode(pair.a), () => {
      asked.push('context');
      return pair.context('X');
    });
  assert.throws(bind, { code: 'EACCES' });
  assert.deepEqual(asked, ['token']);
});

test('a driver that cannot open the device: the claim is given back, and the file can be bound again', () => {
  let fails = true;
  const pair = new VfioPair({
    vfioOps: {
      openDevice: () => {
        if (fails) throw new Errno('EIO', 'no reset');
      },
    },
  });
  const open = openNode(pair.a);
  assert.throws(() => bindNode(open, () => pair.context('X')), { code: 'EIO' });
  assert.deepEqual(
    [pair.group.owner, pair.a.openCount, pair.a.group.cdevOpenCount, open.iommufd],
    [undefined, 0, 0, undefined],
  );
  fails = false;
  bindNode(open, () => pair.context('X'));
});

test('ownership brackets access: claimed before open_device, released after close_device', () => {
  const seen: string[] = [];
  const note =
    (what: string): ((device: VfioDevice) => void) =>
    ({ iommu }) => {
      seen.push(`${what}, owner ${String(iommu.group?.owner?.name)}`);
    };
  const vfioOps: VfioDeviceOps = { openDevice: note('open'), closeDevice: note('close') };
  const pair = new VfioPair({ vfioOps });
  const open = openNode(pair.a);
  bindNode(open, () => pair.context('X'));
  attachPt(pair.a, 1);
  closeDevice(open);
  assert.deepEqual(seen, ['open, owner X', 'close, owner X']);
  assert.equal(pair.group.owner, undefined);
  assert.equal(pair.a.iommu.attached, pair.group.defaultDomain);
});

test('attaching again replaces; detaching twice is one detach', () => {
  const pair = new VfioPair();
  bindNode(openNode(pair.a), () => pair.context('X'));
  attachPt(pair.a, 1);
  const first = pair.a.iommu.attached;
  attachPt(pair.a, 2);
  assert.notEqual(pair.a.iommu.attached, first);
  detachPt(pair.a);
  detachPt(pair.a);
  assert.equal(pair.a.iommu.attached, pair.group.blockingDomain);
});

test('through a group with an IOMMUFD the first file binds and attaches, the last one ends both', () => {
  const pair = new VfioPair();
  const { group } = pair.a;
  openGroup(group);
  setIommufd(group, pair.context('X'));
  const first = openThroughGroup(group, pair.a);
  const second = openThroughGroup(group, pair.a);
  requireAccess(second);
  assert.deepEqual([pair.a.openCount, pair.group.ownerCount, pair.a.attached], [2, 1, true]);
  closeDevice(first);
  assert.equal(pair.group.ownerCount, 1);
  closeDevice(second);
  assert.deepEqual([pair.a.openCount, pair.group.ownerCount, pair.a.users], [0, 0, 1]);
});
