/** Renderings of calls: text as strace would print it, JSON that a program can read. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { IOMMUFD_IOCTLS } from '../../uapi/ioctls.ts';
import type { TimedCall, WaitingCall } from './observer.ts';
import { eventJson, eventText, waitingJson, waitingText } from './format.ts';

const { struct } = IOMMUFD_IOCTLS.IOMMU_IOAS_MAP;

function bytesOf(iova: bigint, length = 0x1000n): Uint8Array {
  const bytes = new Uint8Array(struct.size);
  struct.encode(struct.make({ flags: 6, ioas_id: 1, user_va: 0x7000n, length, iova }), bytes);
  return bytes;
}

const event: TimedCall = {
  pid: 12,
  tid: 13,
  syscall: 'ioctl',
  arguments: ['3</dev/iommu>'],
  call: 'IOMMU_IOAS_MAP',
  struct: struct,
  input: bytesOf(0n),
  output: bytesOf(0x4000n),
  result: 0,
  microseconds: 12.34,
};

test('eventText shows the argument and what the call changed in it', () => {
  assert.equal(
    eventText(event, false),
    'ioctl(3</dev/iommu>, IOMMU_IOAS_MAP, {flags=WRITEABLE|READABLE, ioas_id=1, user_va=0x7000, length=0x1000, iova=0} => {iova=0x4000}) = 0 <12µs>',
  );
});

test('eventText of a refusal has the number, the words of strerror and the reason', () => {
  const refused: TimedCall = { ...event, result: -1, error: 'EINVAL', reason: 'length 0' };
  assert.match(
    eventText(refused, true),
    /^\[pid 12\] ioctl\(.*\) = -1 EINVAL \(Invalid argument\): length 0 <12µs>$/,
  );
});

test('eventText of an open names the new file', () => {
  const opened: TimedCall = {
    pid: 1,
    tid: 1,
    syscall: 'openat',
    arguments: ['AT_FDCWD', '"/dev/iommu"', 'O_RDWR'],
    result: 3,
    opened: '/dev/iommu',
    microseconds: 1,
  };
  assert.equal(
    eventText(opened, false),
    'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3</dev/iommu> <1µs>',
  );
});

test('a call that succeeded with a warning shows it, in text and JSON', () => {
  const warned: TimedCall = { ...event, warning: 'no IOMMU' };
  assert.match(eventText(warned, false), /\) = 0 \[no IOMMU\] <12µs>$/);
  const parsed = JSON.parse(eventJson(warned)) as Record<string, unknown>;
  assert.equal(parsed['warning'], 'no IOMMU');
});

test('eventJson is one line that parses, with numbers a double cannot hold as strings', () => {
  const line = eventJson({ ...event, input: bytesOf(0n, 0xffff_ffff_ffff_ffffn) });
  assert.ok(!line.includes('\n'));
  const parsed = JSON.parse(line) as Record<string, unknown>;
  assert.equal(parsed['call'], 'IOMMU_IOAS_MAP');
  assert.equal(parsed['result'], 0);
  assert.equal(parsed['microseconds'], 12.3);
  assert.deepEqual((parsed['input'] as Record<string, unknown>)['ioas_id'], 1);
});

const waiting: WaitingCall = {
  pid: 1,
  tid: 2,
  syscall: 'write',
  arguments: ['1000</sys/bus/pci/drivers/vfio-pci/unbind>', '12'],
  why: '0000:01:00.0 is in use',
};

test('waitingText shows a call without a result, and what it waits for', () => {
  assert.equal(
    waitingText(waiting, true),
    '[pid 1] write(1000</sys/bus/pci/drivers/vfio-pci/unbind>, 12) = ? <unfinished: 0000:01:00.0 is in use>',
  );
});

test('waitingJson has no result', () => {
  const parsed = JSON.parse(waitingJson(waiting)) as Record<string, unknown>;
  assert.deepEqual(parsed, {
    pid: 1,
    tid: 2,
    syscall: 'write',
    arguments: waiting.arguments,
    waitsFor: '0000:01:00.0 is in use',
  });
});

test('eventText says that the caller of a call answered later has ended', () => {
  const gone = eventText({ ...event, callerGone: true }, false);
  assert.match(gone, /= 0 <12µs> \(its caller had ended\)$/);
});
