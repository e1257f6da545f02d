/**
 * What an administrator does to a machine before a device can be assigned, as data: performed on a model first, printed as
 * shell commands for a host. No rule stands here: a model refuses what Linux would refuse.
 *
 * After Documentation/ABI/testing/sysfs-bus-pci (driver_override, unbind, drivers_probe, sriov_numvfs).
 */
import { Errno } from '../base/errno.ts';
import type { PciSystem } from '../kernel/pci-system.ts';

export type Operation =
  /** virtual functions of `device` go away */
  | { readonly kind: 'disable-vfs'; readonly device: string; readonly count: number }
  /** the driver lets go of a companion, and no module that is loaded later takes it again */
  | { readonly kind: 'unbind'; readonly device: string; readonly driver: string }
  /** vfio-pci takes the device instead of `driver` */
  | { readonly kind: 'bind'; readonly device: string; readonly driver: string | undefined };

export const VFIO_PCI = 'vfio-pci';

/** Performs `operation` on a model. @returns the refusal; undefined when it is done */
export function perform(pci: PciSystem, operation: Operation): Errno | undefined {
  const device = pci.core.device(operation.device);
  if (device === undefined) return new Errno('ENODEV', `there is no device ${operation.device}`);
  const write = (start: (done: (error?: Errno) => void) => void): Errno | undefined => {
    let answer: Errno | undefined;
    try {
      start((error) => {
        answer = error;
      });
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      answer = error;
    }
    return answer;
  };
  const unbind = (driver: string): Errno | undefined =>
    write((done) => {
      pci.core.unbind(driver, device.name, done);
    });
  switch (operation.kind) {
    case 'disable-vfs':
      return write(() => {
        pci.setVirtualFunctions(device.name, 0);
      });
    case 'unbind':
      pci.core.setOverride(device, VFIO_PCI);
      return unbind(operation.driver);
    case 'bind': {
      pci.core.setOverride(device, VFIO_PCI);
      const refused = operation.driver === undefined ? undefined : unbind(operation.driver);
      return (
        refused ??
        write((done) => {
          pci.core.bind(VFIO_PCI, device.name, done);
        })
      );
    }
  }
}

/** "unbind 0000:01:00.1 from snd_hda_intel" */
export function sentenceOf(operation: Operation): string {
  switch (operation.kind) {
    case 'disable-vfs':
      return `turn off the ${operation.count} virtual functions of ${operation.device}`;
    case 'unbind':
      return `unbind ${operation.device} from ${operation.driver}`;
    case 'bind':
      return operation.driver === undefined
        ? `bind ${operation.device} to ${VFIO_PCI}`
        : `bind ${operation.device} to ${VFIO_PCI} instead of ${operation.driver}`;
  }
}

/** Shell commands for root. driver_override, not new_id: that would take every card of the same kind. */
export function commandsOf(operation: Operation): string[] {
  const { device } = operation;
  const at = `/sys/bus/pci/devices/${device}`;
  switch (operation.kind) {
    case 'disable-vfs':
      return [`echo 0 > ${at}/sriov_numvfs`];
    case 'unbind':
      return [`echo ${VFIO_PCI} > ${at}/driver_override`, `echo ${device} > ${at}/driver/unbind`];
    case 'bind':
      return [
        `echo ${VFIO_PCI} > ${at}/driver_override`,
        ...(operation.driver === undefined ? [] : [`echo ${device} > ${at}/driver/unbind`]),
        `echo ${device} > /sys/bus/pci/drivers_probe`,
      ];
  }
}
