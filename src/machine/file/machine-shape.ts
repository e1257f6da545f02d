/** The machine file, declared: every key with what it means. docs/machine-file.md explains, schema/ is made from this. */
import { ERRNO } from '../../base/errno.ts';
import { ACS_BITS, PORT_TYPES } from '../pci/capabilities.ts';
import { either, flag, list, map, number, text, word, type MapShape, type Shape } from './shape.ts';

/** Types that a described device can have: the PCI Express ones, and conventional PCI. */
export const DEVICE_TYPES = [
  ...Object.keys(PORT_TYPES),
  'pci',
  'pci-bridge',
  'host-bridge',
] as const;

export const RESERVED_TYPES = ['direct', 'direct-relaxable', 'reserved', 'msi', 'sw-msi'] as const;
export const IOMMU_KINDS = ['intel', 'amd', 'smmuv3', 'virtio', 'other'] as const;

const ADDRESS = text(
  'a device address like 01:00.0 or 0000:01:00.0',
  /^(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{1,2}:[01]?[0-9a-fA-F]\.[0-7]$/,
  'Address of a device: [DOMAIN:]BUS:SLOT.FUNCTION in hexadecimal.',
);
const BUS = text(
  'a bus number like 01 or 0000:01, hexadecimal',
  /^(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{1,2}$/,
  'Number of a bus: [DOMAIN:]BUS in hexadecimal.',
);
const IDS = text(
  'vendor and device like 8086:1533, hexadecimal',
  /^[0-9a-fA-F]{4}:[0-9a-fA-F]{4}$/,
  'Vendor and device id, hexadecimal.',
);
const HEX_PLACE = /^(?:0x[0-9a-fA-F]{1,16}|\d{1,20})$/;
const SIZE = text(
  'a size like 4096, 0x1000, 4K, 1M or 2G',
  /^(?:0x[0-9a-fA-F]{1,16}|\d{1,20}|\d{1,9}[KMGT])$/,
  'A size in bytes.',
);
const NAME = text('a name', undefined, 'A name.');

function described(shape: Shape, about: string): Shape {
  return { ...shape, about };
}

const REGION = map(
  {
    start: text('an address like 0xfee00000', HEX_PLACE, 'First address.'),
    last: text('an address like 0xfeefffff', HEX_PLACE, 'Last address, inclusive.'),
    size: described(SIZE, 'Instead of last: how many bytes.'),
    type: word(RESERVED_TYPES, 'As in the reserved_regions file of a group. Default: reserved.'),
  },
  ['start'],
  'Addresses that are kept out of every address space; direct ones are mapped one to one.',
);

const BITS = list(word(Object.keys(ACS_BITS), 'A bit of the ACS registers.'), 'Bits of ACS.');

const ACS = either(
  [
    word(
      ['none', 'offered', 'on'],
      'none: no capability; offered: Linux turns it on when it finds the device; on: already on.',
    ),
    map(
      {
        offers: described(BITS, 'Bits that the device has.'),
        on: described(BITS, 'Bits that are on before Linux enumerates the device.'),
      },
      ['offers'],
      'The ACS registers bit by bit.',
    ),
  ],
  'Access control services. Default: offered for root and downstream ports, none for the rest.',
);

const BAR = map(
  {
    index: number(0, 5, 'Which one, 0 to 5. A 64-bit one takes the next as well.'),
    size: described(SIZE, 'A power of two.'),
    kind: word(['memory32', 'memory64', 'io'], 'Default: memory64.'),
    prefetchable: flag('Default: false.'),
    address: text(
      'an address like 0xfe800000',
      HEX_PLACE,
      'Where it is. Default: firmware assigns addresses, unless the file gives one anywhere.',
    ),
  },
  ['index', 'size'],
  'A base address register.',
);

const SRIOV = map(
  {
    total: number(1, 65535, 'How many virtual functions there can be.'),
    enabled: number(0, 65535, 'How many are switched on. Default: 0.'),
    offset: number(
      1,
      65535,
      'Requester ID of the first one, counted from this function. Default: 1.',
    ),
    stride: number(1, 65535, 'From one to the next. Default: 1.'),
    device: text(
      'a device id like 10ca, hexadecimal',
      /^[0-9a-fA-F]{4}$/,
      'Device id of the virtual functions.',
    ),
    bars: list(BAR, 'Base address registers of each virtual function.'),
  },
  ['total'],
  'Single-root I/O virtualization.',
);

export const DEVICE_SHAPE: MapShape = map(
  {
    address: ADDRESS,
    label: described(NAME, 'For people: GPU, eth0.'),
    type: word(
      DEVICE_TYPES,
      'What it is. Default: by place and class; a function on a root bus is pci unless it has acs, ari or sriov.',
    ),
    config: text(
      'configuration space as hexadecimal digits, or in lines like "00: 86 80 …"',
      undefined,
      'Configuration space: 64, 256 or 4096 bytes as digits, or lines OFFSET: BYTES as lspci -xxxx prints them.',
    ),
    ids: IDS,
    subsystem: described(IDS, 'Subsystem vendor and device id.'),
    class: text(
      'a class like 020000, hexadecimal',
      /^(?:0x)?[0-9a-fA-F]{6}$/,
      'Class, subclass, interface.',
    ),
    revision: number(0, 255, 'Revision id.'),
    multifunction: flag('The header says so. Default: another function of the slot is listed.'),
    secondary: described(BUS, 'A bridge: the bus behind it.'),
    behind: described(ADDRESS, 'The bridge above, where the bus number leaves it open.'),
    physfn: described(ADDRESS, 'A virtual function: its physical function.'),
    acs: ACS,
    ari: flag('Port: forwards function numbers above 7; endpoint: has such functions.'),
    sriov: SRIOV,
    aliases: either(
      [
        word(['all'], 'Every devfn of its bus.'),
        list(
          text('slot and function like 00.1', /^[01]?[0-9a-fA-F]\.[0-7]$/, 'Slot and function.'),
          'Slots and functions of its own bus.',
        ),
      ],
      'Requester IDs that it uses besides its own.',
    ),
    'translation-root': flag('Bridge: the IOMMU sits here, not at the root.'),
    'no-alias': flag('Bridge: requester IDs from below pass unchanged.'),
    'express-bridge-alias': flag('Bridge: behaves as PCIe-to-PCI, although it looks conventional.'),
    untrusted: flag('Anybody can plug something in here.'),
    'external-facing': flag('A port that leads out of the case.'),
    bars: list(BAR, 'Base address registers.'),
    rom: described(SIZE, 'Bytes of its expansion ROM, a power of two of at least 2K.'),
    msi: number(1, 32, 'Number of MSI vectors.'),
    msix: number(1, 2048, 'Number of MSI-X vectors.'),
    reserved: list(REGION, 'Regions that firmware reserves for this device.'),
    iommu: described(
      NAME,
      'Name of the IOMMU that translates for it, or none. Default: the first one.',
    ),
    driver: described(NAME, 'The driver that is bound when the machine starts.'),
    'driver-override': described(NAME, 'Content of driver_override.'),
    group: number(0, 1_000_000, 'The number of its IOMMU group; must be what the topology gives.'),
  },
  ['address'],
  'A PCI function: raw (config) or described (type, ids, acs, …).',
);

const DRIVER = map(
  {
    name: NAME,
    'user-dma': flag(
      'Leaves the DMA of its group to user space (driver_managed_dma). Default: false.',
    ),
    ids: list(
      text(
        'vendor and device like 8086:1533 or 8086:*',
        /^(?:[0-9a-fA-F]{4}|\*):(?:[0-9a-fA-F]{4}|\*)$/,
        'Vendor and device, * for any.',
      ),
      'What it binds.',
    ),
    'override-only': flag('Binds only devices whose driver_override names it. Default: false.'),
    bridges: flag('Binds PCI Express ports. Default: false.'),
    'fail-probe': word(Object.keys(ERRNO), 'Experiment: every probe fails with this error.'),
    dma: flag('Experiment: does DMA as soon as it is bound.'),
  },
  ['name'],
  'A driver of this machine.',
);

const IOMMU = map(
  {
    name: described(NAME, 'Default: iommu0, iommu1, …'),
    kind: word(IOMMU_KINDS, 'Default: intel.'),
    mode: word(
      ['translated', 'passthrough'],
      'How the kernel itself does DMA. Default: translated.',
    ),
    'interrupt-remapping': flag(
      'false: a device can forge the interrupts of others, so none is assigned. Default: true.',
    ),
    reserved: list(
      REGION,
      'Regions for every device behind it. Default: the MSI window of its kind.',
    ),
  },
  [],
  'An IOMMU.',
);

const ROOT_BUS = either(
  [
    BUS,
    map(
      {
        bus: BUS,
        'dma-device': described(ADDRESS, 'The device that does the DMA of this bus (VMD).'),
      },
      ['bus'],
      'A root bus that belongs to a controller.',
    ),
  ],
  'A root bus.',
);

const CAPTURE = map(
  {
    kernel: described(NAME, 'Release of the kernel.'),
    'read-as': word(['root', 'user'], 'Who read it.'),
    firmware: list(NAME, 'ACPI tables that describe an IOMMU.'),
    unreadable: list(NAME, 'What could not be read, and what that means.'),
  },
  [],
  'Where a capture comes from. Groups of a capture are those of its kernel.',
);

const GROUP = map(
  {
    id: number(0, 1_000_000, 'Number of the group.'),
    type: described(
      NAME,
      'Default domain as the kernel named it: DMA, DMA-FQ, identity, blocked …',
    ),
    reserved: list(REGION, 'Reserved regions as the kernel listed them.'),
    name: described(NAME, 'Content of its name file.'),
    others: list(NAME, 'Members that are not PCI devices.'),
  },
  ['id'],
  'What a real kernel said of a group.',
);

export const MACHINE_SHAPE: MapShape = map(
  {
    kind: word(
      ['pc', 'selftest'],
      'pc: PCI devices; selftest: the mock IOMMU of the kernel tests. Default: pc.',
    ),
    name: described(NAME, 'For people.'),
    boot: map(
      {
        acs: word(
          ['enable', 'as-is'],
          'enable: Linux turns ACS on where it is offered; as-is: the registers stay. Default: enable.',
        ),
        'disable-acs-redir': text(
          'devices as pci=disable_acs_redir= takes them',
          undefined,
          'Boot option.',
        ),
        'config-acs': text('BITS@DEVICE as pci=config_acs= takes them', undefined, 'Boot option.'),
        ats: flag('false: pci=noats. Default: true.'),
        'unsafe-interrupts': list(
          word(['vfio_iommu_type1', 'iommufd'], 'A module.'),
          'Modules with allow_unsafe_interrupts=1: interrupts need not be remapped.',
        ),
        noiommu: flag(
          'enable_unsafe_noiommu_mode=1 of the module vfio: devices without IOMMU can be assigned. Default: false.',
        ),
      },
      [],
      'Boot options.',
    ),
    iommu: either(
      [word(['none'], 'No IOMMU.'), IOMMU, list(IOMMU, 'Several IOMMUs.')],
      'What translates. Default: one Intel IOMMU.',
    ),
    'root-buses': list(
      ROOT_BUS,
      'Default: 0000:00, and the bus of every device without a bridge above.',
    ),
    devices: list(
      DEVICE_SHAPE,
      'In the order in which Linux finds them; a bridge is moved before what is behind it.',
    ),
    drivers: list(DRIVER, 'Drivers besides those that every machine has.'),
    groups: list(GROUP, 'Recorded groups.'),
    capture: CAPTURE,
  },
  [],
  'A machine for uiommu.',
);
