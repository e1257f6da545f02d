/** A client that does to /dev/iommu what it should not, and prints what it gets. A program of its own; knows no uiommu. */
import { closeSync, openSync, writeSync } from 'node:fs';

import { allocate } from '../../src/os/arena.ts';
import { sys, type Word } from '../../src/os/libc.ts';
import { NR } from '../../src/os/numbers.ts';
import * as uapi from '../../src/uapi/iommufd.ts';

const PAGE = 4096;
const NR_MUNMAP = 11;
const ALL = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;
const FIXED = ALL | uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

// Nothing is mapped after the page of the argument.
const argument = allocate(2 * PAGE);
sys(NR_MUNMAP, argument.address + PAGE, PAGE);
const fd = openSync('/dev/iommu', 'r+');

const print = (name: string, value: unknown): void => {
  writeSync(1, `${name}: ${String(value)}\n`);
};
const ioctl = (command: number, address: Word = argument.address, file = fd): number =>
  sys(NR.ioctl, file, command, address);

function alloc(size: number, tail = 0): number {
  argument.bytes.fill(0, 0, PAGE);
  argument.view.setUint32(0, size, true);
  argument.bytes[12] = tail;
  return ioctl(uapi.IOMMU_IOAS_ALLOC);
}

function map(given: Partial<uapi.iommu_ioas_map>): number {
  argument.bytes.fill(0, 0, PAGE);
  uapi.iommu_ioas_map.encode(uapi.iommu_ioas_map.make(given), argument.bytes);
  return ioctl(uapi.IOMMU_IOAS_MAP);
}

print('size 0', alloc(0));
print('size 11', alloc(11));
print('size 4 GiB', alloc(0xffff_ffff));
print('known size', alloc(12));
const id = argument.view.getUint32(8, true);
print('longer, rest zero', alloc(64));
const second = argument.view.getUint32(8, true);
print('longer, rest not zero', alloc(64, 1));
print('longer than memory', alloc(2 * PAGE));

const memory = BigInt(allocate(4 * PAGE).address);
const good = { flags: ALL, ioas_id: id, user_va: memory, length: BigInt(PAGE) };
print('garbage id', map({ ...good, ioas_id: 0xdead_beef }));
print('unknown flags', map({ ...good, flags: 0x8000_0000 }));
print('no access', map({ ...good, flags: 0 }));
print('length 0', map({ ...good, length: 0n }));
print('address wraps', map({ ...good, user_va: U64_MAX - 0xfffn, length: BigInt(2 * PAGE) }));
print('length wraps', map({ ...good, length: U64_MAX }));
print(
  'IOVA wraps',
  map({ ...good, flags: FIXED, iova: U64_MAX - 0xfffn, length: BigInt(2 * PAGE) }),
);
print('NULL struct', ioctl(uapi.IOMMU_IOAS_MAP, 0));
print('unmapped struct', ioctl(uapi.IOMMU_IOAS_MAP, 0x1000));
print('kernel struct', ioctl(uapi.IOMMU_IOAS_MAP, BigInt.asIntN(64, 0xffff_8000_0000_0000n)));
print('unknown ioctl', ioctl(0x3bfe));
print('foreign ioctl', ioctl(0x5401));
print('good', map(good));
print('destroy with mappings', (argument.view.setUint32(0, 8, true), destroy(id)));
print('destroy twice', (destroy(second), destroy(second)));
print('destroy 0', destroy(0));

const copy = openSync('/dev/null', 'r+');
print('not ours', ioctl(uapi.IOMMU_IOAS_ALLOC, argument.address, copy));
closeSync(fd);
print('closed', ioctl(uapi.IOMMU_IOAS_ALLOC));

function destroy(object: number): number {
  argument.bytes.fill(0, 0, PAGE);
  uapi.iommu_destroy.encode(uapi.iommu_destroy.make({ id: object }), argument.bytes);
  return ioctl(uapi.IOMMU_DESTROY);
}
