/**
 * A client of VFIO for tests, as a program of its own: node vfio-client.js [container|node] NAME… It makes the calls of a user
 * space driver up to the point where it has the device, and prints what each answered: a number or the negative errno.
 */
import { closeSync, openSync, writeSync } from 'node:fs';

import { allocate } from '../../src/os/arena.ts';
import { sys } from '../../src/os/libc.ts';
import { NR } from '../../src/os/numbers.ts';

// include/uapi/linux/vfio.h, iommufd.h
const VFIO_GET_API_VERSION = 0x3b64;
const VFIO_SET_IOMMU = 0x3b66;
const VFIO_GROUP_GET_STATUS = 0x3b67;
const VFIO_GROUP_SET_CONTAINER = 0x3b68;
const VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
const VFIO_DEVICE_BIND_IOMMUFD = 0x3b76;
const VFIO_DEVICE_ATTACH_IOMMUFD_PT = 0x3b77;
const IOMMU_IOAS_ALLOC = 0x3b81;
const TYPE1_V2 = 3;

const memory = allocate(64);

function print(name: string, value: number): void {
  writeSync(1, `${name}: ${value}\n`);
}

function ioctl(name: string, fd: number, command: number, argument: number): number {
  const result = sys(NR.ioctl, fd, command, argument);
  print(name, result);
  return result;
}

/** @param words of the struct, each 4 bytes */
function withStruct(name: string, fd: number, command: number, words: readonly number[]): number {
  words.forEach((word, i) => {
    memory.view.setUint32(4 * i, word, true);
  });
  return ioctl(name, fd, command, memory.address);
}

const field = (index: number): number => memory.view.getUint32(4 * index, true);

function open(path: string): number {
  try {
    return openSync(path, 'r+');
  } catch (error) {
    print(`open ${path}`, (error as { errno?: number }).errno ?? 0);
    process.exit(1);
  }
}

function throughContainer(group: string, device: string): void {
  const container = open('/dev/vfio/vfio');
  print('version', sys(NR.ioctl, container, VFIO_GET_API_VERSION, 0));
  const file = open(`/dev/vfio/${group}`);
  withStruct('status', file, VFIO_GROUP_GET_STATUS, [8, 0]);
  print('flags', field(1));
  memory.view.setInt32(0, container, true);
  ioctl('set container', file, VFIO_GROUP_SET_CONTAINER, memory.address);
  ioctl('set iommu', container, VFIO_SET_IOMMU, TYPE1_V2);
  memory.bytes.set(Buffer.from(`${device}\0`));
  const got = sys(NR.ioctl, file, VFIO_GROUP_GET_DEVICE_FD, memory.address);
  print('device', Math.min(0, got));
  closeSync(container);
  closeSync(file);
  closeSync(got);
  closeSync(open(`/dev/vfio/${group}`));
}

function throughNodes(names: readonly string[]): void {
  const iommufd = open('/dev/iommu');
  withStruct('ioas', iommufd, IOMMU_IOAS_ALLOC, [12, 0, 0]);
  const ioas = field(2);
  for (const name of names) {
    const device = open(`/dev/vfio/devices/${name}`);
    withStruct(`bind ${name}`, device, VFIO_DEVICE_BIND_IOMMUFD, [16, 0, iommufd, 0]);
    withStruct(`attach ${name}`, device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, [12, 0, ioas]);
  }
}

const [, , door, ...names] = process.argv;
if (door === 'container') throughContainer(names[0] ?? '', names[1] ?? '');
else throughNodes(names);
