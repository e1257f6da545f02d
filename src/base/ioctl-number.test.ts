import assert from 'node:assert/strict';
import test from 'node:test';
import { _IO, _IOR, _IOW, _IOWR } from './ioctl-number.ts';

// Well-known numbers, from ioctl_list(2) and linux/fs.h, linux/tty.h: TIOCGPTN, TIOCSPTLCK, FS_IOC_GETFLAGS, FICLONE, FIFREEZE.
test('_IO, _IOR, _IOW and _IOWR give the numbers of well-known ioctls', () => {
  assert.equal(_IO('T', 0x30), 0x5430);
  assert.equal(_IOR('T', 0x30, 4), 0x8004_5430);
  assert.equal(_IOW('T', 0x31, 4), 0x4004_5431);
  assert.equal(_IOR('f', 1, 8), 0x8008_6601);
  assert.equal(_IOW('\u0094', 9, 4), 0x4004_9409);
  assert.equal(_IOWR('X', 119, 4), 0xc004_5877);
});
