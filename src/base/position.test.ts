import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  ByteCount,
  MAX_ADDRESS,
  addressOf,
  firstOf,
  lastOf,
  offsetOf,
  pageOf,
  spanFrom,
  spanOf,
} from './position.ts';

const address = fc.bigInt({ min: 0n, max: MAX_ADDRESS });

test('positions: an address is its page times 4096 plus its offset, and comes back', () => {
  const edges = [0n, 1n, 0xfffn, 0x1000n, 0xffff_ffffn, 2n ** 32n, 2n ** 53n + 1n, MAX_ADDRESS];
  fc.assert(
    fc.property(fc.oneof(address, fc.constantFrom(...edges)), (value) => {
      assert.equal(BigInt(pageOf(value)) * 4096n + BigInt(offsetOf(value)), value);
      assert.ok(offsetOf(value) < 4096);
      assert.equal(addressOf(pageOf(value), offsetOf(value)), value);
    }),
  );
});

test('positions: a span from a length is the one that ends at its last byte, unless it wraps', () => {
  const length = fc.oneof(address, fc.bigInt({ min: 0n, max: 20_000n }));
  fc.assert(
    fc.property(address, length, (first, bytes) => {
      const last = first + bytes - 1n;
      const expected = bytes === 0n || last > MAX_ADDRESS ? undefined : spanOf(first, last);
      assert.deepEqual(spanFrom(first, bytes), expected);
    }),
  );
  assert.deepEqual(spanFrom(1n, MAX_ADDRESS), spanOf(1n, MAX_ADDRESS));
  assert.equal(spanFrom(2n, MAX_ADDRESS), undefined);
});

test('positions: a span keeps its ends', () => {
  fc.assert(
    fc.property(address, address, (a, b) => {
      const [first, last] = a < b ? [a, b] : [b, a];
      const span = spanOf(first, last);
      assert.equal(firstOf(span), first);
      assert.equal(lastOf(span), last);
    }),
  );
});

test('positions: lengths of disjoint spans add up, to all there is', () => {
  const ends = fc.uniqueArray(fc.oneof(address, fc.constantFrom(0n, MAX_ADDRESS)), {
    maxLength: 8,
  });
  fc.assert(
    fc.property(ends, (unordered) => {
      const sorted = [...unordered].sort((a, b) => (a < b ? -1 : 1));
      const count = new ByteCount();
      let expected = 0n;
      for (let i = 0; i + 1 < sorted.length; i += 2) {
        const [first = 0n, last = 0n] = sorted.slice(i, i + 2);
        count.add(spanOf(first, last));
        expected += last - first + 1n;
      }
      assert.equal(count.total, expected);
    }),
  );
  const all = new ByteCount();
  all.add(spanOf(0n, MAX_ADDRESS));
  assert.equal(all.total, 2n ** 64n);
});
