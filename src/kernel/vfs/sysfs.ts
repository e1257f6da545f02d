/**
 * The names of a PCI machine, put together: what is below /sys and /dev, and what is told of changes.
 *
 * Order of uevents is Linux's: an added function before its driver is bound; a VFIO group before its device before the driver;
 * on the way out the device, the group once nobody uses it, the driver, the function.
 *
 * After fs/sysfs, drivers/base/core.c (device_add, device_del) and drivers/base/dd.c (driver_bound).
 */
import type { Iommufd } from '../../iommufd/iommufd.ts';
import type { PciBus } from '../../machine/pci/device.ts';
import type { VfioEvent } from '../../vfio/state.ts';
import type { BusDevice, Notification } from '../driver-state.ts';
import type { PciFunction } from '../pci-function.ts';
import { emitFunction, type SysfsContext } from './context.ts';
import { devDirectory, sysDevChar } from './devfs.ts';
import {
  busPath,
  CLASSES,
  devicePath,
  DEVICES,
  driverPath,
  GROUPS,
  PCI_DEVICES,
  rootPath,
  VIRTUAL,
} from './paths.ts';
import { groupsDirectory, iommuClass, iommusDirectory } from './sysfs-iommu.ts';
import { modulesDirectory, type Parameters } from './sysfs-module.ts';
import { busClass } from './sysfs-bus-class.ts';
import { pciBusDirectory, rootBusDirectory } from './sysfs-pci-bus.ts';
import {
  emitVfioDevice,
  emitVfioGroup,
  vfioDeviceClass,
  vfioGroupClass,
  vfioGroupsDirectory,
} from './sysfs-vfio.ts';
import { Directory, fixed, over, type Named } from './tree.ts';

export type NamesOptions = { readonly iommufd: Iommufd; readonly parameters: Parameters };

/** The root of a PCI machine's names. Changes and uevents are told from now on. */
export function pciNames(context: SysfsContext, { iommufd, parameters }: NamesOptions): Directory {
  followDrivers(context);
  followVfio(context);
  followVirtualFunctions(context);
  return fixed({
    dev: devDirectory(context, iommufd),
    sys: over({
      bus: over({ pci: pciBusDirectory(context) }),
      class: over({
        iommu: iommuClass(context),
        pci_bus: busClass(context),
        vfio: vfioGroupClass(context),
        'vfio-dev': vfioDeviceClass(context),
      }),
      dev: over({ char: sysDevChar(context) }),
      devices: devicesDirectory(context),
      kernel: over({ iommu_groups: groupsDirectory(context) }),
      module: modulesDirectory(parameters),
    }),
  });
}

function devicesDirectory(context: SysfsContext): Directory {
  const roots = (): Named[] =>
    [...context.system.machine.buses]
      .filter((bus) => bus.isRoot && bus.dmaDevice === undefined)
      .map((bus: PciBus) => [`pci${bus.name}`, rootBusDirectory(context, bus)]);
  const virtual = virtualDirectory(context);
  return new Directory({
    list: () => [...roots(), ['virtual', virtual]],
    shared: { hides: /^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/ },
  });
}

function virtualDirectory(context: SysfsContext): Directory {
  const iommus = iommusDirectory(context);
  const groups = vfioGroupsDirectory(context);
  return new Directory({
    list: () => [
      ['iommu', iommus],
      // A directory of a class is there as long as something is in it.
      ...(context.system.vfio.table.groups.length === 0 ? [] : [['vfio', groups] as const]),
    ],
    shared: { hides: /^(?:iommu|vfio)$/ },
  });
}

function followDrivers(context: SysfsContext): void {
  const { system, changes } = context;
  // Where it was a member, which nobody knows any more once it is gone.
  const left = new WeakMap<BusDevice, string[]>();
  system.core.listen((event, device) => {
    const known = system.function(device.name);
    if (known === undefined) return;
    if (event === 'remove') left.set(device, groupPaths(device));
    if (event === 'removed') changes.tell(...(left.get(device) ?? []));
    driverEvent(context, event, known);
  });
}

function driverEvent(context: SysfsContext, event: Notification, known: PciFunction): void {
  const { changes } = context;
  const path = devicePath(known.pci);
  switch (event) {
    case 'add':
    case 'removed':
      emitFunction(context, event === 'add' ? 'add' : 'remove', known);
      changes.tell(PCI_DEVICES, busPath(known.pci.bus), path, ...groupPaths(known.device));
      break;
    case 'bound-driver':
      changes.tell(path, driverPath(known.device.driver?.name ?? ''));
      emitFunction(context, 'bind', known);
      break;
    case 'unbind-driver':
      changes.tell(path, driverPath(known.device.driver?.name ?? ''));
      break;
    case 'unbound-driver':
      changes.tell(path);
      emitFunction(context, 'unbind', known);
      break;
    case 'bind-driver':
    case 'driver-not-bound':
    case 'remove':
      break;
  }
}

function groupPaths({ iommu: { group } }: BusDevice): string[] {
  return group === undefined ? [GROUPS] : [GROUPS, `${GROUPS}/${group.id}/devices`];
}

function followVfio(context: SysfsContext): void {
  const { system, changes } = context;
  system.vfio.table.listeners.push((event: VfioEvent) => {
    const nodes = ['/dev/vfio', '/dev/char', '/sys/dev/char'];
    if ('group' in event) {
      emitVfioGroup(context, event.action, event.group);
      changes.tell(...nodes, VIRTUAL, `${VIRTUAL}/vfio`, `${CLASSES}/vfio`, GROUPS);
      return;
    }
    const pci = system.function(event.device.iommu.name)?.pci;
    if (pci === undefined) return;
    emitVfioDevice(context, event.action, { device: event.device, pci });
    const own = devicePath(pci);
    changes.tell(...nodes, '/dev/vfio/devices', `${CLASSES}/vfio-dev`, own, `${own}/vfio-dev`);
  });
}

function followVirtualFunctions(context: SysfsContext): void {
  const { system, changes } = context;
  system.followSriov({
    linked: (vf) => {
      emitFunction(context, 'change', vf);
    },
    enabled: (physfn) => {
      emitFunction(context, 'change', physfn);
    },
    changed: (physfn) => {
      changes.tell(devicePath(physfn.pci), rootPath(physfn.pci.bus), DEVICES);
    },
  });
}
