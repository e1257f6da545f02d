/**
 * PCI buses in sysfs: root buses with what is on them, the class device of every bus, and the bus type's own files.
 *
 * After drivers/pci/probe.c (pci_create_root_bus, pci_alloc_child_bus) and drivers/base/bus.c.
 */
import type { PciBus } from '../../machine/pci/device.ts';
import type { SysfsContext } from './context.ts';
import { word } from './parse.ts';
import { busPath, classBusPath, devicePath, PCI_DEVICES } from './paths.ts';
import { driversDirectory } from './sysfs-drivers.ts';
import { functionDirectory } from './sysfs-function.ts';
import { busClassDirectory, rescanAttribute } from './sysfs-bus-class.ts';
import { slotsDirectory } from './sysfs-slots.ts';
import { atOnce, Directory, fixed, linkTo, readable, writable, type Named } from './tree.ts';
import { ueventAttribute } from './uevent-attribute.ts';

/** The directory of a root bus. */
export function rootBusDirectory(context: SysfsContext, root: PciBus): Directory {
  const path = busPath(root);
  return new Directory({
    list: () => [
      ['pci_bus', fixed({ [root.name]: busClassDirectory(context, root, classBusPath(root)) })],
      [
        'uevent',
        ueventAttribute(
          () => undefined,
          () => [],
        ),
      ],
      ['waiting_for_supplier', readable(() => '0\n')],
      ...onRootBus(context, root).flatMap((name): Named[] => {
        const known = context.system.function(name);
        return known === undefined ? [] : [[name, functionDirectory(context, known)]];
      }),
    ],
    find: (name) => {
      const known = context.system.function(name);
      if (known !== undefined && busPath(known.pci.bus) === path) {
        return functionDirectory(context, known);
      }
      const bus = (): Directory => busClassDirectory(context, root, classBusPath(root));
      if (name === 'pci_bus') return fixed({ [root.name]: bus() });
      if (name === 'uevent')
        return ueventAttribute(
          () => undefined,
          () => [],
        );
      return name === 'waiting_for_supplier' ? readable(() => '0\n') : undefined;
    },
  });
}

function onRootBus({ system }: SysfsContext, root: PciBus): string[] {
  const path = busPath(root);
  return [...system.functions]
    .filter(({ pci }) => busPath(pci.bus) === path)
    .map(({ pci }) => pci.name);
}

/** /sys/bus/pci. */
export function pciBusDirectory(context: SysfsContext): Directory {
  const { system } = context;
  const link = (name: string): Named[1] | undefined => {
    const known = system.function(name);
    return known && linkTo(PCI_DEVICES, devicePath(known.pci));
  };
  const devices = new Directory({
    list: () =>
      [...system.functions].map(({ pci }) => [pci.name, linkTo(PCI_DEVICES, devicePath(pci))]),
    find: link,
  });
  return fixed({
    devices,
    drivers: driversDirectory(context),
    slots: slotsDirectory(context),
    drivers_probe: writable((text, done) => {
      system.core.driversProbe(word(text), done);
    }),
    drivers_autoprobe: writable(
      atOnce((text) => {
        system.core.autoprobe = !text.startsWith('0');
      }),
      { show: () => `${Number(system.core.autoprobe)}\n` },
    ),
    rescan: rescanAttribute(system),
    resource_alignment: writable(
      atOnce(() => undefined),
      { show: () => '' },
    ),
    uevent: ueventAttribute((action, synthetic) => {
      context.uevents.emit({ action, devpath: '/bus/pci', subsystem: 'bus', keys: synthetic });
    }),
  });
}
