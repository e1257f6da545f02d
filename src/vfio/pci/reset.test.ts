import assert from 'node:assert/strict';
import test from 'node:test';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { COMMAND } from '../../machine/pci/pci-regs.ts';
import { DeviceLab, PLAIN } from '../../testing/device-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const INFO = uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO;
const RESET = uapi.VFIO_DEVICE_PCI_HOT_RESET;

function info(lab: DeviceLab, room: number): { outcome: string; words: Uint32Array } {
  const address = lab.client.allocate(1);
  const bytes = new Uint8Array(12 + 8 * room);
  new DataView(bytes.buffer).setUint32(0, bytes.length, true);
  lab.client.write(address, bytes);
  const outcome = lab.try(() => lab.client.ioctl(lab.file.fd, INFO, address));
  return { outcome, words: new Uint32Array(lab.client.read(address, bytes.length).buffer) };
}

function hotReset(lab: DeviceLab, fds: readonly number[]): string {
  const address = lab.client.allocate(1);
  const words = new Uint32Array([12 + 4 * fds.length, 0, fds.length, ...fds]);
  lab.client.write(address, new Uint8Array(words.buffer));
  return lab.try(() => lab.client.ioctl(lab.file.fd, RESET, address));
}

test('hot reset info tells how many functions there are where there is no room for them', () => {
  const lab = new DeviceLab();
  const { outcome, words } = info(lab, 1);
  assert.equal(outcome, 'ENOSPC');
  assert.equal(words[2], 2);
});

test('by device node, a bound function has its ID, and an unbound one of an owned group counts as owned', () => {
  const lab = new DeviceLab();
  const before = info(lab, 2);
  assert.equal(before.outcome, 'ok');
  assert.equal(before.words[1], 3, 'DEV_ID and DEV_ID_OWNED');
  assert.notEqual(before.words[3], 0);
  assert.equal(before.words[5], uapi.VFIO_PCI_DEVID_OWNED);
  lab.open(PLAIN);
  assert.notEqual(info(lab, 2).words[5], uapi.VFIO_PCI_DEVID_OWNED);
});

test('hot reset by device node takes no group files', () => {
  const lab = new DeviceLab();
  assert.equal(hotReset(lab, [lab.iommufd.fd]), 'EINVAL');
  assert.equal(hotReset(lab, []), 'ok');
});

test('hot reset is refused while a function of the bus has another driver', () => {
  const lab = new DeviceLab();
  lab.system.pci.core.unbind('vfio-pci', PLAIN, () => undefined);
  assert.equal(hotReset(lab, []), 'EINVAL');
});

test('a function without a reset of its own and with a sister has none; a hot reset keeps its registers', () => {
  const lab = new DeviceLab();
  assert.equal(
    lab.try(() => lab.file.ioctl('VFIO_DEVICE_RESET')),
    'EINVAL',
  );
  lab.setConfig(REGISTER.COMMAND, 2, COMMAND.MEMORY | COMMAND.MASTER);
  const before = lab.file.read(64, 7 * 2 ** 40);
  assert.equal(hotReset(lab, []), 'ok');
  assert.deepEqual(lab.file.read(64, 7 * 2 ** 40), before);
});
