/** Choosing IOVAs, case by case after iopt_alloc_iova and __alloc_iova_check_range of io_pagetable.c. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { MAX_ADDRESS, spanOf } from '../base/position.ts';
import { RangeMap, type Span } from '../base/range-map.ts';
import { allocIova } from './iova-alloc.ts';
import { Reservations } from './reservations.ts';

const PAGE = 4096n;

type Range = readonly [first: bigint, last: bigint];

function space(parts: {
  areas?: Range[];
  reserved?: Range[];
  allowed?: Range[];
  alignment?: number;
}): Parameters<typeof allocIova>[0] {
  const areas = new RangeMap<Span>();
  for (const range of parts.areas ?? []) areas.insert(spanOf(...range));
  const reserved = new Reservations();
  for (const range of parts.reserved ?? []) {
    reserved.add({ span: spanOf(...range), owner: undefined, why: 'a test' });
  }
  const allowed = (parts.allowed ?? []).map((range) => spanOf(...range));
  return { areas, reserved, allowed, alignment: parts.alignment ?? 1 };
}

test('half of the address space or more is EOVERFLOW, and so is nothing', () => {
  for (const length of [0n, MAX_ADDRESS / 2n, MAX_ADDRESS]) {
    assert.throws(() => allocIova(space({}), 0n, length), { code: 'EOVERFLOW' });
  }
});

test('a source that is less aligned than the IOAS needs is EINVAL', () => {
  assert.throws(() => allocIova(space({ alignment: 4096 }), 0x800n, PAGE), { code: 'EINVAL' });
});

test('a full address space is ENOSPC', () => {
  assert.throws(() => allocIova(space({ reserved: [[0n, MAX_ADDRESS]] }), 0n, PAGE), {
    code: 'ENOSPC',
  });
  const tight = space({ allowed: [[PAGE, 2n * PAGE - 1n]], areas: [[PAGE, PAGE]] });
  assert.throws(() => allocIova(tight, 0n, PAGE), { code: 'ENOSPC' });
});

test('IOVA 0 is never chosen, the first page begins', () => {
  assert.equal(allocIova(space({}), 0n, 1n), PAGE);
});

test('the alignment is that of the length, as far as the source has it, and 2 MiB at most', () => {
  assert.equal(allocIova(space({}), 0n, 8n * PAGE), 8n * PAGE);
  assert.equal(allocIova(space({}), 2n * PAGE, 8n * PAGE), 2n * PAGE);
  assert.equal(allocIova(space({}), 0n, 2n ** 30n), 2n ** 21n);
});

test('the offset in the page of the source is kept', () => {
  assert.equal(allocIova(space({}), 0x10_0123n, 10n) % PAGE, 0x123n);
});

test('areas and reservations are gone around, first fit', () => {
  const parts = {
    areas: [[PAGE, 3n * PAGE - 1n] as const],
    reserved: [[3n * PAGE, 4n * PAGE] as const],
  };
  assert.equal(allocIova(space(parts), 0n, PAGE), 5n * PAGE);
});

test('the allowed ranges are tried in order, and nothing else', () => {
  const allowed: Range[] = [
    [10n * PAGE, 11n * PAGE - 1n],
    [20n * PAGE, 29n * PAGE],
  ];
  assert.equal(allocIova(space({ allowed }), 0n, PAGE), 10n * PAGE);
  assert.equal(allocIova(space({ allowed }), 0n, 2n * PAGE), 20n * PAGE);
  assert.throws(() => allocIova(space({ allowed }), 0n, 16n * PAGE), { code: 'ENOSPC' });
  assert.throws(() => allocIova(space({ allowed: [[0n, PAGE - 1n]] }), 0n, 1n), { code: 'ENOSPC' });
});

test('allowed ranges without a gap between them are one', () => {
  const allowed: Range[] = [
    [10n * PAGE, 11n * PAGE - 1n],
    [20n * PAGE, 22n * PAGE - 1n],
    [22n * PAGE, 29n * PAGE],
    [40n * PAGE, 60n * PAGE],
  ];
  assert.equal(allocIova(space({ allowed }), PAGE, 3n * PAGE), 20n * PAGE);
  assert.equal(allocIova(space({ allowed }), PAGE, 10n * PAGE), 40n * PAGE);
});

test('a hole whose candidate is its last byte does not fit (start >= last)', () => {
  assert.throws(() => allocIova(space({ allowed: [[2n * PAGE, 2n * PAGE]] }), 0n, 1n), {
    code: 'ENOSPC',
  });
  assert.equal(allocIova(space({ allowed: [[2n * PAGE, 2n * PAGE + 1n]] }), 0n, 1n), 2n * PAGE);
});

test('the last page of the address space is never chosen', () => {
  const end = MAX_ADDRESS - PAGE;
  const allowed: Range[] = [[end - PAGE + 1n, MAX_ADDRESS]];
  assert.equal(allocIova(space({ allowed }), 0n, PAGE / 2n) <= end, true);
  assert.throws(
    () => allocIova(space({ allowed: [[MAX_ADDRESS - PAGE + 1n, MAX_ADDRESS]] }), 0n, 1n),
    {
      code: 'ENOSPC',
    },
  );
});

test('an alignment that carries over the end does not fit', () => {
  const allowed: Range[] = [[MAX_ADDRESS - 2n * PAGE, MAX_ADDRESS]];
  assert.throws(() => allocIova(space({ allowed }), 0n, 2n ** 21n), { code: 'ENOSPC' });
});
