/** Containers: claims, SET_IOMMU, and the last group that leaves. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { VfioPair } from '../testing/vfio-pair.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import { checkExtension, joinContainer, leaveContainer, setIommu } from './container.ts';
import { newContainer } from './state.ts';

test('SET_IOMMU: EINVAL without group and for a second time, ENODEV for a type that no driver has', () => {
  const container = newContainer();
  const set = (type: number): void => {
    setIommu(container, type);
  };
  assert.throws(
    () => {
      set(VFIO_TYPE1v2_IOMMU);
    },
    { code: 'EINVAL' },
  );
  joinContainer(container, new VfioPair().a.group);
  assert.throws(
    () => {
      set(99);
    },
    { code: 'ENODEV' },
  );
  set(VFIO_TYPE1v2_IOMMU);
  assert.throws(
    () => {
      set(VFIO_TYPE1v2_IOMMU);
    },
    { code: 'EINVAL' },
  );
});

test('a second container is refused EPERM', () => {
  const { group } = new VfioPair().a;
  joinContainer(newContainer(), group);
  assert.throws(
    () => {
      joinContainer(newContainer(), group);
    },
    { code: 'EPERM', message: /the container of group 0/ },
  );
});

test('a group that cannot be attached is not claimed', () => {
  let failing = false;
  const ops = bareIommu({
    beforeCall: (call) => {
      if (failing && call.startsWith('allocate')) throw new Errno('ENOMEM', 'injected');
    },
  });
  const container = newContainer();
  joinContainer(container, new VfioPair().a.group);
  setIommu(container, VFIO_TYPE1v2_IOMMU);
  const pair = new VfioPair({ ops });
  failing = true;
  assert.throws(
    () => {
      joinContainer(container, pair.a.group);
    },
    { code: 'ENOMEM' },
  );
  assert.deepEqual([pair.group.owner, pair.group.ownerCount], [undefined, 0]);
  assert.equal(container.groups.length, 1);
});

test('a group that joins is claimed and blocked; SET_IOMMU attaches it; leaving gives it back', () => {
  const pair = new VfioPair();
  const container = newContainer();
  joinContainer(container, pair.a.group);
  assert.equal(pair.group.owner, pair.a.group);
  assert.equal(pair.a.iommu.attached, pair.group.blockingDomain);
  setIommu(container, VFIO_TYPE1v2_IOMMU);
  assert.equal(pair.b.iommu.attached?.kind, 'unmanaged');
  leaveContainer(pair.a.group);
  assert.equal(pair.group.owner, undefined);
  assert.equal(pair.b.iommu.attached, pair.group.defaultDomain);
  assert.equal(container.iommu, undefined, 'the last group takes the driver along');
});

test('CHECK_EXTENSION: type 1 is there before SET_IOMMU, another number is not', () => {
  assert.equal(checkExtension(newContainer(), VFIO_TYPE1v2_IOMMU), 1);
  assert.equal(checkExtension(newContainer(), 99), 0);
});
