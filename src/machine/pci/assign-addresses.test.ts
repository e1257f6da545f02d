import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readMachineFile } from '../file/read.ts';
import type { Machine } from '../machine.ts';
import { RESOURCE, resourceSize, type Resource } from './bar.ts';
import type { PciDevice } from './device.ts';

const load = (text: string): Machine => readMachineFile(text, 'test').machine;

function resourcesOf(device: PciDevice): readonly Resource[] {
  return device.resources;
}

const PREFETCH = 0x2000;
const IO = 0x100;

/** The window of `bridge` that a register of this kind lies in. */
function windowFor(bridge: PciDevice, { flags }: Resource): Resource | undefined {
  const which = (flags & IO) !== 0 ? 0 : (flags & PREFETCH) !== 0 ? 2 : 1;
  return resourcesOf(bridge)[RESOURCE.WINDOWS + which];
}

/** Aligned, inside every window above, disjoint. */
function checkPlaces(machine: Machine): number {
  const seen: Resource[] = [];
  for (const device of machine.devices) {
    for (const resource of resourcesOf(device).slice(0, RESOURCE.ROM)) {
      if (resource.flags === 0) continue;
      assert.equal(resource.start % resourceSize(resource), 0n, device.name);
      assert.ok(resource.start > 0n, `${device.name} has no address`);
      for (let at = device.bus.self; at !== undefined; at = at.bus.self) {
        const window = windowFor(at, resource);
        assert.ok(window !== undefined && window.flags !== 0, `${at.name} has no window`);
        assert.ok(resource.start >= window.start && resource.last <= window.last, device.name);
      }
      const space = resource.flags & IO;
      for (const other of seen) {
        const apart = resource.last < other.start || other.last < resource.start;
        assert.ok(apart || (other.flags & IO) !== space, `${device.name} overlaps`);
      }
      seen.push(resource);
    }
  }
  return seen.length;
}

test('firmware places registers inside the windows of their bridges', () => {
  const machine = load(`
kind: pc
devices:
  - { address: 00:01.0, type: root-port, secondary: 0000:01, bars: [ { index: 0, size: 4K, kind: memory32 } ] }
  - { address: 01:00.0, type: upstream-port, secondary: 0000:02 }
  - { address: 02:00.0, type: downstream-port, secondary: 0000:03 }
  - { address: 02:01.0, type: downstream-port, secondary: 0000:04 }
  - { address: 03:00.0, bars: [ { index: 0, size: 16M }, { index: 2, size: 4K, kind: io }, { index: 3, size: 16K, kind: memory32 } ] }
  - { address: 04:00.0, bars: [ { index: 0, size: 8G, prefetchable: true }, { index: 2, size: 256, kind: io } ] }
  - { address: 00:02.0, bars: [ { index: 0, size: 128K, kind: memory32 }, { index: 4, size: 32, kind: io } ] }
`);
  assert.equal(checkPlaces(machine), 8);
  const far = machine.get('0000:04:00.0');
  assert.ok(far !== undefined && (resourcesOf(far)[0]?.start ?? 0n) >= 1n << 32n);
});

test('a machine of many bridges still fits', () => {
  const lines = Array.from({ length: 200 }, (_, index) => {
    const bus = (index + 1).toString(16).padStart(2, '0');
    const slot = (index >> 3).toString(16).padStart(2, '0');
    return [
      `  - { address: 00:${slot}.${index & 7}, type: root-port, secondary: 0000:${bus} }`,
      `  - { address: ${bus}:00.0, bars: [ { index: 0, size: 1M, kind: memory32 }, { index: 2, size: 16M, prefetchable: true } ] }`,
    ].join('\n');
  });
  assert.equal(checkPlaces(load(`kind: pc\ndevices:\n${lines.join('\n')}\n`)), 400);
});

test('addresses that a file gives stay', () => {
  const machine = load(`
kind: pc
devices:
  - { address: 00:02.0, bars: [ { index: 0, size: 1M, kind: memory32, address: 0xfea00000 } ] }
`);
  const device = machine.get('0000:00:02.0');
  assert.deepEqual(device && resourcesOf(device)[0], {
    start: 0xfea0_0000n,
    last: 0xfeaf_ffffn,
    flags: 0x4_0200,
  });
});
