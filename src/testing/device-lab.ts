/**
 * DeviceLab: a machine with edu-like functions bound to vfio-pci, and a program that opened one by its own node. Calls by C names; the
 * hardware's side (raise an interrupt, read registers) is at hand.
 */
import assert from 'node:assert/strict';
import { Errno } from '../base/errno.ts';
import type { Eventfd } from '../client/eventfd.ts';
import { ClientFile, InProcessClient } from '../client/in-process.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { pciSystem, type PciSystemParts } from '../kernel/system.ts';
import { REGISTER } from '../machine/pci/config-space.ts';
import type { ManagedFunction } from '../machine/pci/managed-function.ts';
import { vfio_irq_set } from '../uapi/vfio.ts';

/** File offset of configuration space. */
export const CONFIG = 7 * 2 ** 40;

const FIRST = '0000:01:00.0';
/** Its BAR 2 is plain memory. */
export const PLAIN = '0000:01:00.1';

export const VGA = '0000:02:00.0';

const MACHINE = `kind: pc
name: device-lab
devices:
  - { address: 0000:00:01.0, type: root-port, secondary: 0000:01 }
  - { address: 0000:00:02.0, type: root-port, secondary: 0000:02 }
  - address: ${FIRST}
    ids: 1234:11e8
    driver: vfio-pci
    multifunction: true
    msi: 4
    msix: 3
    bars:
      - { index: 0, size: 1M, kind: memory32 }
      - { index: 2, size: 64K, kind: memory64, prefetchable: true }
      - { index: 4, size: 32, kind: io }
  - { address: ${PLAIN}, ids: 1234:0001, driver: vfio-pci, bars: [{ index: 2, size: 64K, kind: memory64 }] }
  - { address: ${VGA}, ids: 1234:1111, class: 0x030000, driver: vfio-pci }
`;

export type LabEventfd = { readonly fd: number; readonly eventfd: Eventfd };

export class DeviceLab {
  readonly system: PciSystemParts;
  readonly client = new InProcessClient();
  readonly iommufd: ClientFile;
  readonly file: ClientFile;
  readonly managed: ManagedFunction;

  constructor() {
    const machine = loadMachine(MACHINE, 'device-lab');
    // Described functions have no pin of their own yet.
    machine.get(FIRST)?.config.setU8(REGISTER.INTERRUPT_PIN, 1);
    this.system = pciSystem(machine);
    const { iommufd } = this.system;
    this.iommufd = new ClientFile(this.client, this.client.install(iommufd.open(this.client)));
    this.file = this.open(FIRST);
    const pci = machine.get(FIRST);
    const managed = pci && this.system.pci.managed(pci);
    assert.ok(managed);
    this.managed = managed;
  }

  /** Opens a device by its own node and binds it. */
  open(name: string): ClientFile {
    const device = this.system.pci.core.device(name);
    const vfio = device && this.system.vfio.deviceOf(device.iommu);
    assert.ok(vfio);
    const file = new ClientFile(
      this.client,
      this.client.install(this.system.vfio.openDevice(vfio)),
    );
    file.ioctl('VFIO_DEVICE_BIND_IOMMUFD', { argsz: 16, iommufd: this.iommufd.fd });
    return file;
  }

  /** "ok" or the errno. */
  try(action: () => unknown): string {
    try {
      action();
      return 'ok';
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return error.code;
    }
  }

  /** A register of configuration space as the program reads it. */
  config(offset: number, count: 1 | 2 | 4 = 4): number {
    const bytes = this.file.read(count, CONFIG + offset);
    return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
  }

  setConfig(offset: number, count: number, value: number): void {
    const bytes = Uint8Array.from({ length: count }, (_, i) => Math.floor(value / 2 ** (8 * i)));
    this.file.write(bytes, CONFIG + offset);
  }

  eventfd(): LabEventfd {
    return this.client.openEventfd();
  }

  /** SET_IRQS. @param data bytes for BOOL, fds for EVENTFD */
  setIrqs(
    call: {
      readonly index: number;
      readonly flags: number;
      readonly start?: number;
      readonly count: number;
    },
    data: readonly number[] = [],
  ): string {
    const wide = (call.flags & 4) !== 0;
    const head = vfio_irq_set.endOf('count');
    const bytes = new Uint8Array(head + data.length * (wide ? 4 : 1));
    const { index, flags, start = 0, count } = call;
    const struct = vfio_irq_set.make({ argsz: bytes.length, flags, index, start, count });
    vfio_irq_set.encode(struct, bytes);
    const view = new DataView(bytes.buffer);
    data.forEach((value, i) => {
      if (wide) view.setInt32(head + 4 * i, value, true);
      else view.setUint8(head + i, value);
    });
    const address = this.client.allocate(1);
    this.client.write(address, bytes);
    return this.try(() => this.client.ioctl(this.file.fd, SET_IRQS, address));
  }
}

const SET_IRQS = 0x3b6e;

/** What an eventfd counted; it is 0 afterwards. */
export function countOf({ eventfd }: LabEventfd): number {
  try {
    return Number(eventfd.read());
  } catch (error) {
    if (error instanceof Errno && error.code === 'EAGAIN') return 0;
    throw error;
  }
}
