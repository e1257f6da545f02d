import assert from 'node:assert/strict';
import test from 'node:test';
import { ConfigSpace } from './config-space.ts';
import { ConfigRegisters, covers } from './registers.ts';

function registers(bytes: readonly number[]): ConfigRegisters {
  const config = new ConfigSpace(new Uint8Array(256));
  config.bytes.set(bytes);
  const writable = new Uint8Array(256);
  const clearable = new Uint8Array(256);
  writable.set([0x0f, 0xff]);
  clearable[2] = 0xf0;
  return new ConfigRegisters(config, { writable, clearable });
}

test('a write changes writable bits, clears those that a 1 clears, and leaves the others', () => {
  const some = registers([0xa5, 0x00, 0xff, 0x77]);
  some.write(0, 4, 0x00_30_12_3a);
  assert.deepEqual([...some.config.bytes.subarray(0, 4)], [0xaa, 0x12, 0xcf, 0x77]);
});

test('update16 writes nothing where nothing changes', () => {
  const some = registers([0x05]);
  let writes = 0;
  some.onWrite(() => {
    writes++;
  });
  some.update16(0, 0x0f, 0x05);
  assert.equal(writes, 0);
  some.update16(0, 0x0f, 0x06);
  assert.equal(writes, 1);
  assert.equal(some.read(0, 2), 0x0006);
});

test('covers says whether any byte of a register was written', () => {
  const write = { first: 4, last: 5, value: 0 };
  assert.equal(covers(write, 4, 2), true);
  assert.equal(covers(write, 5, 4), true);
  assert.equal(covers(write, 0, 4), false);
  assert.equal(covers(write, 6, 2), false);
});
