import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../../base/errno.ts';
import type { MmapGrant } from '../../base/task.ts';
import type { ClientFile } from '../../client/in-process.ts';
import { COMMAND } from '../../machine/pci/pci-regs.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { DeviceLab, PLAIN, VGA } from '../../testing/device-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const REGION = 2 ** 40;
const PAGE = 4096n;

const COMMAND_AT = 7 * REGION + REGISTER.COMMAND;

function codeOf(action: () => unknown): string {
  try {
    action();
    return 'ok';
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    return error.code;
  }
}

test('a BAR answers with memory decoding on only, and an access ends where the BAR does', () => {
  const lab = new DeviceLab();
  const file = lab.open(PLAIN);
  const bar = 2 * REGION;
  file.write(Uint8Array.of(0, 0), COMMAND_AT);
  assert.equal(
    codeOf(() => file.read(4, bar)),
    'EIO',
  );
  file.write(Uint8Array.of(COMMAND.MEMORY, 0), COMMAND_AT);
  assert.equal(file.write(Uint8Array.of(1, 2, 3, 4, 5), bar + 3), 5);
  assert.deepEqual([...file.read(5, bar + 3)], [1, 2, 3, 4, 5]);
  assert.equal(file.read(8, bar + 0xfffc).length, 4);
  assert.equal(
    codeOf(() => file.read(1, bar + 0x1_0000)),
    'EINVAL',
  );
  assert.equal(
    codeOf(() => file.read(1, 0)),
    'EINVAL',
    'no BAR 0',
  );
  assert.equal(
    codeOf(() => file.read(1, 9 * REGION)),
    'EINVAL',
    'no region 9',
  );
});

test('a mapping of a BAR shows what is written, and cannot be used while decoding is off', () => {
  const lab = new DeviceLab();
  const file = lab.open(PLAIN);
  const map = (region: number, pages: bigint): MmapGrant =>
    file.mmap(BigInt(region) << 40n, pages * PAGE);
  const grant = map(2, 16n);
  const usable = (): boolean | undefined => grant.usable?.();
  assert.equal(grant.kind, 'memory');
  file.write(Uint8Array.of(0, 0), COMMAND_AT);
  assert.equal(usable(), false);
  file.write(Uint8Array.of(COMMAND.MEMORY, 0), COMMAND_AT);
  assert.equal(usable(), true);
  file.write(Uint8Array.of(7), 2 * REGION + 9);
  const seen = new Uint8Array(1);
  grant.backing.read(9, seen);
  assert.deepEqual([...seen], [7]);
  assert.equal(
    codeOf(() => map(2, 17n)),
    'EINVAL',
    'beyond the end',
  );
  assert.equal(
    codeOf(() => map(7, 1n)),
    'EINVAL',
    'configuration space',
  );
  file.close();
  assert.equal(usable(), false);
});

test('only a VGA device has the region of legacy addresses, with gaps', () => {
  const lab = new DeviceLab();
  const info = (file: ClientFile): unknown =>
    file.ioctl('VFIO_DEVICE_GET_REGION_INFO', {
      argsz: 32,
      index: uapi.VFIO_PCI_VGA_REGION_INDEX,
    });
  assert.equal(
    codeOf(() => info(lab.file)),
    'EINVAL',
  );
  const file = lab.open(VGA);
  assert.equal(
    codeOf(() => info(file)),
    'ok',
  );
  const vga = uapi.VFIO_PCI_VGA_REGION_INDEX * REGION;
  assert.deepEqual([...file.read(4, vga + 0x3ba)], [0xff, 0xff]);
  assert.equal(file.write(new Uint8Array(8), vga + 0x3dc), 4);
  assert.equal(
    codeOf(() => file.read(1, vga + 0x3bc)),
    'EINVAL',
  );
  assert.equal(file.read(16, vga + 0xb_fff8).length, 8);
  assert.equal(
    codeOf(() => file.read(1, vga + 0xc_0000)),
    'EINVAL',
  );
});
