/** ClientSpace on the process of the test: the listing of its mappings, which kernels before 6.11 need for every question. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { PhysicalMemory } from '../machine/memory.ts';
import { ClientSpace } from './process-memory.ts';
import { SharedMemories } from './shared-memory.ts';

test('mappings: all of them, though the kernel hands the list out in pieces', () => {
  const pins = new PhysicalMemory();
  const shared = new SharedMemories(pins);
  const space = new ClientSpace(process.pid, { pins, shared, callerWaits: () => false });
  const text = readFileSync('/proc/self/maps', 'latin1');
  assert.ok(text.length > 2 * 4096, 'this process has more mappings than one read gives');
  const listed = space.mappings().map(({ name }) => name);
  assert.ok(listed.includes('[stack]'), `${listed.length} mappings, and no stack`);
  space.end();
  assert.deepEqual(space.mappings(), []);
});
