/**
 * The capabilities that decide about isolation: PCI Express, ACS, ARI, SR-IOV. Numbers: PCI Express Base 6.0, sections
 * 7.5.3 (PCI Express), 7.7.8 (ACS), 7.8.8 (ARI) and SR-IOV 9.3.3.
 */
export const CAP_EXPRESS = 0x10;
export const CAP_MSI = 0x05;
export const CAP_MSIX = 0x11;
/** SSVID: the subsystem ids of a bridge */
export const CAP_SUBSYSTEM = 0x0d;

export const EXT_ACS = 0x0d;
export const EXT_ARI = 0x0e;
export const EXT_ATS = 0x0f;
export const EXT_SRIOV = 0x10;
export const EXT_PASID = 0x1b;
export const EXT_SERIAL_NUMBER = 0x03;

export const EXPRESS = {
  FLAGS: 0x02,
  LINK_CAPABILITIES: 0x0c,
  LINK_STATUS: 0x12,
  DEVICE_CONTROL_2: 0x28,
  LINK_CAPABILITIES_2: 0x2c,
  BYTES: 0x3c,
} as const;
export const DEVICE_CONTROL_2_ARI = 0x20;

/** Device/port type of the PCI Express capability, by the name that machine files use. */
export const PORT_TYPES = {
  endpoint: 0x0,
  'legacy-endpoint': 0x1,
  'root-port': 0x4,
  'upstream-port': 0x5,
  'downstream-port': 0x6,
  'pcie-pci-bridge': 0x7,
  'pci-pcie-bridge': 0x8,
  'rc-endpoint': 0x9,
  'rc-event-collector': 0xa,
} as const;

export type PortType = keyof typeof PORT_TYPES;

const PORT_NAMES = new Map<number, PortType>(
  Object.entries(PORT_TYPES).map(([name, number]) => [number, name as PortType]),
);

/** The name of a device/port type; undefined for a number that the specification does not assign. */
export function portTypeName(number: number): PortType | undefined {
  return PORT_NAMES.get(number);
}

export const ACS = { CAPABILITY: 0x04, CONTROL: 0x06, BYTES: 8 } as const;

/** Bits of the ACS capability and control registers. */
export const ACS_BITS = {
  SV: 0x01,
  TB: 0x02,
  RR: 0x04,
  CR: 0x08,
  UF: 0x10,
  EC: 0x20,
  DT: 0x40,
} as const;

export type AcsBit = keyof typeof ACS_BITS;

export const ACS_BIT_NAMES: Readonly<Record<AcsBit, string>> = {
  SV: 'source validation',
  TB: 'translation blocking',
  RR: 'request redirect',
  CR: 'completion redirect',
  UF: 'upstream forwarding',
  EC: 'egress control',
  DT: 'direct translated',
};

/** The bits of `value` by their short names, lowest first. */
export function acsBitList(value: number): AcsBit[] {
  return Object.entries(ACS_BITS)
    .filter(([, bit]) => (value & bit) !== 0)
    .map(([name]) => name as AcsBit);
}

export const SRIOV = {
  CONTROL: 0x08,
  INITIAL_VFS: 0x0c,
  TOTAL_VFS: 0x0e,
  NUM_VFS: 0x10,
  FIRST_OFFSET: 0x14,
  STRIDE: 0x16,
  VF_DEVICE: 0x1a,
  BAR0: 0x24,
  BYTES: 0x40,
} as const;
export const SRIOV_CONTROL_ENABLE = 0x01;
export const SRIOV_CONTROL_MEMORY = 0x08;

export const ARI = { CAPABILITY: 0x04, BYTES: 8 } as const;
