/** The compatibility ioctls in no-iommu mode; after iommufd_vfio_compat_set_no_iommu and its users (vfio_compat.c). */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { Faults } from '../base/faults.ts';
import { GroupTable } from '../iommu/group.ts';
import { InProcessClient } from '../client/in-process.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../uapi/vfio.ts';
import type { IommufdFile } from './file.ts';
import { Iommufd } from './iommufd.ts';
import { createCompatIoas, setNoIommuMode } from './vfio-compat.ts';

function opened(): { client: InProcessClient; fd: number; file: IommufdFile } {
  const options = {
    physical: new PhysicalMemory(),
    groups: new GroupTable(),
    faults: new Faults(),
  };
  const client = new InProcessClient();
  const file = new Iommufd({ ...options, mock: false, check: true }).open(client);
  return { client, fd: client.install(file), file };
}

const refused = (code: string) => (error: unknown) => error instanceof Errno && error.code === code;

test('no-iommu: a context in this mode is no type 1 container and gets no compatibility IOAS', () => {
  const { client, fd, file } = opened();
  const { context } = file;
  assert.equal(client.ioctl(fd, VFIO_CHECK_EXTENSION, BigInt(VFIO_TYPE1v2_IOMMU)), 1);
  setNoIommuMode(context);
  for (const type of [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU]) {
    assert.equal(client.ioctl(fd, VFIO_CHECK_EXTENSION, BigInt(type)), 0);
    assert.throws(() => client.ioctl(fd, VFIO_SET_IOMMU, BigInt(type)), refused('EINVAL'));
  }
  assert.throws(() => {
    createCompatIoas(context);
  }, refused('EINVAL'));
  assert.equal(context.vfioIoas, undefined);
});

test('no-iommu: a context that serves groups with an IOMMU does not change over', () => {
  const { context } = opened().file;
  createCompatIoas(context);
  assert.throws(() => {
    setNoIommuMode(context);
  }, refused('EINVAL'));
  assert.equal(context.noIommuMode, false);
});
