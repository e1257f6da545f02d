/** Default domains, hot-add and subgroups. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import {
  attachDevicePasid,
  detachDevicePasid,
  NO_PASID,
  replaceDevicePasid,
  attachGroupHandle,
} from './attach.ts';
import { bareIommu } from './hardware/bare.ts';
import { IommuDevice, type IommuDeviceOptions, type IommuOps } from './domain.ts';
import {
  defaultDomainWord,
  GroupTable,
  probeDevice,
  releaseDevice,
  storeDefaultDomainType,
  type IommuGroup,
} from './group.ts';
import { claimDevice, releaseDeviceClaim, useDefaultDomain } from './ownership.ts';
import { PROFILES } from './profile.ts';

const X = { name: 'X' };
const ops = bareIommu();

function device(name: string, given: Partial<IommuDeviceOptions> = {}): IommuDevice {
  return new IommuDevice({ name, ops, ...given });
}

function groupOf(devices: readonly IommuDevice[], table = new GroupTable()): IommuGroup {
  const group = table.alloc();
  for (const each of devices) probeDevice(each, () => group.ref());
  return group;
}

function domain(from: IommuOps, member: IommuDevice): ReturnType<IommuOps['allocPaging']> {
  return from.allocPaging(member, { kind: 'unmanaged', flags: 0 });
}

test('type: an unknown word is EINVAL, a group in use EPERM, DMA to DMA-FQ is done in place at any time', () => {
  const a = device('a');
  const group = groupOf([a]);
  assert.equal(defaultDomainWord(group), 'DMA-FQ');
  assert.throws(
    () => {
      storeDefaultDomainType(group, 'dma\n');
    },
    { code: 'EINVAL' },
  );
  storeDefaultDomainType(group, 'DMA\n');
  assert.equal(defaultDomainWord(group), 'DMA');
  useDefaultDomain(a, 'nvme');
  assert.throws(
    () => {
      storeDefaultDomainType(group, 'identity');
    },
    { code: 'EPERM' },
  );
  const before = group.defaultDomain;
  storeDefaultDomainType(group, 'DMA-FQ');
  assert.equal(group.defaultDomain, before);
  assert.equal(defaultDomainWord(group), 'DMA-FQ');
});

test('type: an untrusted member keeps the group on DMA, the IOMMU driver may insist on identity', () => {
  const untrusted = groupOf([device('a', { untrusted: true })]);
  assert.equal(defaultDomainWord(untrusted), 'DMA');
  assert.throws(
    () => {
      storeDefaultDomainType(untrusted, 'identity');
    },
    { code: 'EINVAL' },
  );
  const insisting: IommuOps = { ...bareIommu(), defaultDomainType: () => 'identity' };
  assert.equal(defaultDomainWord(groupOf([device('b', { ops: insisting })])), 'identity');
  assert.throws(() => groupOf([device('c', { ops: insisting, untrusted: true })]), {
    code: 'EINVAL',
  });
});

test('a device without group: a driver is let in, a claim is ENODEV', () => {
  const a = device('a');
  useDefaultDomain(a, 'nvme');
  assert.throws(
    () => {
      claimDevice(a, X);
    },
    { code: 'ENODEV' },
  );
});

test('PASIDs are set on every member that has them, the same ID twice is EBUSY, a failure is undone', () => {
  let failing = '';
  const pasidOps = bareIommu({
    beforeCall: (call) => {
      if (call === failing) throw new Errno('ENOMEM', call);
    },
  });
  const a = device('a', { ops: pasidOps, maxPasids: 16 });
  const b = device('b', { ops: pasidOps });
  const c = device('c', { ops: pasidOps, maxPasids: 8 });
  const group = groupOf([a, b, c]);
  claimDevice(a, X);
  const one = domain(pasidOps, a);
  assert.throws(
    () => {
      attachDevicePasid(a, NO_PASID, one);
    },
    { code: 'EINVAL' },
  );
  assert.throws(
    () => {
      attachDevicePasid(a, 8, one);
    },
    { code: 'EINVAL' },
  );
  failing = `attach c PASID 3 to ${one.name}`;
  assert.throws(
    () => {
      attachDevicePasid(a, 3, one);
    },
    { code: 'ENOMEM' },
  );
  assert.deepEqual([a.pasids.size, group.hasAttachments], [0, false]);
  failing = '';
  attachDevicePasid(a, 3, one);
  assert.deepEqual(
    [a, b, c].map(({ pasids }) => pasids.get(3)),
    [one, undefined, one],
  );
  assert.throws(
    () => {
      attachDevicePasid(c, 3, one);
    },
    { code: 'EBUSY' },
  );
  const two = domain(pasidOps, a);
  replaceDevicePasid(a, 3, two, { domain: undefined });
  assert.equal(c.pasids.get(3), two);
  const late = device('d', { ops: pasidOps, maxPasids: 16 });
  probeDevice(late, () => group.ref());
  assert.equal(late.pasids.size, 0, 'a newcomer does not get PASIDs that are attached');
  detachDevicePasid(a, 3);
  assert.equal(group.hasAttachments, false);
});

const subgroup = (): GroupTable => new GroupTable({ profile: PROFILES.subgroup });
const known = (id: number): Partial<IommuDeviceOptions> => ({
  requesterIds: [id],
  sourceValidated: true,
});

test('subgroup: own requester IDs and validated sources make units of one; all others share one', () => {
  const units = (devices: readonly IommuDevice[]): string[] =>
    groupOf(devices, subgroup()).subgroups.map(({ members }) =>
      members.map(({ name }) => name).join(''),
    );
  assert.deepEqual(units([device('a', known(1)), device('b', known(2))]), ['a', 'b']);
  assert.deepEqual(
    units([device('a', known(1)), device('b', known(1)), device('c', known(3))]).sort(),
    ['ab', 'c'],
  );
  assert.deepEqual(
    units([device('a', known(1)), device('b', { requesterIds: [2] })]),
    ['ab'],
    'a source that is not validated could be anybody',
  );
  assert.deepEqual(units([device('a', known(1)), device('b')]), ['ab'], 'nothing is known of b');
});

test('subgroup: a newcomer that would share a unit of one is refused while the group is owned', () => {
  const a = device('a', known(1));
  const group = groupOf([a, device('b', known(2))], subgroup());
  claimDevice(a, X);
  attachGroupHandle(group.subgroupOf(a), domain(ops, a), { domain: undefined });
  const same = device('c', known(1));
  assert.throws(
    () => {
      probeDevice(same, () => group.ref());
    },
    { code: 'EBUSY' },
  );
  assert.throws(
    () => {
      useDefaultDomain(same, 'nvme');
    },
    { code: 'EBUSY' },
  );
  const other = device('d', known(4));
  probeDevice(other, () => group.ref());
  assert.equal(other.attached, group.blockingDomain);
  assert.equal(group.subgroups.length, 3);
  releaseDevice(other);
  assert.equal(group.subgroups.length, 2);
});

test('subgroup: an unowned group is divided anew as devices come and go', () => {
  const a = device('a', known(1));
  const b = device('b', known(1));
  const group = groupOf([a, b], subgroup());
  assert.equal(group.subgroups.length, 1);
  releaseDevice(b);
  probeDevice(device('c', known(2)), () => group.ref());
  assert.equal(group.subgroups.length, 2);
  claimDevice(a, X);
  releaseDeviceClaim(a);
  assert.ok(group.subgroups.every((subgroup) => subgroup.domain === group.defaultDomain));
});
