/**
 * Class devices of PCI buses: `pci_bus/0000:01` below a bridge or a root, and /sys/class/pci_bus.
 *
 * After drivers/pci/probe.c (pci_alloc_child_bus) and drivers/pci/pci-sysfs.c (pcibus_attrs).
 */
import type { PciBus } from '../../machine/pci/device.ts';
import type { SysfsContext } from './context.ts';
import { cpuList, cpuMask } from './cpus.ts';
import { unsignedOrInvalid } from './parse.ts';
import { busPath, classBusPath, CLASSES, devpathOf } from './paths.ts';
import {
  atOnce,
  Directory,
  fixed,
  linkTo,
  readable,
  writable,
  type Attribute,
  type Named,
} from './tree.ts';
import { ueventAttribute } from './uevent-attribute.ts';

/** The class device of a bus: `pci_bus/0000:01` below the bridge or the root. */
export function busClassDirectory(
  { system, cpus, uevents }: SysfsContext,
  bus: PciBus,
  path: string,
): Directory {
  return fixed({
    device: linkTo(path, busPath(bus)),
    subsystem: linkTo(path, `${CLASSES}/pci_bus`),
    cpuaffinity: readable(() => `${cpuMask(cpus)}\n`),
    cpulistaffinity: readable(() => `${cpuList(cpus)}\n`),
    rescan: rescanAttribute(system),
    uevent: ueventAttribute(
      (action, synthetic) => {
        uevents.emit({ action, devpath: devpathOf(path), subsystem: 'pci_bus', keys: synthetic });
      },
      () => [],
    ),
  });
}

export function rescanAttribute(system: SysfsContext['system']): Attribute {
  return writable(
    atOnce((text) => {
      if (unsignedOrInvalid(text) !== 0n) system.rescan();
    }),
  );
}

/** /sys/class/pci_bus. */
export function busClass({ system }: SysfsContext): Directory {
  return new Directory({
    list: () =>
      [...system.machine.buses]
        .filter(({ isVirtual }) => !isVirtual)
        .map((bus): Named => [bus.name, linkTo(`${CLASSES}/pci_bus`, classBusPath(bus))]),
  });
}
