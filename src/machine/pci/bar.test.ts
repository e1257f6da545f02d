import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  barAddress,
  barAfterWrite,
  barOfResource,
  parseResource,
  readResources,
  resourceFlags,
  resourceSize,
  setBarAddress,
  RESOURCE,
  type Bar,
} from './bar.ts';
import { buildConfig } from './config-builder.ts';
import { REGISTER } from './config-space.ts';

const ONES = 0xffff_ffff;
const memory64: Bar = { index: 0, size: 0x2_0000_0000n, kind: 'memory64', prefetchable: true };
const io: Bar = { index: 2, size: 0x20n, kind: 'io', prefetchable: false };
const memory32: Bar = { index: 3, size: 0x4000n, kind: 'memory32', prefetchable: false };

// PCI Local Bus 3.0, section 6.2.5.1: software writes ones and reads back.
test('barAfterWrite of ones tells size and kind', () => {
  assert.equal(barAfterWrite(memory32, 0, ONES), 0xffff_c000);
  assert.equal(barAfterWrite(io, 0, ONES), 0xffff_ffe1);
  assert.equal(barAfterWrite(memory64, 0, ONES), 0x0000_000c);
  assert.equal(barAfterWrite(memory64, 1, ONES), 0xffff_fffe);
});

test('barAfterWrite keeps the flags whatever is written', () => {
  assert.equal(barAfterWrite(memory32, 0, 0xfe80_1234), 0xfe80_0000);
  assert.equal(barAfterWrite(io, 0, 0), 1);
});

test('readResources says what Linux says of registers', () => {
  const config = buildConfig({
    vendor: 0x8086,
    device: 0x10c9,
    classCode: 0x02_0000,
    bars: [memory64, io, memory32],
  });
  setBarAddress(config, memory64, 0x38_0000_0000n);
  setBarAddress(config, io, 0xc000n);
  setBarAddress(config, memory32, 0xfe80_0000n);
  config.setU32(REGISTER.ROM, 0xfe84_0001);
  const resources = readResources(config, { bars: [memory64, io, memory32], romSize: 0x800n });
  assert.equal(resources.length, RESOURCE.COUNT);
  assert.deepEqual(resources[0], {
    start: 0x38_0000_0000n,
    last: 0x39_ffff_ffffn,
    flags: 0x14_220c,
  });
  assert.deepEqual(resources[2], { start: 0xc000n, last: 0xc01fn, flags: 0x4_0101 });
  assert.deepEqual(resources[3], { start: 0xfe80_0000n, last: 0xfe80_3fffn, flags: 0x4_0200 });
  assert.deepEqual(resources[6], { start: 0xfe84_0000n, last: 0xfe84_07ffn, flags: 0x4_6200 });
  assert.equal(resourceSize(resources[1] ?? { start: 1n, last: 1n, flags: 0 }), 0n);
  assert.equal(barAddress(config, memory64), 0x38_0000_0000n);
});

test('readResources reads the windows of a bridge', () => {
  const config = buildConfig({
    vendor: 0x1b36,
    device: 0x000c,
    classCode: 0x06_0400,
    bridge: { primary: 0, secondary: 1, subordinate: 1 },
  });
  config.setU8(REGISTER.IO_BASE, 0xd0);
  config.setU8(REGISTER.IO_LIMIT, 0xd0);
  config.setU16(REGISTER.MEMORY_BASE, 0xfe60);
  config.setU16(REGISTER.MEMORY_LIMIT, 0xfe70);
  config.setU16(REGISTER.PREFETCH_BASE, 0xfd01);
  config.setU16(REGISTER.PREFETCH_LIMIT, 0xfd11);
  const windows = readResources(config, {}).slice(RESOURCE.WINDOWS, RESOURCE.WINDOWS + 3);
  assert.deepEqual(windows, [
    { start: 0xd000n, last: 0xdfffn, flags: 0x100 },
    { start: 0xfe60_0000n, last: 0xfe7f_ffffn, flags: 0x200 },
    { start: 0xfd00_0000n, last: 0xfd1f_ffffn, flags: 0x10_2201 },
  ]);
  config.setU16(REGISTER.MEMORY_BASE, 0xfff0);
  assert.equal(readResources(config, {})[RESOURCE.WINDOWS + 1]?.flags, 0);
});

test('a line of resource and the register behind it say the same', () => {
  for (const bar of [memory64, io, memory32]) {
    const flags = resourceFlags(bar).toString(16);
    const last = (0x1000n * bar.size + bar.size - 1n).toString(16);
    const line = `0x${(0x1000n * bar.size).toString(16)} 0x${last} 0x${flags}`;
    const resource = parseResource(line);
    assert.deepEqual(resource && barOfResource(bar.index, resource), bar);
  }
  assert.equal(parseResource('0x10 0x20'), undefined);
});
