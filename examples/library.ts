// The code of docs/library.md: a unit test of something that maps memory for devices.
import assert from 'node:assert/strict';
import { Errno, InProcessClient, boot, iommufd, mock, type ClientFile } from 'uiommu';

const PAGE = 4096n;

/** What is tested: gives a guest's memory to devices, and remembers where. */
class GuestMemory {
  readonly #file: ClientFile;
  readonly ioas: number;

  constructor(file: ClientFile) {
    this.#file = file;
    this.ioas = file.ioctl('IOMMU_IOAS_ALLOC').out_ioas_id;
  }

  share(address: bigint, length: bigint): bigint {
    const flags = iommufd.IOMMU_IOAS_MAP_READABLE | iommufd.IOMMU_IOAS_MAP_WRITEABLE;
    const request = { flags, ioas_id: this.ioas, user_va: address, length };
    return this.#file.ioctl('IOMMU_IOAS_MAP', request).iova;
  }

  take(iova: bigint, length: bigint): void {
    this.#file.ioctl('IOMMU_IOAS_UNMAP', { ioas_id: this.ioas, iova, length });
  }
}

// A machine, a process with some memory, and an open file.
const kernel = boot('selftest');
const client = new InProcessClient({ pid: 1234 });
const ram = client.allocate(16);
const file = client.open(kernel, '/dev/iommu');

const memory = new GuestMemory(file);

// A device of the mock driver that is attached to what the guest shares.
const { u } = file.ioctl('IOMMU_TEST_CMD', {
  op: mock.IOMMU_TEST_OP_MOCK_DOMAIN,
  id: memory.ioas,
});
const { out_stdev_id: device } = u.read('mock_domain');

const iova = memory.share(ram, 4n * PAGE);
assert.equal(iova, BigInt(mock.MOCK_APERTURE_START)); // the lowest address that this IOMMU translates
assert.equal(client.memory.pinnedPages, 4);

// A refusal is an Errno: the code is what a program sees, the message is the reason.
assert.throws(
  () => {
    memory.take(iova, PAGE);
  },
  (error) =>
    error instanceof Errno && error.code === 'ENOENT' && error.message.includes('only whole areas'),
);

memory.take(iova, 4n * PAGE);
file.ioctl('IOMMU_DESTROY', { id: device });
client.exit();
assert.deepEqual(kernel.leaks(), []);
