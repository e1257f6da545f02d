import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { iommu_ioas_alloc, iommu_ioas_map, IOMMU_IOAS_MAP_READABLE } from './iommufd.ts';
import { reservedSet, unknownFlags } from './refusals.ts';

test('unknownFlags names the unknown bits and the flags that are supported', () => {
  const refusal = unknownFlags(iommu_ioas_map, 0x84, IOMMU_IOAS_MAP_READABLE);
  assert.ok(refusal instanceof Errno);
  assert.equal(refusal.code, 'EOPNOTSUPP');
  assert.equal(refusal.message, 'unknown flags 0x80 (supported: READABLE)');
});

test('unknownFlags says so where a call has no flags, with the errno of the caller', () => {
  const refusal = unknownFlags(iommu_ioas_alloc, 0x8000_0000, 0, 'EINVAL');
  assert.equal(refusal.code, 'EINVAL');
  assert.equal(refusal.message, 'unknown flags 0x80000000 (none is supported)');
});

test('reservedSet names the value', () => {
  assert.equal(reservedSet(1).message, '__reserved is 0x1, must be 0');
});
