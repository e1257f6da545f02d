/** The filter and the table of handlers name the same calls: one that is seen and not handled would cost for nothing. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { NR } from '../os/numbers.ts';
import { buildFilter } from './filter.ts';
import { SYSCALLS } from './syscalls/table.ts';

const EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K

/** Constants that the program compares with. */
function compared(program: Uint8Array): Set<number> {
  const view = new DataView(program.buffer);
  const constants = new Set<number>();
  for (let at = 0; at < program.length; at += 8) {
    if (view.getUint16(at, true) === EQUAL) constants.add(view.getUint32(at + 4, true));
  }
  return constants;
}

test('filter: every call that has a handler is looked at', () => {
  const constants = compared(buildFilter(960));
  const missing = [...SYSCALLS].filter(([nr]) => !constants.has(nr)).map(([, { name }]) => name);
  assert.deepEqual(missing, []);
});

test('filter: calls that have nothing to do with files of ours are not compared with', () => {
  const constants = compared(buildFilter(960));
  assert.ok(!constants.has(NR.poll) && !constants.has(NR.kill) && !constants.has(NR.epoll_wait));
});
