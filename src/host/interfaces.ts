/**
 * The files by which a device is claimed, and on a host whether they are there: a kernel may lack IOMMUFD or VFIO's device nodes
 * altogether (CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV), or only have the module not loaded yet.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { InterfaceName } from '../explain/trial.ts';
import type { Machine } from '../machine/machine.ts';
import { HOST_ROOTS, names, readText, type HostRoots } from './files.ts';

export type InterfaceState = {
  readonly name: InterfaceName;
  readonly paths: readonly string[];
  /** what is missing on this host, in words */
  readonly missing: string | undefined;
};

/** @param device "0000:01:00.0", in group `group` */
export function interfacesOf(
  machine: Machine,
  device: string,
  group: number,
  roots: HostRoots = HOST_ROOTS,
): InterfaceState[] {
  const onHost = machine.source === 'host';
  const at = join(roots.sys, 'bus/pci/devices', device);
  const [cdev = 'vfioN'] = onHost ? names(at, 'vfio-dev') : [];
  return [
    {
      name: 'iommufd',
      paths: [`/dev/vfio/devices/${cdev}`, '/dev/iommu'],
      missing: onHost ? missingIommufd(roots, cdev) : undefined,
    },
    {
      name: 'container',
      paths: [`/dev/vfio/${group}`, '/dev/vfio/vfio'],
      missing:
        onHost && !existsSync(join(roots.dev, 'vfio/vfio')) ? noModule(roots, 'vfio') : undefined,
    },
  ];
}

function missingIommufd(roots: HostRoots, cdev: string): string | undefined {
  if (!existsSync(join(roots.dev, 'iommu'))) return noModule(roots, 'iommufd');
  const bound = cdev !== 'vfioN';
  if (bound && !existsSync(join(roots.dev, 'vfio/devices', cdev))) {
    return 'this kernel gives VFIO devices no nodes of their own (CONFIG_VFIO_DEVICE_CDEV)';
  }
  return undefined;
}

function noModule(roots: HostRoots, module: string): string {
  return hasModule(roots, module)
    ? `not loaded: modprobe ${module}`
    : `this kernel has none (CONFIG_${module.toUpperCase()})`;
}

/** The module is there to be loaded; modules.dep lists what depmod found. */
function hasModule(roots: HostRoots, module: string): boolean {
  const release = readText(roots.proc, 'sys/kernel/osrelease') ?? '';
  const folder = join(roots.modules, release);
  const listed = readText(folder, 'modules.dep') ?? '';
  const builtin = readText(folder, 'modules.builtin') ?? '';
  const file = new RegExp(`(?:^|/)${module}\\.ko`, 'm');
  return file.test(listed) || file.test(builtin);
}
