import assert from 'node:assert/strict';
import test from 'node:test';
import { romBytes } from './rom.ts';

/** One image of `sectors` times 512 bytes, its data structure at 0x40. */
function image(sectors: number, last: boolean): Uint8Array {
  const bytes = new Uint8Array(sectors * 512);
  bytes.set([0x55, 0xaa]);
  bytes[0x18] = 0x40;
  bytes.set([0x50, 0x43, 0x49, 0x52], 0x40);
  bytes[0x4a] = 0x18;
  bytes[0x50] = sectors;
  bytes[0x55] = last ? 0x80 : 0;
  return bytes;
}

test('romBytes counts images up to the one that says it is the last', () => {
  const two = Uint8Array.from([...image(2, false), ...image(1, true), ...image(1, true)]);
  assert.equal(romBytes(image(4, true), 65_536), 2048);
  assert.equal(romBytes(two, 65_536), 1536);
});

test('romBytes finds nothing without signatures, and no more than the window shows', () => {
  assert.equal(romBytes(new Uint8Array(2048), 2048), 0);
  const broken = image(1, true);
  broken[0x40] = 0;
  assert.equal(romBytes(broken, 2048), 0);
  assert.equal(romBytes(image(8, true), 2048), 2048);
  assert.equal(romBytes(image(2, false), 2048), 1024, 'what follows is not an image');
});
