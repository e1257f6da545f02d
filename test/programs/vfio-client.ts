/**
 * A client of VFIO for tests, as a program of its own: node vfio-client.js [container|node|use] NAME… It makes the calls of a user
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
const VFIO_DEVICE_SET_IRQS = 0x3b6e;
const VFIO_DEVICE_IOEVENTFD = 0x3b74;
const TYPE1_V2 = 3;
const O_NONBLOCK = 0o4000;

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

/** Uses a device: configuration space and a BAR by position, an interrupt by loopback, unmasking by eventfd. */
function use(name: string): void {
  const device = open(`/dev/vfio/devices/${name}`);
  const at = (region: number, offset: number): bigint => (BigInt(region) << 40n) + BigInt(offset);
  const pread = (offset: bigint, count: number): number =>
    sys(NR.pread64, device, memory.address, count, offset);
  const pwrite = (offset: bigint, count: number): number =>
    sys(NR.pwrite64, device, memory.address, count, offset);
  print('unbound read', pread(at(7, 0), 4));
  const iommufd = open('/dev/iommu');
  withStruct('bind', device, VFIO_DEVICE_BIND_IOMMUFD, [16, 0, iommufd, 0]);
  print('ids', pread(at(7, 0), 4));
  print('vendor', field(0) & 0xffff);
  memory.view.setUint16(0, 2, true);
  print('command', pwrite(at(7, 4), 2));
  memory.view.setUint32(0, 0x1234_5678, true);
  print('write BAR 0', pwrite(at(0, 16), 4));
  memory.view.setUint32(0, 0, true);
  print('read BAR 0', pread(at(0, 16), 4));
  print('value', field(0));
  print('beyond', pread(at(0, 2 ** 30), 4));
  const counter = sys(NR.eventfd2, 0, O_NONBLOCK);
  withStruct('set irqs', device, VFIO_DEVICE_SET_IRQS, [24, 0x24, 1, 0, 1, counter]);
  for (const time of ['first', 'second']) {
    withStruct(`${time} trigger`, device, VFIO_DEVICE_SET_IRQS, [20, 0x21, 1, 0, 1]);
  }
  print('counter', sys(NR.read, counter, memory.address, 8));
  print('count', field(0));
  withStruct('not an eventfd', device, VFIO_DEVICE_SET_IRQS, [24, 0x24, 1, 0, 1, iommufd]);
  useIoEventfd(device, pread);
}

function useIoEventfd(device: number, pread: (offset: bigint, count: number) => number): void {
  const kick = sys(NR.eventfd2, 0, O_NONBLOCK);
  withStruct('ioeventfd', device, VFIO_DEVICE_IOEVENTFD, [32, 4, 32, 0, 77, 0, kick, 0]);
  memory.view.setBigUint64(0, 1n, true);
  print('kick', sys(NR.write, kick, memory.address, 8));
  // The device takes the count as soon as the supervisor hears of it.
  const end = Date.now() + 5000;
  do {
    print('kicked', pread(32n, 4));
  } while (field(0) !== 77 && Date.now() < end);
  print('written', field(0));
  print('left', sys(NR.read, kick, memory.address, 8));
}

const [, , door, ...names] = process.argv;
if (door === 'container') throughContainer(names[0] ?? '', names[1] ?? '');
else if (door === 'use') use(names[0] ?? '');
else throughNodes(names);
