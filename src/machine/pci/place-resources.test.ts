import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readMachineFile } from '../file/read.ts';
import type { Machine } from '../machine.ts';

const load = (devices: string): Machine =>
  readMachineFile(`kind: pc\ndevices:\n${devices}`, 'test').machine;

const start = (machine: Machine, name: string, index = 0): bigint | undefined =>
  machine.get(name)?.resources[index]?.start;

// drivers/pci/setup-res.c: the first free place, whatever the register said.
test('a function that is found again gets the first free place of its bus', () => {
  const machine = load(
    `  - { address: 00:02.0, bars: [ { index: 0, size: 1M, kind: memory32, address: 0xfea00000 } ] }\n` +
      `  - { address: 00:03.0, bars: [ { index: 0, size: 4K, kind: memory32, address: 0xfeb00000 }, { index: 2, size: 32, kind: io, address: 0xe040 } ] }\n`,
  );
  machine.remove('0000:00:03.0');
  machine.rescan();
  assert.equal(start(machine, '0000:00:03.0'), 0x4000_0000n);
  assert.equal(start(machine, '0000:00:03.0', 2), 0x1000n);
  machine.remove('0000:00:02.0');
  machine.rescan();
  assert.equal(start(machine, '0000:00:02.0'), 0x4010_0000n);
});

test('behind a bridge its windows count, and wide prefetchable registers go above 4 GiB on a root bus', () => {
  const machine = load(
    `  - { address: 00:01.0, type: root-port, secondary: 0000:01 }\n` +
      `  - { address: 01:00.0, bars: [ { index: 0, size: 4K, kind: memory32 } ] }\n` +
      `  - { address: 00:02.0, bars: [ { index: 0, size: 64K, kind: memory64, prefetchable: true } ] }\n`,
  );
  const before = start(machine, '0000:01:00.0');
  for (const name of ['0000:01:00.0', '0000:00:02.0']) machine.remove(name);
  machine.rescan();
  assert.equal(start(machine, '0000:01:00.0'), before);
  assert.equal(start(machine, '0000:00:02.0'), 0x1_0000_0000n);
});

test('ports avoid the aliases of ISA cards', () => {
  const bar = (size: number): string => `bars: [ { index: 0, size: ${size}, kind: io } ]`;
  const machine = load(
    `  - { address: 00:02.0, ${bar(64)} }\n  - { address: 00:03.0, ${bar(256)} }\n`,
  );
  for (const name of ['0000:00:02.0', '0000:00:03.0']) machine.remove(name);
  machine.rescan();
  assert.equal(start(machine, '0000:00:03.0'), 0x1000n);
  assert.equal(start(machine, '0000:00:02.0'), 0x1400n);
});
