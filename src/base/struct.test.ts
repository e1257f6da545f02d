import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { array, s32, s64, struct, u16, u32, u64, u8, union, type Static } from './struct.ts';

const inner = struct('inner', { a: u8, b: u32 });
const mixed = struct('mixed', {
  size: u32,
  tiny: u8,
  half: u16,
  nested: inner,
  wide: u64,
  signed: s32,
  bytes: array(u8, 3),
  pairs: array(inner, 2),
  last: s64,
});

test('struct() refuses the name of a field that it does not have', () => {
  assert.throws(() => mixed.offsetOf('nope' as 'size'), RangeError);
  assert.throws(() => mixed.endOf('nope' as 'size'), RangeError);
});

test('decode() refuses fewer bytes than the struct has', () => {
  assert.throws(() => mixed.decode(new Uint8Array(mixed.size - 1)), RangeError);
});

// Worked out by hand from the alignment rules of the System V ABI.
test('struct() lays fields out at natural alignment', () => {
  const offsets = Object.keys(mixed.fields).map((field) => mixed.offsetOf(field as 'size'));
  assert.deepEqual(offsets, [0, 4, 6, 8, 16, 24, 28, 32, 48]);
  assert.equal(mixed.size, 56);
  assert.equal(mixed.align, 8);
  assert.equal(mixed.endOf('bytes'), 31);
  assert.equal(inner.size, 8);
});

test('struct() rounds the size up to the alignment', () => {
  assert.equal(struct('tail', { wide: u64, tiny: u8 }).size, 16);
});

test('array() of count 0 is a flexible array: aligned, without size', () => {
  const flexible = struct('flexible', { count: u32, items: array(u64, 0) });
  assert.equal(flexible.offsetOf('items'), 8);
  assert.equal(flexible.size, 8);
  assert.deepEqual(flexible.decode(new Uint8Array(8)).items, []);
});

test('decode() is little-endian and honours the offset', () => {
  const two = struct('two', { a: u16, b: u32, c: u64 });
  const bytes = new Uint8Array([
    99, 0x34, 0x12, 0xff, 0xff, 0x78, 0x56, 0x34, 0x12, 1, 0, 0, 0, 0, 0, 0, 0x80,
  ]);
  assert.deepEqual(two.decode(bytes, 1), { a: 0x1234, b: 0x1234_5678, c: 0x8000_0000_0000_0001n });
});

test('encode() leaves padding as it was', () => {
  const bytes = new Uint8Array(inner.size).fill(0xaa);
  inner.encode({ a: 1, b: 2 }, bytes);
  assert.deepEqual([...bytes], [1, 0xaa, 0xaa, 0xaa, 2, 0, 0, 0]);
});

test('make() fills in the size and zeroes the rest', () => {
  assert.deepEqual(struct('sized', { size: u32, id: u32 }).make({ id: 7 }), { size: 8, id: 7 });
  assert.deepEqual(struct('info', { argsz: u32, flags: u32 }).make(), { argsz: 8, flags: 0 });
  assert.deepEqual(mixed.make().pairs, [inner.make(), inner.make()]);
});

const either = union({ narrow: inner, wide: u64 });
const tagged = struct('tagged', { op: u32, u: either, last: u32 });

test('union() takes the size and alignment of its largest member', () => {
  assert.equal(tagged.offsetOf('u'), 8);
  assert.equal(tagged.offsetOf('last'), 16);
  assert.equal(tagged.size, 24);
});

test('Union.read() shows the same bytes as each member, and write() changes them', () => {
  const value = tagged.make({ op: 3 });
  value.u.write('wide', 0x0000_0002_0000_0001n);
  assert.deepEqual(value.u.read('narrow'), { a: 1, b: 2 });
  const bytes = new Uint8Array(tagged.size);
  tagged.encode(value, bytes);
  assert.equal(tagged.decode(bytes).u.read('wide'), 0x0000_0002_0000_0001n);
  assert.throws(() => value.u.read('nope' as 'wide'), RangeError);
});

test('Union.write() of a short member keeps the bytes beyond it', () => {
  const value = either.zero();
  value.write('wide', 0xffff_ffff_ffff_ffffn);
  value.write('narrow', { a: 0, b: 0 });
  assert.equal(value.read('wide'), 0x0000_0000_ffff_ff00n);
});

test('a decoded union is a window on its bytes, and encodes into others', () => {
  const bytes = new Uint8Array(tagged.size + 5);
  const value = tagged.decode(bytes, 5);
  value.u.write('wide', 7n);
  assert.equal(tagged.decode(bytes, 5).u.read('wide'), 7n);
  for (const offset of [0, 5, 9]) {
    const others = new Uint8Array(tagged.size + offset);
    tagged.encode(value, others, offset);
    assert.equal(tagged.decode(others, offset).u.read('wide'), 7n);
  }
  tagged.encode(value, bytes, 5);
  assert.equal(tagged.decode(bytes, 5).u.read('wide'), 7n);
});

const whole = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff };
const plain = { noNullPrototype: true };
const innerValues = fc.record(
  { a: fc.integer({ min: 0, max: whole.u8 }), b: fc.integer({ min: 0, max: whole.u32 }) },
  plain,
);
const mixedValues: fc.Arbitrary<Static<typeof mixed>> = fc.record(
  {
    size: fc.integer({ min: 0, max: whole.u32 }),
    tiny: fc.integer({ min: 0, max: whole.u8 }),
    half: fc.integer({ min: 0, max: whole.u16 }),
    nested: innerValues,
    wide: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    signed: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    bytes: fc.array(fc.integer({ min: 0, max: whole.u8 }), { minLength: 3, maxLength: 3 }),
    pairs: fc.array(innerValues, { minLength: 2, maxLength: 2 }),
    last: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  },
  plain,
);

test('decode() gives back what encode() wrote, for all values and offsets', () => {
  fc.assert(
    fc.property(mixedValues, fc.nat(40), (value, offset) => {
      const bytes = new Uint8Array(mixed.size + offset);
      mixed.encode(value, bytes, offset);
      assert.deepEqual(
        mixed.decode(new DataView(bytes.buffer), offset),
        mixed.decode(bytes, offset),
      );
      assert.deepEqual(mixed.decode(bytes, offset), value);
    }),
  );
});

test('encode() writes what decode() read, byte for byte', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: mixed.size, maxLength: mixed.size }), (bytes) => {
      const again = bytes.slice();
      mixed.encode(mixed.decode(bytes), again);
      assert.deepEqual(again, bytes);
    }),
  );
});
