/**
 * Drivers, as far as DMA ownership needs them: what they bind, and whether they leave the DMA of their device's group to user
 * space (`driver_managed_dma`). A driver that does not say so counts as one that does kernel DMA.
 *
 * A real host does not show the flag anywhere, so it is a table here, each row with the place in Linux 7.3 that sets it.
 */
import type { ErrnoCode } from '../base/errno.ts';

/** What a driver binds: one row of its table; what is missing matches anything. */
export type DriverId = {
  readonly vendor?: number;
  readonly device?: number;
  readonly subvendor?: number;
  readonly subdevice?: number;
  /** base class, subclass and interface in 24 bits */
  readonly class?: number;
  /** bits of the class that count; all 24 where a class is given and this is not */
  readonly classMask?: number;
};

/** What a function tells about itself, and drivers are matched by. */
export type DeviceIdentity = {
  readonly vendor: number;
  readonly device: number;
  readonly subvendor: number;
  readonly subdevice: number;
  /** 24 bits */
  readonly class: number;
};

/** Whether a row of a driver's table names the device. After pci_match_one_id. */
export function idMatches(row: DriverId, identity: DeviceIdentity): boolean {
  const mask = row.classMask ?? (row.class === undefined ? 0 : 0xff_ffff);
  return (
    (row.vendor ?? identity.vendor) === identity.vendor &&
    (row.device ?? identity.device) === identity.device &&
    (row.subvendor ?? identity.subvendor) === identity.subvendor &&
    (row.subdevice ?? identity.subdevice) === identity.subdevice &&
    (((row.class ?? 0) ^ identity.class) & mask) === 0
  );
}

export type DriverSpec = {
  readonly name: string;
  /** lets user space own the group of its device (driver_managed_dma) */
  readonly managedDma: boolean;
  readonly ids: readonly DriverId[];
  /** the ids count only when driver_override names this driver */
  readonly overrideOnly: boolean;
  /** binds bridges: PCI Express ports and nothing else */
  readonly bridges: boolean;
  /** offers its devices to user space through VFIO */
  readonly vfio?: boolean;
  /** enables its device, which stays so for good where the driver leaves it on when it lets go */
  readonly enables?: 'while-bound' | 'for-good';
  /** prefers to be probed beside everything else (PROBE_PREFER_ASYNCHRONOUS) */
  readonly asynchronous?: boolean;
  /** enables virtual functions of its devices when it is asked to */
  readonly sriov?: boolean;
  /** bits of the DMA mask that it sets; default: those of the device, 32 */
  readonly dmaMaskBits?: number;
  /** experiment: its probe fails with this error */
  readonly failProbe?: ErrnoCode;
  /** experiment: does DMA as soon as it is bound */
  readonly dma?: boolean;
};

export type ManagedDriver = {
  readonly name: string;
  /** offers its devices to user space through VFIO */
  readonly vfio: boolean;
  readonly why: string;
  readonly source: string;
};

const VFIO = {
  vfio: true,
  why: 'hands the device to user space and claims its group when it is opened',
};

/** Drivers of Linux that let user space own the group of their device. */
export const MANAGED_DMA_DRIVERS: readonly ManagedDriver[] = [
  { name: 'vfio-pci', ...VFIO, source: 'drivers/vfio/pci/vfio_pci.c' },
  { name: 'mlx5_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/mlx5/main.c' },
  {
    name: 'hisi_acc_vfio_pci',
    ...VFIO,
    source: 'drivers/vfio/pci/hisilicon/hisi_acc_vfio_pci.c',
  },
  { name: 'nvgrace_gpu_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/nvgrace-gpu/main.c' },
  { name: 'pds_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/pds/pci_drv.c' },
  { name: 'qat_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/qat/main.c' },
  { name: 'virtio_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/virtio/main.c' },
  { name: 'ism_vfio_pci', ...VFIO, source: 'drivers/vfio/pci/ism/main.c' },
  { name: 'xe-vfio-pci', ...VFIO, source: 'drivers/vfio/pci/xe/main.c' },
  { name: 'vfio-platform', ...VFIO, source: 'drivers/vfio/platform/vfio_platform.c' },
  { name: 'vfio-amba', ...VFIO, source: 'drivers/vfio/platform/vfio_amba.c' },
  { name: 'vfio-fsl-mc', ...VFIO, source: 'drivers/vfio/fsl-mc/vfio_fsl_mc.c' },
  { name: 'vfio-cdx', ...VFIO, source: 'drivers/vfio/cdx/main.c' },
  {
    name: 'pcieport',
    vfio: false,
    why: 'drives a bridge and does no DMA for anybody',
    source: 'drivers/pci/pcie/portdrv.c',
  },
  {
    name: 'pci-stub',
    vfio: false,
    why: 'only holds the device and never touches it',
    source: 'drivers/pci/pci-stub.c',
  },
];

const MANAGED = new Map(MANAGED_DMA_DRIVERS.map((row) => [row.name, row]));

/** The row of a driver that leaves its group to user space; undefined for one that does kernel DMA. */
export function managedDriver(name: string): ManagedDriver | undefined {
  return MANAGED.get(name);
}
