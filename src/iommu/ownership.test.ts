/** Ownership, claims and switches on groups without any driver core or door around them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import {
  attachGroupHandle,
  detachGroupHandle,
  finishReset,
  prepareReset,
  replaceGroupHandle,
} from './attach.ts';
import { bareIommu } from './hardware/bare.ts';
import { IommuDevice, type IommuDeviceOptions, type IommuOps } from './domain.ts';
import { GroupTable, probeDevice, releaseDevice, type Subgroup, type IommuGroup } from './group.ts';
import {
  claimDevice,
  claimGroup,
  releaseDeviceClaim,
  releaseGroup,
  unuseDefaultDomain,
  useDefaultDomain,
} from './ownership.ts';

type Pair = {
  group: IommuGroup;
  a: IommuDevice;
  b: IommuDevice;
  ops: IommuOps;
  subgroup: Subgroup;
};

function device(name: string, options: Partial<IommuDeviceOptions> = {}): IommuDevice {
  return new IommuDevice({ name, ops: bareIommu(), ...options });
}

function pair(options: Partial<IommuDeviceOptions> = {}): Pair {
  const table = new GroupTable();
  const ops = options.ops ?? bareIommu();
  const group = table.alloc();
  const a = device('a', { ...options, ops });
  const b = device('b', { ...options, ops });
  probeDevice(a, () => group.ref());
  probeDevice(b, () => group.ref());
  const [subgroup] = group.subgroups;
  assert.ok(subgroup);
  return { group, a, b, ops, subgroup: subgroup };
}

const X = { name: 'X' };
const Y = { name: 'Y' };
const refused = (code: string, part: string) => (error: unknown) =>
  error instanceof Errno && error.code === code && error.message.includes(part);

test('useDefaultDomain on a group that X owns is EBUSY and names X', () => {
  const { a, b } = pair();
  claimDevice(b, X);
  assert.throws(
    () => {
      useDefaultDomain(a, 'nvme');
    },
    refused('EBUSY', 'X'),
  );
});

test('claimDevice under kernel DMA is EPERM and names device and driver', () => {
  const { a, b, group } = pair();
  useDefaultDomain(a, 'snd_hda_intel');
  assert.throws(
    () => {
      claimDevice(b, X);
    },
    refused('EPERM', 'a is bound to snd_hda_intel, which does kernel DMA'),
  );
  unuseDefaultDomain(a);
  claimDevice(b, X);
  assert.equal(group.owner, X);
});

test('claimDevice by the same owner counts, by another is EPERM, and the last release frees', () => {
  const { a, b, group } = pair();
  claimDevice(a, X);
  claimDevice(b, X);
  assert.equal(group.ownerCount, 2);
  assert.throws(
    () => {
      claimDevice(b, Y);
    },
    refused('EPERM', 'X already owns it'),
  );
  releaseDeviceClaim(a);
  assert.equal(group.owner, X);
  releaseDeviceClaim(b);
  assert.deepEqual([group.owner, group.ownerCount], [undefined, 0]);
});

test('claimGroup is EPERM for the owner itself too', () => {
  const { group } = pair();
  claimGroup(group, X);
  assert.throws(
    () => {
      claimGroup(group, X);
    },
    refused('EPERM', 'itself already owns it'),
  );
  releaseGroup(group);
  claimGroup(group, Y);
  assert.equal(group.owner, Y);
});

test('a claim blocks every member, a detach blocks again, a release restores the default', () => {
  const { group, a, b, subgroup: subgroup, ops } = pair();
  claimDevice(a, X);
  assert.deepEqual([a.attached, b.attached], [ops.blockedDomain, ops.blockedDomain]);
  const domain = ops.allocPaging(a, { kind: 'unmanaged', flags: 0 });
  attachGroupHandle(subgroup, domain, { domain: undefined });
  assert.deepEqual([a.attached, b.attached], [domain, domain]);
  detachGroupHandle(subgroup);
  assert.deepEqual([a.attached, b.attached], [ops.blockedDomain, ops.blockedDomain]);
  releaseDeviceClaim(a);
  assert.deepEqual([a.attached, b.attached], [group.defaultDomain, group.defaultDomain]);
});

test('a device that firmware maps one to one cannot be claimed: EINVAL, all members as before', () => {
  const { group, b } = pair({
    reservedRegions: [{ start: 0n, last: 0xfffn, type: 'direct' }],
  });
  assert.throws(
    () => {
      claimDevice(b, X);
    },
    refused('EINVAL', 'one to one'),
  );
  assert.deepEqual([group.ownerCount, b.attached], [0, group.defaultDomain]);
});

test('a reset window fences attach but not detach, which takes effect when it ends', () => {
  const { a, b, subgroup: subgroup, ops } = pair({ atsSupported: true });
  claimDevice(a, X);
  const domain = ops.allocPaging(a, { kind: 'unmanaged', flags: 0 });
  prepareReset(a);
  assert.throws(
    () => {
      attachGroupHandle(subgroup, domain, { domain: undefined });
    },
    refused('EBUSY', 'a of group 0 is being reset'),
  );
  finishReset(a);
  attachGroupHandle(subgroup, domain, { domain: undefined });
  prepareReset(a);
  assert.deepEqual([a.attached, b.attached], [ops.blockedDomain, domain]);
  detachGroupHandle(subgroup);
  finishReset(a);
  assert.deepEqual([a.attached, b.attached], [ops.blockedDomain, ops.blockedDomain]);
});

test('a group number is free again after the last put, lowest first', () => {
  const table = new GroupTable();
  const devices = ['a', 'b', 'c'].map((name) => device(name));
  for (const each of devices) probeDevice(each, () => table.alloc());
  const [a, b] = devices;
  assert.ok(a && b);
  const held = b.requireGroup().ref();
  releaseDevice(b);
  releaseDevice(a);
  probeDevice(b, () => table.alloc());
  assert.equal(b.group?.id, 0);
  held.put();
  probeDevice(a, () => table.alloc());
  assert.equal(a.group?.id, 1);
});

for (const step of ['claim', 'attach', 'replace', 'hotAdd'] as const) {
  test(`${step}: whatever call of the IOMMU driver fails, the state is as before`, () => {
    let failing = Infinity;
    let calls = 0;
    const ops = bareIommu({
      beforeCall: (call) => {
        if (++calls === failing) throw new Errno('ENOMEM', `injected: ${call}`);
      },
    });
    const { group, a, subgroup: subgroup } = pair({ ops });
    const one = ops.allocPaging(a, { kind: 'unmanaged', flags: 0 });
    const two = ops.allocPaging(a, { kind: 'unmanaged', flags: 0 });
    if (step !== 'claim') claimDevice(a, X);
    if (step === 'replace') attachGroupHandle(subgroup, one, { domain: undefined });
    const run = {
      claim: () => {
        claimDevice(a, X);
      },
      attach: () => {
        attachGroupHandle(subgroup, one, { domain: undefined });
      },
      replace: () => {
        replaceGroupHandle(subgroup, two, { domain: undefined });
      },
      hotAdd: () => {
        probeDevice(device('c', { ops }), () => group.ref());
      },
    }[step];
    const before = picture(group);
    const needed = sweep(
      (n) => {
        calls = 0;
        failing = n;
        run();
      },
      () => {
        assert.deepEqual(picture(group), before);
      },
    );
    assert.ok(needed >= 1, 'no call of the driver was swept');
    assert.notDeepEqual(picture(group), before);
  });
}

/** Fails the first call, then the second …, until the action succeeds; @returns how many failed. */
function sweep(action: (failing: number) => void, check: () => void): number {
  for (let n = 1; n < 100; n++) {
    try {
      action(n);
      return n - 1;
    } catch (error) {
      assert.ok(error instanceof Errno, String(error));
      check();
    }
  }
  throw new Error('the action never succeeded');
}

function picture(group: IommuGroup): unknown {
  return {
    owner: group.owner?.name,
    count: group.ownerCount,
    references: group.references,
    members: group.members.map(({ name, attached, pasids }) => [name, attached?.name, pasids.size]),
    units: group.subgroups.map(({ domain, members, pasidArray }) => [
      domain?.name,
      members.length,
      [...pasidArray].map(([key, { domain: attached }]) => [key, attached.name]),
    ]),
  };
}
