/** Copies from a client's memory, which is this process's own here, with what lies beside them kept. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { allocate, Arena, type Block } from '../../os/arena.ts';
import { sys6 } from '../../os/libc.ts';
import { READ_BLOCK } from '../../os/process.ts';
import { PhysicalMemory } from '../../machine/memory.ts';
import { ClientSpace } from './process.ts';
import { forgetReadAhead } from './read-ahead.ts';
import { SharedMemories } from './shared.ts';

const PAGE = 4096;
const PROT_READ_WRITE = 3;
const PROT_NONE = 0;
const NR_MPROTECT = 10;

/** This process as a client in the middle of a call. */
function ownSpace(): ClientSpace {
  const pins = new PhysicalMemory();
  const memory = { pins, shared: new SharedMemories(pins), callerWaits: () => true };
  const space = new ClientSpace(process.pid, memory);
  space.caller = process.pid;
  return space;
}

function read(space: ClientSpace, { address }: Block, offset: number, length: number): number[] {
  const into = new Uint8Array(length);
  space.copyIn(BigInt(address + offset), into);
  return [...into];
}

test('copyIn: bytes at the border of a block and across it are those that are there', () => {
  const space = ownSpace();
  const block = allocate(PAGE);
  for (let i = 0; i < PAGE; i++) block.bytes[i] = i % 251;
  for (const [offset, length] of [
    [0, 1],
    [READ_BLOCK - 1, 1],
    [READ_BLOCK - 1, 2],
    [READ_BLOCK, READ_BLOCK],
    [3, READ_BLOCK],
    [PAGE - 8, 8],
  ] as const) {
    const expected = [...block.bytes.subarray(offset, offset + length)];
    assert.deepEqual(read(space, block, offset, length), expected, `${offset}, ${length}`);
  }
});

test('copyIn: a block ends where readable memory ends, and only there', () => {
  const space = ownSpace();
  const block = new Arena(2 * PAGE).take(2 * PAGE);
  block.bytes.fill(7);
  assert.equal(sys6(NR_MPROTECT, block.address + PAGE, PAGE, PROT_NONE, 0, 0, 0), 0);
  assert.deepEqual(read(space, block, PAGE - 4, 4), [7, 7, 7, 7]);
  assert.throws(() => read(space, block, PAGE - 4, 5), { code: 'EFAULT' });
  assert.throws(() => read(space, block, PAGE, 1), { code: 'EFAULT' });
  assert.deepEqual(read(space, block, PAGE - 4, 4), [7, 7, 7, 7]);
  assert.equal(sys6(NR_MPROTECT, block.address + PAGE, PAGE, PROT_READ_WRITE, 0, 0, 0), 0);
  assert.deepEqual(read(space, block, PAGE - 4, 5), [7, 7, 7, 7, 7]);
});

test('copyIn: what was written during the call is seen', () => {
  const space = ownSpace();
  const block = allocate(PAGE);
  assert.deepEqual(read(space, block, 0, 4), [0, 0, 0, 0]);
  space.copyOut(BigInt(block.address + 8), new Uint8Array([1, 2]));
  assert.deepEqual(read(space, block, 8, 2), [1, 2]);
  assert.equal(space.writeLive(block.address + 8, new Uint8Array([3, 4])), true);
  assert.deepEqual(read(space, block, 8, 2), [3, 4]);
});

test('copyIn: the next call sees what the client has written in between', () => {
  const space = ownSpace();
  const block = allocate(PAGE);
  assert.deepEqual(read(space, block, 0, 4), [0, 0, 0, 0]);
  block.bytes[2] = 9;
  forgetReadAhead();
  assert.deepEqual(read(space, block, 0, 4), [0, 0, 9, 0]);
});

test('copyIn: another address space has bytes of its own', () => {
  const [one, other] = [ownSpace(), ownSpace()];
  const block = allocate(PAGE);
  assert.deepEqual(read(one, block, 0, 1), [0]);
  block.bytes[0] = 5;
  assert.deepEqual(read(other, block, 0, 1), [5]);
});

test('copyIn: nothing can be read from anywhere', () => {
  const space = ownSpace();
  for (const address of [0n, 5n, 2n ** 47n, 2n ** 64n - 1n]) {
    space.copyIn(address, new Uint8Array(0));
  }
  assert.deepEqual(read(space, allocate(8), 0, 1), [0]);
});

test('copyIn: kernel addresses and the end of the address space give EFAULT', () => {
  const space = ownSpace();
  for (const address of [0n, 2n ** 47n - 8n, 2n ** 47n, 2n ** 63n, 2n ** 64n - 4n]) {
    assert.throws(
      () => {
        space.copyIn(address, new Uint8Array(8));
      },
      { code: 'EFAULT' },
    );
  }
});
