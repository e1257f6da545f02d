import assert from 'node:assert/strict';
import test from 'node:test';
import { COMMAND } from '../../machine/pci/pci-regs.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { countOf, CONFIG, DeviceLab, PLAIN } from '../../testing/device-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const GET = uapi.VFIO_DEVICE_FEATURE_GET;
const SET = uapi.VFIO_DEVICE_FEATURE_SET;
const PROBE = uapi.VFIO_DEVICE_FEATURE_PROBE;
const BAR_2 = 2 * 2 ** 40;

class FeatureLab extends DeviceLab {
  readonly plain = this.open(PLAIN);

  /** VFIO_DEVICE_FEATURE with a payload. @returns what it answers, or the errno */
  feature(flags: number, payload: Uint8Array = new Uint8Array()): number | string {
    const bytes = new Uint8Array(8 + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, bytes.length, true);
    view.setUint32(4, flags, true);
    bytes.set(payload, 8);
    const address = this.client.allocate(1);
    this.client.write(address, bytes);
    let answer = 0;
    const outcome = this.try(() => {
      answer = this.client.ioctl(this.plain.fd, uapi.VFIO_DEVICE_FEATURE, address);
    });
    return outcome === 'ok' ? answer : outcome;
  }

  dmaBuf(bar: number, ...ranges: readonly (readonly [bigint, bigint])[]): number | string {
    const payload = new Uint8Array(16 + 16 * ranges.length);
    const view = new DataView(payload.buffer);
    view.setUint32(0, bar, true);
    view.setUint32(12, ranges.length, true);
    ranges.forEach(([offset, length], i) => {
      view.setBigUint64(16 + 16 * i, offset, true);
      view.setBigUint64(24 + 16 * i, length, true);
    });
    return this.feature(GET | uapi.VFIO_DEVICE_FEATURE_DMA_BUF, payload);
  }
}

test('features that vfio-pci does not have are ENOTTY, also when probed', () => {
  const lab = new FeatureLab();
  for (const index of [
    uapi.VFIO_DEVICE_FEATURE_MIGRATION,
    uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
    uapi.VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
    99,
  ]) {
    assert.equal(lab.feature(PROBE | SET | index), 'ENOTTY', `feature ${index}`);
  }
  assert.equal(lab.feature(PROBE | GET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY), 'EINVAL');
});

test('in low power every access wakes the device, and only user space can end it', () => {
  const lab = new FeatureLab();
  const enter = SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
  const leave = SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
  assert.equal(lab.feature(enter), 0);
  assert.equal(lab.feature(enter), 'EINVAL', 'it is already');
  assert.equal(
    lab.try(() => lab.plain.read(4, CONFIG)),
    'ok',
  );
  assert.equal(lab.feature(leave), 0);
  assert.equal(lab.feature(leave), 0, 'nothing to leave');
});

test('low power with wake-up tells an eventfd', () => {
  const lab = new FeatureLab();
  const enter = SET | uapi.VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;
  const payload = new Uint8Array(8);
  const view = new DataView(payload.buffer);
  view.setInt32(0, -1, true);
  assert.equal(lab.feature(enter, payload), 'EINVAL');
  const wakeUp = lab.eventfd();
  view.setInt32(0, wakeUp.fd, true);
  assert.equal(lab.feature(enter, payload), 0);
  assert.equal(countOf(wakeUp), 0);
});

test('a dma-buf is of whole pages of a memory BAR', () => {
  const lab = new FeatureLab();
  assert.equal(lab.dmaBuf(2), 'EINVAL', 'no range');
  assert.equal(lab.dmaBuf(0, [0n, 4096n]), 'ENODEV', 'no BAR');
  assert.equal(lab.dmaBuf(7, [0n, 4096n]), 'ENODEV', 'configuration space');
  assert.equal(lab.dmaBuf(2, [0n, 100n]), 'EINVAL', 'no whole page');
  assert.equal(lab.dmaBuf(2, [0x1_0000n, 4096n]), 'EINVAL', 'beyond the end');
  assert.equal(typeof lab.dmaBuf(2, [0n, 4096n]), 'number');
  assert.equal(typeof lab.dmaBuf(2, [0n, 4096n], [8192n, 4096n]), 'number');
});

test('an ioeventfd writes a register when signalled, and nothing while decoding is off', () => {
  const lab = new FeatureLab();
  const eventfd = lab.eventfd();
  const add = (fd: number): string =>
    lab.try(() =>
      lab.plain.ioctl('VFIO_DEVICE_IOEVENTFD', {
        argsz: 32,
        flags: uapi.VFIO_DEVICE_IOEVENTFD_32,
        offset: BigInt(BAR_2 + 0x10),
        data: 0x55n,
        fd,
      }),
    );
  assert.equal(add(-1), 'ENODEV');
  assert.equal(add(eventfd.fd), 'ok');
  assert.equal(add(eventfd.fd), 'EEXIST');
  const word = (): number => lab.plain.read(1, BAR_2 + 0x10)[0] ?? -1;
  const setDecoding = (on: boolean): void => {
    lab.plain.write(Uint8Array.of(on ? COMMAND.MEMORY : 0), CONFIG + REGISTER.COMMAND);
  };
  setDecoding(false);
  eventfd.eventfd.write(1n);
  setDecoding(true);
  assert.equal(word(), 0);
  eventfd.eventfd.write(1n);
  assert.equal(word(), 0x55);
  assert.equal(add(-1), 'ok');
  lab.plain.write(Uint8Array.of(0), BAR_2 + 0x10);
  eventfd.eventfd.write(1n);
  assert.equal(word(), 0);
});
