/** ProcessTable on the process of the test. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { PhysicalMemory } from '../machine/memory.ts';
import { PollSet } from '../os/files.ts';
import { ProcessTable } from './process-table.ts';
import { SharedMemories } from './memory/shared.ts';

const INIT = 1;

test('spaceOf: an exec may still come while the thread that tried it is there and has not called again', () => {
  const pins = new PhysicalMemory();
  const memory = { pins, shared: new SharedMemories(pins), callerWaits: () => true };
  const table = new ProcessTable(new PollSet(), memory);
  const thread = table.thread(process.pid);
  assert.ok(thread !== undefined);
  const { execs } = thread.process;
  const space = table.spaceOf(thread);
  assert.equal(space.mayExec, false);
  // No thread of this process has that number: one that tried and has ended.
  execs.add(INIT);
  assert.equal(table.spaceOf(thread), space);
  assert.deepEqual([[...execs], space.mayExec], [[], false]);
  execs.add(process.pid);
  assert.equal(table.spaceOf(thread), space);
  assert.deepEqual([[...execs], space.mayExec], [[], false]);
  space.end();
  execs.add(INIT);
  assert.notEqual(table.spaceOf(thread), space, 'the space has gone: the exec took place');
  assert.deepEqual([...execs], []);
  table.spaceOf(thread).end();
});

test('spaceOf: while another thread execs, copies ask whether the caller still waits', () => {
  const pins = new PhysicalMemory();
  const memory = { pins, shared: new SharedMemories(pins), callerWaits: () => true };
  const table = new ProcessTable(new PollSet(), memory);
  const thread = table.thread(process.pid);
  const other = readdirSync('/proc/self/task')
    .map(Number)
    .find((tid) => tid !== process.pid);
  assert.ok(thread !== undefined && other !== undefined);
  thread.process.execs.add(other);
  const space = table.spaceOf(thread);
  assert.deepEqual([[...thread.process.execs], space.mayExec], [[other], true]);
  space.end();
});
