/**
 * A first program for /dev/iommu. It shows memory of its own to devices, through two address spaces, is refused once on
 * purpose, and cleans up. Nothing in it knows of uiommu: on a Linux that has /dev/iommu it does the same.
 *
 *     npm run demo
 */
import { allocatePages, CallError, Iommufd } from '../src/client/iommufd.ts';

const PAGE_SIZE = 4096;
const PAGES = 16;
const LENGTH = PAGES * PAGE_SIZE;

const memory = allocatePages(PAGES);
memory.bytes.fill(0xd1);

const iommufd = new Iommufd();
console.log('opened /dev/iommu');

// An IOAS is an address space for devices: what is mapped in it, they can reach; nothing else.
const first = iommufd.allocIoas();
const iova = first.map({ address: memory.address, length: LENGTH });
console.log(`${PAGES} pages of this program are at IOVA 0x${iova.toString(16)} for devices`);

// A second address space shows the same pages somewhere else, to be read only.
const second = iommufd.allocIoas();
const copy = second.copyFrom(
  first,
  { iova, length: LENGTH },
  { iova: 0x10_0000n, read: true, write: false },
);
console.log(`and at IOVA 0x${copy.toString(16)}, read-only, in a second address space`);

// A mapping is taken away as a whole: half of it is refused. The trace tells why.
try {
  first.unmap({ iova, length: BigInt(LENGTH / 2) });
} catch (error) {
  if (!(error instanceof CallError)) throw error;
  console.log(`unmapping half of it is refused, as it should be: ${error.code}`);
}

console.log(`unmapped ${first.unmap({ iova, length: BigInt(LENGTH) })} bytes`);
second.destroy();
first.destroy();
iommufd.close();
console.log('cleaned up');
