import assert from 'node:assert/strict';
import test from 'node:test';
import { COMMAND } from '../../machine/pci/pci-regs.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { countOf, DeviceLab } from '../../testing/device-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const TRIGGER = uapi.VFIO_IRQ_SET_ACTION_TRIGGER;
const EVENTFD = uapi.VFIO_IRQ_SET_DATA_EVENTFD | TRIGGER;
const LOOPBACK = uapi.VFIO_IRQ_SET_DATA_NONE | TRIGGER;
const UNMASK = uapi.VFIO_IRQ_SET_DATA_NONE | uapi.VFIO_IRQ_SET_ACTION_UNMASK;
const INTX = uapi.VFIO_PCI_INTX_IRQ_INDEX;
const MSI = uapi.VFIO_PCI_MSI_IRQ_INDEX;
const MSIX = uapi.VFIO_PCI_MSIX_IRQ_INDEX;

test('VFIO_DEVICE_SET_IRQS refuses what an index does not have', () => {
  const lab = new DeviceLab();
  assert.equal(lab.setIrqs({ index: 5, flags: LOOPBACK, count: 1 }), 'EINVAL');
  assert.equal(lab.setIrqs({ index: INTX, flags: EVENTFD, count: 2 }, [-1, -1]), 'EINVAL');
  assert.equal(lab.setIrqs({ index: MSI, flags: UNMASK, count: 1 }), 'ENOTTY');
  assert.equal(lab.setIrqs({ index: MSIX, flags: EVENTFD, count: 1 }, [999]), 'EBADF');
  assert.equal(lab.setIrqs({ index: INTX, flags: UNMASK, count: 1 }), 'EINVAL', 'not enabled');
  const { fd } = lab.eventfd();
  assert.equal(lab.setIrqs({ index: MSI, flags: EVENTFD, count: 1 }, [fd]), 'ok');
  assert.equal(lab.setIrqs({ index: INTX, flags: EVENTFD, count: 1 }, [fd]), 'EINVAL', 'MSI is on');
});

test('INTx is masked when it was delivered, and told again at unmask as long as the level is high', () => {
  const lab = new DeviceLab();
  const trigger = lab.eventfd();
  assert.equal(lab.setIrqs({ index: INTX, flags: EVENTFD, count: 1 }, [trigger.fd]), 'ok');
  const { pin } = lab.managed.hardware;
  pin.set(true);
  assert.equal(countOf(trigger), 1);
  assert.notEqual(lab.managed.config.u16(REGISTER.COMMAND) & COMMAND.INTX_DISABLE, 0, 'masked');
  assert.equal(
    lab.config(REGISTER.COMMAND, 2) & COMMAND.INTX_DISABLE,
    0,
    'the user does not see it',
  );
  assert.equal(lab.setIrqs({ index: INTX, flags: UNMASK, count: 1 }), 'ok');
  assert.equal(countOf(trigger), 1, 'still high');
  pin.set(false);
  assert.equal(lab.setIrqs({ index: INTX, flags: UNMASK, count: 1 }), 'ok');
  assert.equal(countOf(trigger), 0);
  pin.set(true);
  assert.equal(countOf(trigger), 1);
});

test('INTx Disable of the user holds interrupts back, and clearing it delivers what is pending', () => {
  const lab = new DeviceLab();
  const trigger = lab.eventfd();
  lab.setIrqs({ index: INTX, flags: EVENTFD, count: 1 }, [trigger.fd]);
  lab.setConfig(REGISTER.COMMAND, 2, COMMAND.MEMORY | COMMAND.INTX_DISABLE);
  lab.managed.hardware.pin.set(true);
  assert.equal(countOf(trigger), 0);
  lab.setConfig(REGISTER.COMMAND, 2, COMMAND.MEMORY);
  assert.equal(countOf(trigger), 1);
});

