// The second code of docs/library.md: what a program asks of the machine, as it happens.
import assert from 'node:assert/strict';
import { InProcessClient, boot, describeCall, iommufd } from 'uiommu';

const kernel = boot('selftest');
const mapped: unknown[] = [];
const off = kernel.on('call', (event) => {
  if (event.call === 'IOMMU_IOAS_MAP') mapped.push(describeCall(event).input);
});

const client = new InProcessClient();
const file = client.open(kernel, '/dev/iommu');
const { out_ioas_id: ioas } = file.ioctl('IOMMU_IOAS_ALLOC');
file.ioctl('IOMMU_IOAS_MAP', {
  flags: iommufd.IOMMU_IOAS_MAP_READABLE,
  ioas_id: ioas,
  user_va: client.allocate(1),
  length: 4096n,
});
off();
assert.deepEqual(mapped, [
  { flags: 'READABLE', ioas_id: 1, user_va: '0x710000000000', length: '0x1000', iova: '0' },
]);
