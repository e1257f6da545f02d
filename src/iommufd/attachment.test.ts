/** Attachments of a group over an IOMMU without page tables, with a side that notes what it is asked. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { NO_PASID } from '../iommu/attach.ts';
import { IommuDevice, type Domain } from '../iommu/domain.ts';
import { GroupTable, probeDevice } from '../iommu/group.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { claimDevice } from '../iommu/ownership.ts';
import {
  attachTo,
  detachFrom,
  replaceBy,
  type Attachment,
  type AttachmentSide,
} from './attachment.ts';

type Table = { readonly name: string; readonly domain: Domain };
type Device = {
  readonly id: number;
  readonly iommu: IommuDevice;
  readonly attachments: Map<number, Attachment<Device, Table>>;
};

function pair(): { a: Device; b: Device; one: Table; two: Table } {
  const ops = bareIommu();
  const group = new GroupTable().alloc();
  const attachments = new Map<number, Attachment<Device, Table>>();
  const owner = { name: 'X' };
  const [a, b] = ['a', 'b'].map((name, id) => {
    const iommu = new IommuDevice({ name, ops });
    probeDevice(iommu, () => group.ref());
    return { id, iommu, attachments };
  });
  assert.ok(a && b);
  claimDevice(a.iommu, owner);
  claimDevice(b.iommu, owner);
  const table = (name: string): Table => ({
    name,
    domain: ops.allocPaging(a.iommu, { kind: 'unmanaged', flags: 0 }),
  });
  return { a, b, one: table('one'), two: table('two') };
}

function side(
  calls: string[] = [],
  given: Partial<AttachmentSide<Device, Table>> = {},
): AttachmentSide<Device, Table> {
  return {
    admit: ({ iommu }, _pasid, { name }) => void calls.push(`admit ${iommu.name} to ${name}`),
    dismiss: ({ iommu }, _pasid, { name }) => void calls.push(`dismiss ${iommu.name} of ${name}`),
    admitAll: (_attachment, _pasid, { name }) => void calls.push(`admit all to ${name}`),
    dismissAll: (_attachment, _pasid, { name }) => void calls.push(`dismiss all of ${name}`),
    handle: () => ({ domain: undefined }),
    forgotten: ({ name }) => void calls.push(`forgotten: ${name}`),
    ...given,
  };
}

test('attaching twice is EBUSY; a peer with another page table is EINVAL and asks the side nothing', () => {
  const { a, b, one, two } = pair();
  const calls: string[] = [];
  attachTo(side(calls), a, NO_PASID, one);
  assert.throws(
    () => {
      attachTo(side(calls), a, NO_PASID, one);
    },
    { code: 'EBUSY' },
  );
  assert.throws(
    () => {
      attachTo(side(calls), b, NO_PASID, two);
    },
    { code: 'EINVAL' },
  );
  assert.deepEqual(calls, ['admit a to one']);
});

test('replacing what is not attached is EINVAL', () => {
  const { a, one } = pair();
  assert.throws(() => replaceBy(side(), a, NO_PASID, one), { code: 'EINVAL' });
});

test('a refused handle gives back what the side admitted', () => {
  const { a, one } = pair();
  const calls: string[] = [];
  const refusing = side(calls, {
    handle: () => {
      throw new Errno('ENOMEM', 'injected');
    },
  });
  assert.throws(
    () => {
      attachTo(refusing, a, NO_PASID, one);
    },
    { code: 'ENOMEM' },
  );
  assert.deepEqual(calls, ['admit a to one', 'dismiss a of one']);
  assert.equal(a.attachments.size, 0);
});

test('a refused move leaves all devices where they are', () => {
  const { a, b, one, two } = pair();
  attachTo(side(), a, NO_PASID, one);
  attachTo(side(), b, NO_PASID, one);
  const calls: string[] = [];
  const refusing = side(calls, {
    handle: () => {
      throw new Errno('ENOMEM', 'injected');
    },
  });
  assert.throws(() => replaceBy(refusing, b, NO_PASID, two), { code: 'ENOMEM' });
  assert.deepEqual(calls, ['admit all to two', 'dismiss all of two']);
  assert.equal(a.attachments.get(NO_PASID)?.hwpt, one);
  assert.equal(a.iommu.attached, one.domain);
});

test('the first device attaches, the second joins, a replacement moves both, the last one detaches', () => {
  const { a, b, one, two } = pair();
  attachTo(side(), a, NO_PASID, one);
  attachTo(side(), b, NO_PASID, one);
  assert.equal(replaceBy(side(), b, NO_PASID, two)?.left, one);
  assert.deepEqual([a.iommu.attached, b.iommu.attached], [two.domain, two.domain]);
  assert.equal(detachFrom(side(), a, NO_PASID), two);
  assert.equal(a.iommu.attached, two.domain, 'the peer still is attached');
  assert.equal(detachFrom(side(), a, NO_PASID), undefined, 'a second detach takes nothing');
  assert.equal(detachFrom(side(), b, NO_PASID), two);
  assert.equal(a.iommu.attached, a.iommu.requireGroup().blockingDomain);
  assert.equal(b.attachments.size, 0);
});
