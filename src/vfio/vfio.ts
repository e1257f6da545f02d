/**
 * The VFIO core of one machine: what is behind the names below /dev/vfio, and how a driver and an open reach it. The rules are
 * registration.ts, group.ts and device.ts over the plain data of state.ts; this class has identity alone.
 *
 * After drivers/vfio/vfio_main.c.
 */
import { Faults } from '../base/faults.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { Accounting } from '../pinning/accounting.ts';
import { DeviceFile } from './device-file.ts';
import { openNode } from './device.ts';
import { GroupFile } from './group-file.ts';
import { openGroup } from './group.ts';
import { contextOfIommufdFile, type ContextOfFile } from './iommufd.ts';
import { hasNode, register, unregister } from './registration.ts';
import {
  deviceName,
  newTable,
  type VfioDevice,
  type VfioDeviceOps,
  type VfioGroup,
  type VfioTable,
} from './state.ts';
import type { Type1Settings } from './type1/type1.ts';

// U16_MAX, the default of dma_entry_limit
const ENTRY_LIMIT = 65_535;

function defaultSettings(): Type1Settings {
  const pinning = {
    physical: new PhysicalMemory(),
    accounting: new Accounting(),
    faults: new Faults(),
  };
  return { unsafeInterrupts: false, entryLimit: ENTRY_LIMIT, smallPages: false, pinning };
}

export type VfioOptions = {
  /** of vfio_iommu_type1; default: those of the module, and memory of its own */
  readonly type1?: Partial<Type1Settings>;
  /** Default: the engine's /dev/iommu. */
  readonly contextOfFile?: ContextOfFile;
};

export class Vfio {
  readonly contextOfFile: ContextOfFile;
  readonly table: VfioTable;

  constructor(options: VfioOptions = {}) {
    this.table = newTable({ ...defaultSettings(), ...options.type1 });
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

  /** open of a device node. ENODEV while unregistering. */
  openDevice(device: VfioDevice): DeviceFile {
    return new DeviceFile(this, openNode(device));
  }

  /** open of a group's node. ENODEV, EBUSY: {@link openGroup}. */
  openGroup(group: VfioGroup): GroupFile {
    return new GroupFile(this, openGroup(group));
  }
}