test('an eventfd unmasks INTx; a second one is EBUSY until the first is closed or taken away', () => {
  const lab = new DeviceLab();
  const [trigger, unmask, other] = [lab.eventfd(), lab.eventfd(), lab.eventfd()];
  lab.setIrqs({ index: INTX, flags: EVENTFD, count: 1 }, [trigger.fd]);
  const flags = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_UNMASK;
  assert.equal(lab.setIrqs({ index: INTX, flags, count: 1 }, [unmask.fd]), 'ok');
  assert.equal(lab.setIrqs({ index: INTX, flags, count: 1 }, [other.fd]), 'EBUSY');
  lab.managed.hardware.pin.set(true);
  assert.equal(countOf(trigger), 1);
  unmask.eventfd.write(1n);
  assert.equal(countOf(trigger), 1, 'unmasked while high');
  assert.equal(countOf(unmask), 0, 'the device took the count');
  lab.client.close(unmask.fd);
  assert.equal(lab.setIrqs({ index: INTX, flags, count: 1 }, [other.fd]), 'ok');
});

test('MSI reaches the eventfd of its vector only with bus mastering; loopback always', () => {
  const lab = new DeviceLab();
  const [first, second] = [lab.eventfd(), lab.eventfd()];
  assert.equal(lab.setIrqs({ index: MSI, flags: EVENTFD, count: 2 }, [first.fd, second.fd]), 'ok');
  assert.equal(lab.setIrqs({ index: MSI, flags: LOOPBACK, start: 1, count: 1 }), 'ok');
  assert.deepEqual([countOf(first), countOf(second)], [0, 1]);
  // What edu does when its interrupt is raised: vector 0.
  const raise = (): void => {
    lab.managed.hardware.model.write(0, 0x60, 4, 1n);
  };
  raise();
  assert.equal(countOf(first), 0);
  lab.setConfig(REGISTER.COMMAND, 2, COMMAND.MEMORY | COMMAND.MASTER);
  raise();
  assert.deepEqual([countOf(first), countOf(second)], [1, 0]);
});

test('where one fd of a call is bad, no vector of it keeps an eventfd', () => {
  const lab = new DeviceLab();
  const [first, second] = [lab.eventfd(), lab.eventfd()];
  assert.equal(lab.setIrqs({ index: MSIX, flags: EVENTFD, count: 2 }, [first.fd, second.fd]), 'ok');
  assert.equal(lab.setIrqs({ index: MSIX, flags: EVENTFD, count: 2 }, [first.fd, 999]), 'EBADF');
  assert.equal(lab.setIrqs({ index: MSIX, flags: LOOPBACK, count: 3 }), 'ok');
  assert.deepEqual([countOf(first), countOf(second)], [0, 0]);
});

test('MSI-X takes vectors while it is enabled, MSI does not', () => {
  const lab = new DeviceLab();
  const [first, late] = [lab.eventfd(), lab.eventfd()];
  lab.setIrqs({ index: MSIX, flags: EVENTFD, count: 1 }, [first.fd]);
  assert.equal(lab.setIrqs({ index: MSIX, flags: EVENTFD, start: 2, count: 1 }, [late.fd]), 'ok');
  assert.equal(lab.setIrqs({ index: MSIX, flags: LOOPBACK, start: 2, count: 1 }), 'ok');
  assert.equal(countOf(late), 1);
  assert.equal(lab.setIrqs({ index: MSIX, flags: LOOPBACK, count: 0 }), 'ok', 'off');
  lab.setIrqs({ index: MSI, flags: EVENTFD, count: 1 }, [first.fd]);
  assert.equal(
    lab.setIrqs({ index: MSI, flags: EVENTFD, start: 2, count: 1 }, [late.fd]),
    'EINVAL',
  );
});

test('removal of the device signals REQ once, and waits for the file', () => {
  const lab = new DeviceLab();
  const request = lab.eventfd();
  const index = uapi.VFIO_PCI_REQ_IRQ_INDEX;
  assert.equal(lab.setIrqs({ index, flags: LOOPBACK, count: 1 }), 'EINVAL', 'nothing in place');
  assert.equal(lab.setIrqs({ index, flags: EVENTFD, count: 1 }, [request.fd]), 'ok');
  let gone = false;
  lab.system.pci.core.unbind('vfio-pci', lab.managed.pci.name, () => {
    gone = true;
  });
  assert.equal(countOf(request), 1);
  assert.equal(gone, false);
  lab.file.close();
  assert.equal(gone, true);
});
