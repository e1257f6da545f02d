/**
 * /dev of the machine: /dev/iommu, /dev/vfio and, as udev makes them, links by number in /dev/char.
 *
 * After drivers/base/devtmpfs.c.
 */
import type { Iommufd } from '../../iommufd/iommufd.ts';
import { hasNode } from '../../vfio/registration.ts';
import { deviceName, type VfioDevice, type VfioGroup } from '../../vfio/state.ts';
import type { SysfsContext } from './context.ts';
import {
  IOMMU_MINOR,
  MISC_MAJOR,
  VFIO_DEVICE_MAJOR,
  VFIO_GROUP_MAJOR,
  VFIO_MINOR,
} from './device-numbers.ts';
import { vfioDevicePath, vfioGroupPath } from './paths.ts';
import { Directory, linkTo, over, type Named, type Node } from './tree.ts';

const OWNER_ONLY = 0o600;
const EVERYBODY = 0o666;
const OWNER_AND_GROUP = 0o660;

export const iommuNode = (iommufd: Iommufd): Node => ({
  kind: 'node',
  major: MISC_MAJOR,
  minor: IOMMU_MINOR,
  mode: OWNER_AND_GROUP,
  open: iommufd.open.bind(iommufd),
});

export function devDirectory(context: SysfsContext, iommufd: Iommufd): Directory {
  return over(
    { iommu: iommuNode(iommufd), vfio: vfioDirectory(context), char: charDirectory(context) },
    /^(?:iommu|vfio)$/,
  );
}

function vfioDirectory(context: SysfsContext): Directory {
  const { table } = context.system.vfio;
  return new Directory({
    list: () => {
      const devices = cdevs(context);
      const entries: Named[] = [
        ['vfio', containerNode(context)],
        ...table.groups.map((group): Named => [group.nodeName, groupNode(context, group)]),
      ];
      if (devices.length > 0) {
        const list = (): Named[] =>
          cdevs(context).map((device) => [deviceName(device), deviceNode(context, device)]);
        entries.push(['devices', new Directory({ list })]);
      }
      return entries;
    },
  });
}

function cdevs({ system }: SysfsContext): VfioDevice[] {
  return system.vfio.table.devices.filter((device) => device !== undefined).filter(hasNode);
}

function containerNode({ system }: SysfsContext): Node {
  return {
    kind: 'node',
    major: MISC_MAJOR,
    minor: VFIO_MINOR,
    mode: EVERYBODY,
    open: () => system.vfio.openContainer(),
  };
}

function groupNode({ system }: SysfsContext, group: VfioGroup): Node {
  return {
    kind: 'node',
    major: VFIO_GROUP_MAJOR,
    minor: group.minor,
    mode: OWNER_ONLY,
    open: (task) => system.vfio.openGroup(group, task),
  };
}

function deviceNode({ system }: SysfsContext, device: VfioDevice): Node {
  return {
    kind: 'node',
    major: VFIO_DEVICE_MAJOR,
    minor: device.index,
    mode: OWNER_ONLY,
    open: () => system.vfio.openDevice(device),
  };
}

// Every number of a major that the machine took is the machine's.
const OWN_MAJORS = /^(?:247|246):|^10:(?:196|257)$/;

/** /dev/char: MAJOR:MINOR as links to the nodes. */
function charDirectory(context: SysfsContext): Directory {
  return new Directory({
    list: () => [
      [`${MISC_MAJOR}:${VFIO_MINOR}`, linkTo('/dev/char', '/dev/vfio/vfio')],
      [`${MISC_MAJOR}:${IOMMU_MINOR}`, linkTo('/dev/char', '/dev/iommu')],
      ...context.system.vfio.table.groups.map(({ nodeName, minor }): Named => [
        `${VFIO_GROUP_MAJOR}:${minor}`,
        linkTo('/dev/char', `/dev/vfio/${nodeName}`),
      ]),
      ...cdevs(context).map((device): Named => [
        `${VFIO_DEVICE_MAJOR}:${device.index}`,
        linkTo('/dev/char', `/dev/vfio/devices/${deviceName(device)}`),
      ]),
    ],
    shared: { hides: OWN_MAJORS },
  });
}

/** /sys/dev/char: the same numbers as links to the devices. */
export function sysDevChar(context: SysfsContext): Directory {
  return new Directory({
    list: () => [
      ...context.system.vfio.table.groups.map(({ nodeName, minor }): Named => [
        `${VFIO_GROUP_MAJOR}:${minor}`,
        linkTo('/sys/dev/char', vfioGroupPath(nodeName)),
      ]),
      ...cdevs(context).flatMap((device): Named[] => {
        const pci = context.system.function(device.iommu.name)?.pci;
        if (pci === undefined) return [];
        const target = vfioDevicePath(device, pci);
        return [[`${VFIO_DEVICE_MAJOR}:${device.index}`, linkTo('/sys/dev/char', target)]];
      }),
    ],
    shared: { hides: OWN_MAJORS },
  });
}
