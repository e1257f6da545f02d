import assert from 'node:assert/strict';
import test from 'node:test';
import { IommuDevice, type Domain } from '../domain.ts';
import { PagingDomain } from '../paging-domain.ts';
import { pcIommu } from './pc.ts';

/** What a domain of a unit with these registers translates, and whether the unit can snoop. */
function unit(capabilities: bigint, extended: bigint): unknown[] {
  const ops = pcIommu(0, 'intel', () => ({ version: '1:0', capabilities, extended }));
  const device = new IommuDevice({ name: '0000:01:00.0', ops });
  const domain = ops.allocPaging(device, { kind: 'unmanaged', flags: 0 });
  assert.ok(domain instanceof PagingDomain);
  return [domain.geometry.last, domain.pageSizes, ops.capable(device, 'enforce-cache-coherency')];
}

// The first two are units that QEMU showed to Linux 7.3.4 (aw-bits=39, aw-bits=48), the rest differ in one field.
const CAP_39 = 0xd2_008c_2226_0206n;
const CAP_48 = 0xd2_008c_222f_0606n;
const SIZES = 0x4020_1000n;

test('address width: the largest table that MGAW and SAGAW both allow', () => {
  assert.deepEqual(unit(CAP_39, 0xf0_0fcan), [2n ** 39n - 1n, SIZES, true]);
  assert.deepEqual(unit(CAP_48, 0xf0_0f4an), [2n ** 48n - 1n, SIZES, false]);
  const without4Levels = CAP_48 & ~0x400n;
  assert.deepEqual(unit(without4Levels, 0n), [2n ** 39n - 1n, SIZES, false]);
  const bits57 = (CAP_48 & ~(0x3fn << 16n)) | (56n << 16n) | 0x800n;
  assert.deepEqual(unit(bits57, 0n), [2n ** 57n - 1n, SIZES, false]);
});

test('large pages: SLLPS names them', () => {
  const none = CAP_39 & ~(0xfn << 34n);
  assert.deepEqual(unit(none, 0n)[1], 0x1000n);
  assert.deepEqual(unit(none | (1n << 34n), 0n)[1], 0x20_1000n);
});

test('a domain is refused to a device whose unit cannot walk it', () => {
  const caps = new Map([
    ['wide', CAP_48],
    ['narrow', CAP_39],
    ['small', CAP_39 & ~(0xfn << 34n)],
  ]);
  const ops = pcIommu(0, 'intel', ({ name }) => ({
    version: '1:0',
    capabilities: caps.get(name) ?? 0n,
    extended: 0n,
  }));
  const device = (name: string): IommuDevice => new IommuDevice({ name, ops });
  const domainOf = (name: string): Domain =>
    ops.allocPaging(device(name), { kind: 'unmanaged', flags: 0 });
  const refuses = (domain: Domain, name: string, reason: RegExp): void => {
    assert.throws(() => {
      domain.attachDevice(device(name), undefined);
    }, reason);
  };
  refuses(domainOf('wide'), 'narrow', /translates 39 bits, the domain has 48/);
  refuses(domainOf('narrow'), 'small', /no pages of 0x40000000 bytes/);
  domainOf('small').attachDevice(device('wide'), undefined);
  domainOf('narrow').attachDevice(device('wide'), undefined);
});
