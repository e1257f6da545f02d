/** Names below /dev/vfio, and the files behind them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { VfioPair } from '../testing/vfio-pair.ts';

test('nodes: the container, each group, each registered device; they go with what they stand for', () => {
  const { vfio, a, b } = new VfioPair();
  assert.deepEqual(vfio.nodes(), ['vfio', '0', 'devices/vfio0', 'devices/vfio1']);
  vfio.unregister(a, () => undefined);
  assert.deepEqual(vfio.nodes(), ['vfio', '0', 'devices/vfio1']);
  vfio.unregister(b, () => undefined);
  assert.deepEqual(vfio.nodes(), ['vfio']);
});

test('a name finds what has a node: no device of a group in company under profile singleton', () => {
  const { vfio, a } = new VfioPair();
  assert.equal(vfio.device('vfio0'), a);
  assert.equal(vfio.device('vfio7'), undefined);
  assert.equal(vfio.group('0'), a.group);
  const single = new VfioPair({ profile: 'singleton' });
  assert.equal(single.vfio.device('vfio0'), undefined);
  assert.equal(single.vfio.deviceOf(single.a.iommu), single.a, 'it is registered all the same');
});

test('GET_DEVICE_FD: ENODEV for a name that is not in the group; the file is named for people', () => {
  const { vfio, a, context } = withContext();
  const file = vfio.openGroup(a.group);
  file.setIommufd(context);
  assert.throws(() => file.getDevice('c'), { code: 'ENODEV', message: /"c"/ });
  const device = file.getDevice('a');
  assert.deepEqual([device.name, device.link], ['VFIO device a', 'anon_inode:[vfio-device]']);
  assert.equal(vfio.openDevice(a).name, '/dev/vfio/devices/vfio0 (a)');
  device.release();
  file.release();
  assert.equal(a.openCount, 0);
});

function withContext(): Pick<VfioPair, 'vfio' | 'a'> & {
  context: ReturnType<VfioPair['context']>;
} {
  const pair = new VfioPair();
  return { vfio: pair.vfio, a: pair.a, context: pair.context('X') };
}
