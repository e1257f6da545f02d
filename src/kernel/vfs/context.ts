/** What the files of sysfs work on: one machine, and who hears of what happens in it. */
import type { PciFunction } from '../pci-function.ts';
import type { PciSystem } from '../pci-system.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { devpathOf, devicePath } from './paths.ts';
import type { NameChanges } from './tree.ts';
import type { UeventAction, Uevents } from './uevent.ts';

export type SysfsContext = {
  readonly system: PciSystem;
  readonly changes: NameChanges;
  readonly uevents: Uevents;
  /** how many processors there are, for the lists of those that are near a device */
  readonly cpus: number;
};

/** Keys of a PCI function's uevents. After pci_uevent and dev_uevent. */
export function functionKeys({ pci, device }: PciFunction): string[] {
  const { vendor, device: id, subvendor, subdevice, class: code } = device.identity;
  const hex = (value: number, digits = 4): string => upperHex(value, digits);
  const bound = device.bound ? device.driver : undefined;
  return [
    ...(bound === undefined ? [] : [`DRIVER=${bound.name}`]),
    `PCI_CLASS=${hex(code)}`,
    `PCI_ID=${hex(vendor)}:${hex(id)}`,
    `PCI_SUBSYS_ID=${hex(subvendor)}:${hex(subdevice)}`,
    `PCI_SLOT_NAME=${pci.name}`,
    `MODALIAS=${modalias({ vendor, device: id, subvendor, subdevice, class: code })}`,
  ];
}

export function modalias(identity: PciFunction['device']['identity']): string {
  const { vendor, device, subvendor, subdevice, class: code } = identity;
  const id = (value: number): string => upperHex(value, 8);
  const byte = (shift: number): string => upperHex((code >> shift) & 0xff, 2);
  return (
    `pci:v${id(vendor)}d${id(device)}sv${id(subvendor)}sd${id(subdevice)}` +
    `bc${byte(16)}sc${byte(8)}i${byte(0)}`
  );
}

export function upperHex(value: number, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0');
}

/** Tells user space of a function. @param more keys of whoever asked for the event */
export function emitFunction(
  { uevents }: SysfsContext,
  action: UeventAction,
  known: PciFunction,
  more: readonly string[] = [],
): void {
  // After zap_modalias_env: what has lost its driver does not ask for one.
  const keys = functionKeys(known).filter(
    (key) => action !== 'unbind' || !key.startsWith('MODALIAS='),
  );
  uevents.emit({
    action,
    devpath: devpathOf(devicePath(known.pci)),
    subsystem: 'pci',
    keys: [...more, ...keys],
  });
}

/** The functions behind a bridge, those of virtual functions' numbers included; on a root bus, without one. */
export function functionsBelow({ system }: SysfsContext, bridge: PciDevice): PciDevice[] {
  const buses = [...system.machine.buses].filter((bus) => {
    let at: typeof bus | undefined = bus;
    while (at?.isVirtual === true) at = at.parent;
    return at?.self === bridge;
  });
  return buses.flatMap((bus) => [...bus.devices.values()]);
}
