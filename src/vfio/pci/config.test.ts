import assert from 'node:assert/strict';
import test from 'node:test';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { CAP, COMMAND, EXP, HEADER, MSI } from '../../machine/pci/pci-regs.ts';
import { CONFIG, countOf, DeviceLab, PLAIN } from '../../testing/device-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const BAR0 = REGISTER.BAR0;
const BAR2 = 2 * 2 ** 40;

test('BARs tell their size to who writes ones, and keep the address that is written, without moving the real ones', () => {
  const lab = new DeviceLab();
  const real = lab.managed.config.u32(BAR0);
  lab.setConfig(BAR0, 4, 0xffff_ffff);
  assert.equal(lab.config(BAR0), 0xfff0_0000);
  lab.setConfig(BAR0 + 8, 8, Number.MAX_SAFE_INTEGER);
  assert.equal(lab.config(BAR0 + 8), 0xffff_000c, '64 KiB, 64 bits, prefetchable');
  lab.setConfig(BAR0 + 16, 4, 0xffff_ffff);
  assert.equal(lab.config(BAR0 + 16), 0xffff_ffe1, '32 bytes of I/O');
  lab.setConfig(BAR0 + 4, 4, 0xffff_ffff);
  assert.equal(lab.config(BAR0 + 4), 0, 'there is no BAR 1');
  lab.setConfig(BAR0, 4, 0x1234_5678);
  assert.equal(lab.config(BAR0), 0x1230_0000);
  assert.equal(lab.managed.config.u32(BAR0), real);
});

test('an access beyond the end is EFAULT and changes nothing', () => {
  const lab = new DeviceLab();
  assert.equal(
    lab.try(() => lab.file.read(4, CONFIG + 4094)),
    'EFAULT',
  );
  assert.equal(
    lab.try(() => lab.file.write(new Uint8Array(8).fill(0xff), CONFIG + 4092)),
    'EFAULT',
  );
  assert.equal(lab.file.read(4096, CONFIG).length, 4096);
});

test('ids and capability headers cannot be written; the interrupt line is a byte of the user alone', () => {
  const lab = new DeviceLab();
  const before = lab.config(0);
  lab.setConfig(0, 4, 0);
  assert.equal(lab.config(0), before);
  const hardware = lab.managed.config.u8(HEADER.INTERRUPT_LINE);
  lab.setConfig(HEADER.INTERRUPT_LINE, 2, 0x0255);
  assert.equal(lab.config(HEADER.INTERRUPT_LINE, 2), 0x0155, 'the pin is read-only');
  assert.equal(lab.managed.config.u8(HEADER.INTERRUPT_LINE), hardware);
});

test('memory decoding off makes BARs unreadable and mappings unusable until it is on again', () => {
  const lab = new DeviceLab();
  const file = lab.open(PLAIN);
  const grant = file.mmap(2n << 40n, 4096n);
  const usable = (): boolean | undefined => grant.usable?.();
  const decode = (on: boolean): void => {
    file.write(Uint8Array.of(on ? COMMAND.MEMORY : 0, 0), CONFIG + REGISTER.COMMAND);
  };
  decode(true);
  assert.equal(usable(), true);
  file.write(Uint8Array.of(1, 2, 3, 4), BAR2);
  decode(false);
  assert.equal(usable(), false);
  assert.equal(
    lab.try(() => file.read(4, BAR2)),
    'EIO',
  );
  decode(true);
  assert.equal(usable(), true);
  assert.deepEqual([...file.read(4, BAR2)], [1, 2, 3, 4]);
});

test('MSI is enabled by SET_IRQS alone, and by no more vectors than were set up', () => {
  const lab = new DeviceLab();
  const flags = lab.managed.config.findCapability(CAP.MSI) + MSI.FLAGS;
  lab.setConfig(flags, 2, MSI.ENABLE | MSI.QSIZE);
  assert.equal(lab.config(flags, 2) & (MSI.ENABLE | MSI.QSIZE), 0);
  const trigger = lab.eventfd();
  const set = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
  lab.setIrqs({ index: uapi.VFIO_PCI_MSI_IRQ_INDEX, flags: set, count: 2 }, [trigger.fd, -1]);
  assert.equal(countOf(trigger), 0);
  lab.setConfig(flags, 2, MSI.ENABLE | MSI.QSIZE);
  assert.equal(lab.config(flags, 2) & (MSI.ENABLE | MSI.QSIZE), MSI.ENABLE | (1 << 4));
});

test('the read request size follows the user, but not below the payload size of the hardware', () => {
  const lab = new DeviceLab();
  const control = lab.managed.pci.expressOffset + EXP.DEVICE_CONTROL;
  lab.managed.registers.update16(control, EXP.PAYLOAD, 2 << 5);
  lab.setConfig(control, 2, 5 << 12);
  assert.equal(lab.managed.config.u16(control) & EXP.READ_REQUEST, 5 << 12);
  lab.setConfig(control, 2, 0);
  assert.equal(lab.config(control, 2) & EXP.READ_REQUEST, 0, 'as the user wrote it');
  assert.equal(lab.managed.config.u16(control) & EXP.READ_REQUEST, 2 << 12);
});
