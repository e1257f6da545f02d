/**
 * The VFIO core of one machine: what is behind the names below /dev/vfio, and how a driver and an open reach it. The rules are
 * registration.ts, group.ts and device.ts over the plain data of state.ts; this class has identity alone.
 *
 * After drivers/vfio/vfio_main.c.
 */
import { Faults } from '../base/faults.ts';
import type { Task } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { GroupTable } from '../iommu/group.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { Accounting } from '../pinning/accounting.ts';
import type { Pinning } from '../pinning/pages.ts';
import { ContainerFile } from './container-file.ts';
import { DeviceFile } from './device-file.ts';
import { openNode } from './device.ts';
import { GroupFile } from './group-file.ts';
import { openGroup } from './group.ts';
import { contextOfIommufdFile, type ContextOfFile } from './iommufd.ts';
import { hasNode, register, unregister } from './registration.ts';
import {
  DEFAULT_PARAMETERS,
  deviceName,
  newTable,
  type VfioDevice,
  type VfioDeviceOps,
  type VfioGroup,
  type VfioParameters,
  type VfioTable,
} from './state.ts';

export type VfioOptions = {
  /** default: those of modules without options */
  readonly parameters?: VfioParameters;
  /** what containers pin memory with; default: memory of its own */
  readonly pinning?: Pinning;
  /** where no-iommu groups get their numbers; default: there can be none */
  readonly iommuGroups?: GroupTable;
  /** Default: the engine's /dev/iommu. */
  readonly contextOfFile?: ContextOfFile;
};

function ownMemory(): Pinning {
  return { physical: new PhysicalMemory(), accounting: new Accounting(), faults: new Faults() };
}

export class Vfio {
  readonly contextOfFile: ContextOfFile;
  readonly table: VfioTable;

  constructor(options: VfioOptions = {}) {
    const { parameters = DEFAULT_PARAMETERS, pinning = ownMemory(), iommuGroups } = options;
    this.table = newTable({ parameters, pinning, iommuGroups });
    this.contextOfFile = options.contextOfFile ?? contextOfIommufdFile;
  }

  /** A driver offers its device to user space. Throws Errno EINVAL: {@link register}. */
  register(iommu: IommuDevice, ops: VfioDeviceOps): VfioDevice {
    return register(this.table, iommu, ops);
  }

  /** The driver takes the device back: {@link unregister}. */
  unregister(device: VfioDevice, whenIdle: () => void): void {
    unregister(device, whenIdle);
  }

  /** Nodes below /dev/vfio right now: "vfio", "7", "devices/vfio0". */
  nodes(): string[] {
    const devices = this.table.devices.filter((device) => device !== undefined).filter(hasNode);
    return [
      'vfio',
      ...this.table.groups.map(({ nodeName }) => nodeName),
      ...devices.map((device) => `devices/${deviceName(device)}`),
    ];
  }

  /** The group behind /dev/vfio/NAME. */
  group(name: string): VfioGroup | undefined {
    return this.table.groups.find((group) => group.nodeName === name);
  }

  /** The device behind /dev/vfio/devices/NAME, as far as there is such a node. */
  device(name: string): VfioDevice | undefined {
    return this.table.devices.find(
      (device) => device !== undefined && deviceName(device) === name && hasNode(device),
    );
  }

  /** The registered device of an IOMMU's device. */
  deviceOf(iommu: IommuDevice): VfioDevice | undefined {
    return this.table.devices.find((device) => device?.iommu === iommu);
  }

  /** open of /dev/vfio/vfio. */
  openContainer(): ContainerFile {
    return new ContainerFile(this.table.parameters);
  }

  /** open of a device node. ENODEV: {@link openNode}. */
  openDevice(device: VfioDevice): DeviceFile {
    return new DeviceFile(this, openNode(device));
  }

  /** open of a group's node. ENODEV, EPERM, EBUSY: {@link openGroup}. */
  openGroup(group: VfioGroup, task?: Caller): GroupFile {
    return new GroupFile(this, openGroup(group, task?.capable('CAP_SYS_RAWIO')));
  }
}

/** Who opens; whoever does not say so may do everything. */
type Caller = Pick<Task, 'capable'>;
