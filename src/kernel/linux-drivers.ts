/**
 * Some drivers of Linux 7.3 by their own tables, in the order in which a kernel that has them built in registers them: enough
 * to replay recorded machines, and the ones that a machine file may name without describing them.
 *
 * Each row's `ids` are facts from the driver's pci_device_id table; long tables are cut down to the devices that QEMU has.
 */
import type { DriverSpec } from '../machine/drivers.ts';

const PLAIN = { managedDma: false, overrideOnly: false, bridges: false } as const;
const ICH9_SMBUS = 0x2930;

export const LINUX_DRIVERS: readonly DriverSpec[] = [
  // drivers/pci/pcie/portdrv.c: PCI bridges, subtractive ones, root complex event collectors
  {
    name: 'pcieport',
    managedDma: true,
    overrideOnly: false,
    bridges: true,
    ids: [{ class: 0x060400 }, { class: 0x060401 }, { class: 0x080700 }],
  },
  // drivers/pci/pci-stub.c: nothing of its own
  { name: 'pci-stub', managedDma: true, overrideOnly: false, bridges: false, ids: [] },
  // drivers/virtio/virtio_pci_common.c: every device of the vendor, the probe looks at the number
  {
    ...PLAIN,
    name: 'virtio-pci',
    ids: Array.from({ length: 0x80 }, (_, i) => ({ vendor: 0x1af4, device: 0x1000 + i })),
  },
  // drivers/nvme/host/pci.c: the class
  { ...PLAIN, name: 'nvme', ids: [{ class: 0x010802 }] },
  // drivers/net/ethernet/intel/e1000e/netdev.c: 82574L
  {
    ...PLAIN,
    name: 'e1000e',
    ids: [
      { vendor: 0x8086, device: 0x10d3 },
      { vendor: 0x8086, device: 0x10f6 },
    ],
  },
  // drivers/vfio/pci/vfio_pci.c: anything, if driver_override says so
  {
    name: 'vfio-pci',
    managedDma: true,
    overrideOnly: true,
    bridges: false,
    vfio: true,
    ids: [{}],
  },
  // drivers/i2c/busses/i2c-i801.c: ICH9
  { ...PLAIN, name: 'i801_smbus', ids: [{ vendor: 0x8086, device: ICH9_SMBUS }] },
];
