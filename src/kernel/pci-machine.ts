/**
 * A PCI machine as programs see it: /dev/iommu and the nodes of VFIO. The nodes are those of the moment of booting; what they
 * lead to is asked when they are opened.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile } from '../base/task.ts';
import type { ProfileName } from '../iommu/profile.ts';
import type { Machine } from '../machine/machine.ts';
import { ContainerFile } from '../vfio/container-file.ts';
import type { Vfio } from '../vfio/vfio.ts';
import { iommuNode, MISC_MAJOR } from './iommu-node.ts';
import { Kernel, type DeviceNode } from './kernel.ts';
import type { BootOptions } from './selftest-machine.ts';
import { pciSystem } from './system.ts';

// drivers/vfio: a fixed minor number, readable for all; groups and devices get majors of their own as they come
const VFIO_MINOR = 196;
const VFIO_MODE = 0o666;
const GROUP_MAJOR = 243;
const DEVICE_MAJOR = 242;
const PRIVATE_MODE = 0o600;

/** Opens a node below /dev/vfio. ENODEV if what it stood for has gone since. */
function openVfio(vfio: Vfio, name: string): OpenFile {
  if (name === 'vfio') return new ContainerFile();
  const device = vfio.device(name.replace(/^devices\//, ''));
  if (name.startsWith('devices/') && device !== undefined) return vfio.openDevice(device);
  const group = vfio.group(name);
  if (group !== undefined) return vfio.openGroup(group);
  throw new Errno('ENODEV', `/dev/vfio/${name} stood for a device that has left its driver`);
}

function vfioNode(vfio: Vfio, name: string): DeviceNode {
  const open = (): OpenFile => openVfio(vfio, name);
  if (name === 'vfio') return { major: MISC_MAJOR, minor: VFIO_MINOR, mode: VFIO_MODE, open };
  const major = name.startsWith('devices/') ? DEVICE_MAJOR : GROUP_MAJOR;
  const minor = Number(/\d+$/.exec(name)?.[0] ?? 0);
  return { major, minor, mode: PRIVATE_MODE, open };
}

export type PciBootOptions = BootOptions & { readonly profile?: ProfileName };

/**
 * Boots Linux on a PCI machine: /dev/iommu, and below /dev/vfio what belongs to the devices that the machine says are bound to
 * a driver of VFIO.
 */
export function bootPci(machine: Machine, options: PciBootOptions = {}): Kernel {
  const { physical, iommufd, vfio } = pciSystem(machine, options);
  return new Kernel({
    nodes: new Map([
      ['/dev/iommu', iommuNode(iommufd)],
      ...vfio.nodes().map((name) => [`/dev/vfio/${name}`, vfioNode(vfio, name)] as const),
    ]),
    memory: physical,
    leaks: () => iommufd.leaks(),
  });
}
