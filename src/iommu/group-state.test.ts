/** Every mutable field of groups, subgroups and devices is listed, or has a reason not to be. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Known, only } from '../base/transfer.ts';
import { fieldsLeft } from '../testing/fields.ts';
import { NO_PASID } from './attach.ts';
import { IommuDevice, type Domain } from './domain.ts';
import {
  deviceFields,
  emptyGroup,
  groupFields,
  placeMember,
  subgroupFields,
  type DeviceNames,
  type GroupNames,
} from './group-state.ts';
import { GroupTable, IommuGroup, Subgroup, type DmaOwner } from './group.ts';
import { BareDomain, bareIommu } from './hardware/bare.ts';

const domain = (name: string): Domain => new BareDomain({ kind: 'unmanaged', name }, {});

const device = (name: string): IommuDevice =>
  new IommuDevice({
    name,
    ops: bareIommu(),
    maxPasids: 2,
    atsSupported: true,
    reservedRegions: [{ start: 0n, last: 0xfffn, type: 'direct' }],
  });

const GROUP_NAMES: GroupNames = {
  domains: new Known([domain('one'), domain('two')]),
  defaultDomains: only(domain('default')),
  blockingDomain: domain('blocking'),
  owners: new Known<DmaOwner>([{ name: 'X' }, { name: 'Y' }]),
  pasids: [NO_PASID, 1],
  handle: { domain: undefined },
};

const DEVICE_NAMES: DeviceNames = {
  domains: GROUP_NAMES.domains,
  groups: only(new GroupTable().alloc()),
  kernelDrivers: only('nvme'),
  pasids: [1],
};

/** What a device is from its beginning to its end. */
const DEVICE_CONSTANTS = [
  'atsSupported',
  'instance',
  'isolatedMsi',
  'maxPasids',
  'name',
  'ops',
  'requesterIds',
  'reservedRegions',
  'sourceValidated',
  'untrusted',
];

test('a device: every field is listed or placed, but for what never changes', () => {
  const a = device('a');
  const subgroup = new Subgroup(new GroupTable().alloc());
  const left = fieldsLeft(
    a,
    (fields) => {
      deviceFields(fields, a, DEVICE_NAMES);
    },
    () => {
      placeMember(a, subgroup);
    },
  );
  assert.deepEqual(left, DEVICE_CONSTANTS);
});

test('a subgroup: every field is listed or placed, but for its group', () => {
  const subgroup = new Subgroup(new GroupTable().alloc());
  const left = fieldsLeft(
    subgroup,
    (fields) => {
      subgroupFields(fields, GROUP_NAMES);
    },
    () => {
      placeMember(device('a'), subgroup);
    },
  );
  assert.deepEqual(left, ['group']);
});

test('a group: every field is listed or placed, but for what never changes', () => {
  const group = new GroupTable().alloc();
  const left = fieldsLeft(
    group,
    (fields) => {
      groupFields(fields, GROUP_NAMES);
    },
    () => {
      placeMember(device('a'), new Subgroup(group));
    },
  );
  // `name` and `untranslated` are given by whoever makes a group, before anything can happen in it.
  assert.deepEqual(left, ['id', 'name', 'table', 'untranslated']);
});

test('an emptied group has neither members nor subgroups', () => {
  const group = new GroupTable().alloc();
  placeMember(device('a'), group.addSubgroup());
  emptyGroup(group);
  assert.deepEqual([group.members, group.subgroups], [[], []]);
});

test('the first member that is placed in a subgroup empties it, the others join', () => {
  const group = new GroupTable().alloc();
  const subgroup = new Subgroup(group);
  subgroup.members.push(device('stale'));
  const [a, b] = [device('a'), device('b')];
  placeMember(a, subgroup);
  placeMember(b, subgroup);
  assert.deepEqual(subgroup.members, [a, b]);
  assert.deepEqual(group.subgroups, [subgroup]);
  assert.equal(b.group, group);
});

test('no state has private fields, which these tests could not see', () => {
  for (const state of [IommuDevice, Subgroup, IommuGroup]) {
    assert.doesNotMatch(String(state), /this\.#/, state.name);
  }
});
