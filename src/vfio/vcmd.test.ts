import assert from 'node:assert/strict';
import test from 'node:test';
import { answerAtOnce } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import type { OpenFile, Task } from '../base/task.ts';
import type { CallRecord } from '../base/trace.ts';
import { ClientFile, InProcessClient } from '../client/in-process.ts';
import { OwnershipLab } from '../testing/ownership-lab.ts';
import { describe } from '../uapi/describe.ts';
import { VFIO_IOCTLS } from '../uapi/vfio-ioctls.ts';
import * as uapi from '../uapi/vfio.ts';
import { ContainerFile } from './container-file.ts';

/** What one call leaves for the trace. */
function trace(
  client: InProcessClient,
  file: OpenFile,
  command: number,
  argument: bigint,
): { readonly record: CallRecord; readonly refusal: string } {
  const record: CallRecord = {};
  const { memory, limits } = client;
  const task: Task = {
    pid: 1,
    tid: 1,
    uid: 0,
    memory,
    limits,
    record,
    tableIsFull: false,
    capable: () => true,
    file: (fd) => client.file(fd),
    fileMemory: (fd) => client.fileMemory(fd),
    eventfd: (fd) => client.eventfd(fd),
    answerLater: answerAtOnce,
    install: (made) => client.install(made),
  };
  try {
    file.ioctl?.(task, command, argument);
    return { record, refusal: '' };
  } catch (error) {
    assert.ok(error instanceof Errno, String(error));
    return { record, refusal: `${error.code}: ${error.message}` };
  }
}

function shown({ struct, input }: CallRecord): unknown {
  assert.ok(struct !== undefined && input !== undefined);
  const whole = new Uint8Array(struct.size);
  whole.set(input);
  return describe(struct, struct.decode(whole));
}

test('a container: calls are named, plain values are shown by name, also where they are refused', () => {
  const client = new InProcessClient();
  const container = new ContainerFile();
  const check = trace(client, container, uapi.VFIO_CHECK_EXTENSION, 3n);
  assert.equal(check.record.call, 'VFIO_CHECK_EXTENSION');
  assert.deepEqual(shown(check.record), { extension: 'TYPE1v2_IOMMU' });
  const set = trace(client, container, uapi.VFIO_SET_IOMMU, 99n);
  assert.deepEqual(shown(set.record), { extension: '0x63' });
  assert.match(set.refusal, /^EINVAL/);
  const version = trace(client, container, uapi.VFIO_GET_API_VERSION, 5n);
  assert.deepEqual(
    [version.record.call, version.record.input],
    ['VFIO_GET_API_VERSION', undefined],
  );
  assert.equal(
    trace(client, container, uapi.VFIO_IOMMU_MAP_DMA, 0n).record.call,
    'VFIO_IOMMU_MAP_DMA',
  );
  assert.equal(trace(client, container, 0x1234, 0n).record.call, undefined);
});

test('a group and a device: what one number means depends on the file', () => {
  const lab = new OwnershipLab();
  lab.bind('A', 'vfio-pci');
  const client = new InProcessClient();
  const group = lab.openGroup('A');
  const container = client.install(new ContainerFile());
  const address = client.allocate(1);
  client.write(address, new Uint8Array(new Int32Array([container]).buffer));
  const joined = trace(client, group, uapi.VFIO_GROUP_SET_CONTAINER, address);
  assert.deepEqual([joined.refusal, shown(joined.record)], ['', { container }]);
  client.write(address, new TextEncoder().encode('0000:ff:00.0\0'));
  const absent = trace(client, group, uapi.VFIO_GROUP_GET_DEVICE_FD, address);
  assert.equal(absent.record.call, 'VFIO_GROUP_GET_DEVICE_FD');
  assert.deepEqual(shown(absent.record), { name: '0000:ff:00.0' });
  assert.match(absent.refusal, /^ENODEV/);
  const asDevice = trace(client, group, uapi.VFIO_DEVICE_RESET, 0n);
  assert.deepEqual(
    [asDevice.record.call, asDevice.refusal],
    [undefined, 'ENOTTY: 0x3b6f is not an ioctl of a group file'],
  );
});

test('VFIO calls by name, in process', () => {
  const lab = new OwnershipLab();
  lab.bind('A', 'vfio-pci');
  const client = new InProcessClient();
  const group = new ClientFile(client, client.install(lab.openGroup('A')));
  const container = new ClientFile(client, client.install(new ContainerFile()));
  assert.equal(group.ioctl('VFIO_GROUP_GET_STATUS').flags, uapi.VFIO_GROUP_FLAGS_VIABLE);
  group.ioctl('VFIO_GROUP_SET_CONTAINER', { container: container.fd });
  const type = BigInt(uapi.VFIO_TYPE1v2_IOMMU);
  assert.equal(container.ioctl('VFIO_CHECK_EXTENSION', { extension: type }).result, 1);
  container.ioctl('VFIO_SET_IOMMU', { extension: type });
  const { result } = group.ioctl('VFIO_GROUP_GET_DEVICE_FD', { name: lab.name('A') });
  const device = new ClientFile(client, result);
  assert.notEqual(device.ioctl('VFIO_DEVICE_GET_INFO').flags & uapi.VFIO_DEVICE_FLAGS_PCI, 0);
  device.close();
  group.ioctl('VFIO_GROUP_UNSET_CONTAINER');
});

// Last required fields of drivers/vfio, in bytes (offsetofend).
const SMALLEST = {
  VFIO_GROUP_GET_STATUS: 8,
  VFIO_DEVICE_GET_INFO: 16,
  VFIO_DEVICE_GET_REGION_INFO: 32,
  VFIO_DEVICE_GET_IRQ_INFO: 16,
  VFIO_DEVICE_SET_IRQS: 20,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: 12,
  VFIO_DEVICE_PCI_HOT_RESET: 12,
  VFIO_DEVICE_IOEVENTFD: 28,
  VFIO_DEVICE_FEATURE: 8,
  VFIO_DEVICE_BIND_IOMMUFD: 16,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 12,
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 8,
  VFIO_IOMMU_GET_INFO: 16,
  VFIO_IOMMU_MAP_DMA: 32,
  VFIO_IOMMU_UNMAP_DMA: 24,
  VFIO_IOMMU_DIRTY_PAGES: 8,
  VFIO_MIG_GET_PRECOPY_INFO: 24,
};

test('VFIO_IOCTLS has the smallest size of every ioctl with a struct', () => {
  const rows = Object.entries(VFIO_IOCTLS)
    .filter(([name]) => name in SMALLEST)
    .map(([name, { minSize }]) => [name, minSize]);
  assert.deepEqual(Object.fromEntries(rows), SMALLEST);
});
