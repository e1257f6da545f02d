/** Registration: who waits for whom, and which nodes there are. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { IommuDevice } from '../iommu/domain.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { VfioPair } from '../testing/vfio-pair.ts';
import { closeDevice, openNode } from './device.ts';
import { getRegistration, hasNode, matchesName, unregister } from './registration.ts';
import { Vfio } from './vfio.ts';

test('register: EINVAL without IOMMU group, and behind an IOMMU that is not coherent', () => {
  const alone = new IommuDevice({ name: 'a', ops: bareIommu() });
  assert.throws(() => new Vfio().register(alone, {}), { code: 'EINVAL' });
  const ops = { ...bareIommu(), capable: () => false };
  assert.throws(() => new VfioPair({ ops }), { code: 'EINVAL', message: /coherent/ });
});

test('unregister waits for open files, asks the users to go, and opens nothing any more', () => {
  const asked: string[] = [];
  const pair = new VfioPair({
    vfioOps: {
      request: ({ iommu }) => {
        asked.push(iommu.name);
      },
    },
  });
  const open = openNode(pair.a);
  let done = false;
  unregister(pair.a, () => {
    done = true;
  });
  assert.deepEqual([done, asked, hasNode(pair.a)], [false, ['a'], false]);
  assert.throws(
    () => {
      getRegistration(pair.a);
    },
    { code: 'ENODEV' },
  );
  closeDevice(open);
  assert.equal(done, true);
});

test('without the rule unbind-waits-for-users the driver has its device back at once', () => {
  const pair = new VfioPair({ rulesOff: ['unbind-waits-for-users'] });
  const open = openNode(pair.a);
  let done = 0;
  unregister(pair.a, () => {
    done++;
  });
  assert.equal(done, 1);
  closeDevice(open);
  assert.equal(done, 1, 'and not a second time');
});

test('the last device takes the VFIO group along, with its reference to the IOMMU group', () => {
  const pair = new VfioPair();
  const { references } = pair.group;
  unregister(pair.a, () => undefined);
  assert.equal(pair.vfio.group('0'), pair.b.group);
  unregister(pair.b, () => undefined);
  assert.equal(pair.vfio.group('0'), undefined);
  assert.equal(pair.group.references, references - 1);
});

test('a free index is used again', () => {
  const pair = new VfioPair();
  unregister(pair.a, () => undefined);
  assert.equal(pair.vfio.register(pair.a.iommu, {}).index, 0);
});

test('profile singleton: no node in company, unless one-device-per-group is off', () => {
  assert.equal(hasNode(new VfioPair({ profile: 'singleton' }).a), false);
  const off = new VfioPair({ profile: 'singleton', rulesOff: ['one-device-per-group'] });
  assert.equal(hasNode(off.a), true);
  assert.equal(hasNode(new VfioPair().a), true);
});

test('a device is named by its name, or as its driver says', () => {
  const plain = new VfioPair();
  assert.deepEqual([matchesName(plain.a, 'a'), matchesName(plain.a, 'b')], [true, false]);
  const own = new VfioPair({ vfioOps: { match: (_device, name) => name === 'uuid' } });
  assert.deepEqual([matchesName(own.a, 'a'), matchesName(own.a, 'uuid')], [false, true]);
});
