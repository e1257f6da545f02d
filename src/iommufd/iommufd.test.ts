/** The engine in process: a first walk through the objects, and what must be gone afterwards. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Faults } from '../base/faults.ts';
import { GroupTable } from '../iommu/group.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { FakeClient, SparseBacking } from '../testing/fake-client.ts';
import { IOMMUFD_IOCTLS as ioctl } from '../uapi/ioctls.ts';
import * as uapi from '../uapi/iommufd.ts';
import * as mock from '../uapi/iommufd-test.ts';
import { Iommufd } from './iommufd.ts';

const BUFFER = 0x2000_0000_0000n;
const READ_WRITE = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;

function setUp(): { iommufd: Iommufd; client: FakeClient; fd: number } {
  const iommufd = new Iommufd({
    physical: new PhysicalMemory(),
    groups: new GroupTable(),
    faults: new Faults(),
    mock: true,
  });
  const client = new FakeClient();
  client.memory.map(BUFFER, { backing: new SparseBacking('buffer'), page: 0, count: 1024 });
  return { iommufd, client, fd: client.install(iommufd.open(client)) };
}

function testCmd(client: FakeClient, fd: number, op: number, id: number): mock.iommu_test_cmd {
  return client.call(fd, ioctl.IOMMU_TEST_CMD, { op, id });
}

test('a mapping is shown to a device that is attached afterwards, and nothing is left in the end', () => {
  const { iommufd, client, fd } = setUp();
  const { out_ioas_id: ioas } = client.call(fd, ioctl.IOMMU_IOAS_ALLOC, {});
  const { iova } = client.call(fd, ioctl.IOMMU_IOAS_MAP, {
    flags: READ_WRITE,
    ioas_id: ioas,
    user_va: BUFFER,
    length: 0x3000n,
    iova: 0n,
  });
  assert.throws(() => testCmd(client, fd, mock.IOMMU_TEST_OP_MOCK_DOMAIN, ioas), {
    code: 'EADDRINUSE',
  });
  client.call(fd, ioctl.IOMMU_IOAS_UNMAP, { ioas_id: ioas, iova, length: 0x3000n });
  const { u } = testCmd(client, fd, mock.IOMMU_TEST_OP_MOCK_DOMAIN, ioas);
  const device = u.read('mock_domain');
  const mapped = client.call(fd, ioctl.IOMMU_IOAS_MAP, {
    flags: READ_WRITE,
    ioas_id: ioas,
    user_va: BUFFER,
    length: 0x3000n,
  });
  assert.equal(mapped.iova, BigInt(mock.MOCK_APERTURE_START));
  const hwpt = iommufd.contexts[0]?.objects.any(device.out_hwpt_id);
  assert.equal(hwpt?.type, 'HWPT_PAGING');
  assert.throws(() => client.call(fd, ioctl.IOMMU_DESTROY, { id: ioas }), { code: 'EBUSY' });
  client.exit();
  assert.deepEqual(iommufd.leaks(), []);
});
