import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Errno } from '../../base/errno.ts';
import { writeAttribute } from './tree.ts';
import { formatUevent, Uevents, type UeventAction } from './uevent.ts';
import { ueventAttribute } from './uevent-attribute.ts';

// lib/kobject_uevent.c: header, keys, each ended by a zero byte, the number last.
test('formatUevent is what a netlink socket gets', () => {
  const uevent = { action: 'add', devpath: '/x', subsystem: 'pci', keys: ['A=1'] } as const;
  assert.equal(
    formatUevent(uevent, 7),
    'add@/x\0ACTION=add\0DEVPATH=/x\0SUBSYSTEM=pci\0A=1\0SEQNUM=7\0',
  );
});

test('Uevents numbers every event, heard or not', () => {
  const uevents = new Uevents();
  const uevent = { action: 'add', devpath: '/x', subsystem: 'pci', keys: [] } as const;
  uevents.emit(uevent);
  const heard: number[] = [];
  const stop = uevents.listen((_, sequence) => heard.push(sequence));
  uevents.emit(uevent);
  stop();
  uevents.emit(uevent);
  assert.deepEqual(heard, [2]);
});

function write(text: string): readonly [UeventAction, readonly string[]] | string {
  const sent: [UeventAction, readonly string[]][] = [];
  const refused: Errno[] = [];
  const attribute = ueventAttribute((action, synthetic) => sent.push([action, synthetic]));
  writeAttribute(attribute, { bytes: Buffer.from(text), offset: 0 }, (error) => {
    if (error !== undefined) refused.push(error);
  });
  return refused[0]?.code ?? sent[0] ?? 'nothing';
}

const UUID = 'fe4d7c9d-b8c6-4a70-9ef1-3d8a58d18eed';

// Documentation/ABI/testing/sysfs-uevent
test('a write to uevent refuses unknown actions and malformed arguments', () => {
  assert.equal(write('added'), 'EINVAL');
  assert.equal(write('add nouuid'), 'EINVAL');
  assert.equal(write(`add ${UUID} A`), 'EINVAL');
});

test('a write to uevent sends an event with what was asked for', () => {
  assert.deepEqual(write('change\n'), ['change', ['SYNTH_UUID=0']]);
  assert.deepEqual(write(`add ${UUID} A=1 B=abc`), [
    'add',
    [`SYNTH_UUID=${UUID}`, 'SYNTH_ARG_A=1', 'SYNTH_ARG_B=abc'],
  ]);
});
