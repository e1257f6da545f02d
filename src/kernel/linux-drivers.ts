/**
 * Some drivers of Linux 7.3 by their own tables, in the order in which a kernel that has them built in registers them: enough
 * to replay recorded machines, and the ones that a machine file may name without describing them.
 *
 * Each row's `ids` are facts from the driver's pci_device_id table; long tables are cut down to the devices that QEMU has.
 */
import type { DriverId, DriverSpec } from '../machine/drivers.ts';

const PLAIN = { managedDma: false, overrideOnly: false, bridges: false } as const;
const ICH9_SMBUS = 0x2930;

function intel(...devices: readonly number[]): DriverId[] {
  return devices.map((device) => ({ vendor: 0x8086, device }));
}

function tenFrom(first: number): number[] {
  return Array.from({ length: 10 }, (_, index) => first + index);
}

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
    enables: 'while-bound',
    dmaMaskBits: 64,
    sriov: true,
    ids: Array.from({ length: 0x80 }, (_, i) => ({ vendor: 0x1af4, device: 0x1000 + i })),
  },
  // drivers/nvme/host/pci.c: the class
  {
    ...PLAIN,
    name: 'nvme',
    asynchronous: true,
    enables: 'while-bound',
    dmaMaskBits: 64,
    sriov: true,
    ids: [{ class: 0x010802 }],
  },
  // drivers/net/ethernet/intel/e1000e/netdev.c: 82574L
  {
    ...PLAIN,
    name: 'e1000e',
    enables: 'while-bound',
    dmaMaskBits: 64,
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
  // drivers/i2c/busses/i2c-i801.c: ICH9. It never disables its device, which some systems would not survive
  {
    ...PLAIN,
    name: 'i801_smbus',
    enables: 'for-good',
    asynchronous: true,
    ids: [{ vendor: 0x8086, device: ICH9_SMBUS }],
  },
  // drivers/net/ethernet/intel/igb/igb_main.c and igbvf/netdev.c: 82576, I350, I210
  {
    ...PLAIN,
    name: 'igb',
    enables: 'while-bound',
    dmaMaskBits: 64,
    sriov: true,
    ids: intel(0x10c9, 0x10e6, 0x10e7, 0x10e8, 0x150a, 0x1521, 0x1522, 0x1533, 0x1536, 0x1539),
  },
  {
    ...PLAIN,
    name: 'igbvf',
    enables: 'while-bound',
    dmaMaskBits: 64,
    ids: intel(0x10ca, 0x1520),
  },
  // drivers/dma/ioat/init.c: Sandy Bridge, Ivy Bridge, Haswell
  {
    ...PLAIN,
    name: 'ioatdma',
    enables: 'while-bound',
    dmaMaskBits: 64,
    ids: intel(...tenFrom(0x3c20), ...tenFrom(0x0e20), ...tenFrom(0x2f20)),
  },
  // arch/x86/platform/intel/iosf_mbi.c
  { ...PLAIN, name: 'iosf_mbi_pci', ids: intel(0x0f00, 0x2280, 0x0958, 0x1170) },
  // drivers/misc/mei/pci-me.c: Cougar Point, Panther Point, Lynx Point
  {
    ...PLAIN,
    name: 'mei_me',
    asynchronous: true,
    ids: intel(0x1c3a, 0x1cba, 0x1e3a, 0x1eba, 0x1dba, 0x8c3a, 0x8cba),
  },
  // drivers/pcmcia/yenta_socket.c: the class
  { ...PLAIN, name: 'yenta_cardbus', ids: [{ class: 0x060700 }] },
  // drivers/tty/serial/8250: serial ports, modems and multiports by class, and single boards
  {
    ...PLAIN,
    name: 'serial',
    enables: 'while-bound',
    ids: [0x070000, 0x070300, 0x070200].map((code) => ({ class: code, classMask: 0xffff00 })),
  },
  { ...PLAIN, name: '8250_lpss', ids: intel(0x0936, 0x0f0a, 0x0f0c, 0x228a, 0x228c) },
  { ...PLAIN, name: '8250_mid', ids: intel(0x081b, 0x081c, 0x081d, 0x1191, 0x18d8, 0x19d8) },
  { ...PLAIN, name: '8250_mxpcie', ids: [{ vendor: 0x1393, device: 0x1024 }] },
  { ...PLAIN, name: '8250_pericom', ids: [{ vendor: 0x12d8, device: 0x7951 }] },
  { ...PLAIN, name: 'exar_serial', ids: [{ vendor: 0x13a8, device: 0x0352 }] },
];
