/** The state of one device and its driver, without any bus around it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { only } from '../base/transfer.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { IommuDevice } from '../iommu/domain.ts';
import { GroupTable, probeDevice } from '../iommu/group.ts';
import { claimDevice, releaseDeviceClaim } from '../iommu/ownership.ts';
import { fieldsLeft } from '../testing/fields.ts';
import {
  beginProbe,
  busDeviceFields,
  failProbe,
  hold,
  leaveBus,
  newBusDevice,
  probe,
  release,
  type BusDevice,
  type Driver,
} from './driver-state.ts';

const IDENTITY = { vendor: 0x1234, device: 1, subvendor: 0, subdevice: 0, class: 0x010802 };

function inGroup(): BusDevice {
  const iommu = new IommuDevice({ name: 'a', ops: bareIommu() });
  const groups = new GroupTable();
  probeDevice(iommu, () => groups.alloc());
  return newBusDevice('a', IDENTITY, iommu);
}

function driver(given: Partial<Driver> = {}): Driver {
  return {
    name: 'K',
    managedDma: false,
    ids: [],
    probe: () => undefined,
    remove: (_device, done) => {
      done();
    },
    ...given,
  };
}

const ignore = (): void => undefined;

test('beginProbe refuses a device that is being removed (ENODEV) and one with a driver (EBUSY)', () => {
  const a = inGroup();
  beginProbe(driver(), a);
  assert.throws(
    () => {
      beginProbe(driver(), a);
    },
    { code: 'EBUSY' },
  );
  failProbe(a);
  leaveBus(a);
  assert.throws(
    () => {
      beginProbe(driver(), a);
    },
    { code: 'ENODEV' },
  );
});

test('beginProbe refuses kernel DMA in an owned group (EBUSY); the device has no driver then', () => {
  const a = inGroup();
  claimDevice(a.iommu, { name: 'X' });
  const { refused } = probe(driver(), a, ignore);
  assert.equal(refused?.code, 'EBUSY');
  assert.deepEqual([a.driver, a.iommu.kernelDriver], [undefined, undefined]);
  releaseDeviceClaim(a.iommu);
});

test('a probe that fails gives its DMA grant back', () => {
  const a = inGroup();
  const failing = driver({
    probe: () => {
      throw new Errno('EIO', 'by order');
    },
  });
  assert.equal(probe(failing, a, ignore).failed?.code, 'EIO');
  assert.deepEqual([a.driver, a.bound, a.iommu.requireGroup().ownerCount], [undefined, false, 0]);
});

test('a driver that leaves later keeps its DMA grant and the device until then', () => {
  const a = inGroup();
  let letGo = ignore;
  const slow = driver({
    remove: (_device, done) => {
      letGo = done;
    },
  });
  probe(slow, a, ignore);
  let released = false;
  release(a, ignore, () => {
    released = true;
  });
  let waited = false;
  hold(a, (unlock) => {
    waited = true;
    unlock();
  });
  assert.deepEqual([a.bound, a.held, released, waited], [false, true, false, false]);
  assert.equal(a.iommu.requireGroup().ownerCount, 1);
  letGo();
  assert.deepEqual([a.driver, a.held, released, waited], [undefined, false, true, true]);
  assert.equal(a.iommu.requireGroup().ownerCount, 0);
});

test('every field of a bus device is listed, but what it is and who waits for it', () => {
  const a = inGroup();
  const left = fieldsLeft(a, (fields) => {
    busDeviceFields(fields, { drivers: only(driver()), overrides: only('vfio-pci') });
  });
  assert.deepEqual(left, ['identity', 'iommu', 'name', 'waiting']);
});
