/** ClientSpace on the process of the test: the listing of its mappings, which kernels before 6.11 need for every question. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { allocate } from '../../os/arena.ts';
import { PhysicalMemory } from '../../machine/memory.ts';
import { ClientSpace } from './process.ts';
import { SharedMemories } from './shared.ts';

test('mappings: all of them, though the kernel hands the list out in pieces', () => {
  const pins = new PhysicalMemory();
  const shared = new SharedMemories(pins);
  const space = new ClientSpace(process.pid, { pins, shared, callerWaits: () => false });
  const text = readFileSync('/proc/self/maps', 'latin1');
  assert.ok(text.length > 2 * 4096, 'this process has more mappings than one read gives');
  const listed = space.mappings().map((mapping) => mapping.name());
  assert.ok(listed.includes('[stack]'), `${listed.length} mappings, and no stack`);
  space.end();
  assert.deepEqual(space.mappings(), []);
});

test('mappings: one that is asked for by an address is told as the list tells it, its name included', () => {
  const pins = new PhysicalMemory();
  const shared = new SharedMemories(pins);
  const space = new ClientSpace(process.pid, { pins, shared, callerWaits: () => false });
  // Those that stay as they are while the test runs.
  const lasting = space
    .mappings()
    .filter((mapping) => mapping.name() === '[stack]' || mapping.name().includes('/libc.so'));
  assert.ok(lasting.length > 1);
  for (const listed of lasting) {
    const asked = space.mappingAt(Math.floor((listed.end - 1) / 4096));
    assert.ok(asked !== undefined);
    assert.deepEqual({ ...asked, name: asked.name() }, { ...listed, name: listed.name() });
  }
  space.end();
});

test('copies: none from a caller that ended while an exec was under way, none to one in any case', () => {
  const pins = new PhysicalMemory();
  const shared = new SharedMemories(pins);
  let waits = true;
  const space = new ClientSpace(process.pid, { pins, shared, callerWaits: () => waits });
  const block = allocate(16);
  block.bytes.set([1, 2, 3, 4]);
  const into = new Uint8Array(4);
  space.caller = process.pid;
  waits = false;
  space.copyIn(BigInt(block.address), into);
  assert.deepEqual([...into], [1, 2, 3, 4]);
  const refused = { code: 'EFAULT', message: /has ended meanwhile/ };
  assert.throws(() => {
    space.copyOut(BigInt(block.address), new Uint8Array([9]));
  }, refused);
  space.mayExec = true;
  assert.throws(() => {
    space.copyIn(BigInt(block.address), into);
  }, refused);
  waits = true;
  space.copyIn(BigInt(block.address), into);
  space.copyOut(BigInt(block.address), new Uint8Array([9]));
  assert.equal(block.bytes[0], 9);
  space.end();
});
