/** Groups that are broken by hand: the engine does not make them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { prepareReset } from './attach.ts';
import { IommuDevice } from './domain.ts';
import { GroupTable, probeDevice, type IommuGroup, type Subgroup } from './group.ts';
import { bareIommu } from './hardware/bare.ts';
import { verifyGroup } from './verify-group.ts';

function pair(): { a: IommuDevice; b: IommuDevice; group: IommuGroup; subgroup: Subgroup } {
  const ops = bareIommu();
  const group = new GroupTable().alloc();
  const [a, b] = ['a', 'b'].map((name) => {
    const device = new IommuDevice({ name, ops, atsSupported: true });
    probeDevice(device, () => group.ref());
    return device;
  });
  const [subgroup] = group.subgroups;
  assert.ok(a && b && subgroup);
  return { a, b, group, subgroup };
}

test('a member on another domain than its group is named', () => {
  const { b, group } = pair();
  b.attached = group.blockingDomain;
  assert.match(String(verifyGroup(group)), /^b is on undefined, its group on dma-fq domain 1$/);
});

test('a member of no subgroup is found', () => {
  const { group, subgroup } = pair();
  subgroup.members.pop();
  assert.match(String(verifyGroup(group)), /has 2 members, 1 of them in subgroups/);
});

test('a member in a reset window is on the blocking domain, and is counted', () => {
  const { a, group, subgroup } = pair();
  prepareReset(a);
  assert.equal(verifyGroup(group), undefined);
  subgroup.recoveryCount = 0;
  assert.match(String(verifyGroup(group)), /1 members are being reset, their group counts 0/);
});

test('groups that the engine made are in order', () => {
  const { group } = pair();
  assert.equal(verifyGroup(group), undefined);
  assert.equal(verifyGroup(new GroupTable().alloc()), undefined);
});
