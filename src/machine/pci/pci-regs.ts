/**
 * Registers of a PCI function that Linux's PCI core and vfio-pci touch: offsets within their capability, and bits. Numbers: PCI Local
 * Bus 3.0 chapter 6, PCI Power Management 1.2, PCI Express Base 6.0 sections 7.5 to 7.9.
 */

export const COMMAND = {
  IO: 0x001,
  MEMORY: 0x002,
  MASTER: 0x004,
  INTX_DISABLE: 0x400,
} as const;

export const STATUS = { INTERRUPT: 0x08, CAPABILITY_LIST: 0x10, CLEARABLE: 0xf900 } as const;

export const HEADER = {
  CACHE_LINE: 0x0c,
  LATENCY_TIMER: 0x0d,
  BIST: 0x0f,
  LAST_BAR: 0x24,
  ROM: 0x30,
  BRIDGE_CONTROL: 0x3e,
  INTERRUPT_LINE: 0x3c,
  BYTES: 0x40,
} as const;
export const CAP = {
  PM: 0x01,
  AGP: 0x02,
  VPD: 0x03,
  MSI: 0x05,
  PCIX: 0x07,
  HT: 0x08,
  VENDOR: 0x09,
  EXPRESS: 0x10,
  MSIX: 0x11,
  SATA: 0x12,
  AF: 0x13,
  MAX: 0x14,
} as const;

export const EXT = {
  AER: 0x01,
  VC: 0x02,
  DSN: 0x03,
  POWER_BUDGET: 0x04,
  MFVC: 0x08,
  VC9: 0x09,
  VENDOR: 0x0b,
  ACS: 0x0d,
  ARI: 0x0e,
  ATS: 0x0f,
  SRIOV: 0x10,
  MULTICAST: 0x12,
  PRI: 0x13,
  REBAR: 0x15,
  DPA: 0x16,
  TPH: 0x17,
  LTR: 0x18,
  DVSEC: 0x23,
} as const;

export const PM = {
  CAPABILITIES: 2,
  CONTROL: 4,
  STATE: 0x0003,
  NO_SOFT_RESET: 0x0008,
  PME_ENABLE: 0x0100,
  PME_STATUS: 0x8000,
  CAP_D1: 0x0200,
  CAP_D2: 0x0400,
  CAP_PME: 0xf800,
  BYTES: 8,
} as const;

export const MSI = {
  FLAGS: 2,
  ENABLE: 0x0001,
  QMASK: 0x000e,
  QSIZE: 0x0070,
  SIXTY_FOUR: 0x0080,
  MASKABLE: 0x0100,
  ADDRESS_LO: 4,
  ADDRESS_HI: 8,
  DATA_32: 8,
  DATA_64: 12,
  MASK_32: 12,
  MASK_64: 16,
  PENDING_32: 16,
  PENDING_64: 20,
} as const;

export const MSIX = {
  FLAGS: 2,
  TABLE: 4,
  ENABLE: 0x8000,
  MASK_ALL: 0x4000,
  TABLE_SIZE: 0x07ff,
  BIR: 0x0007,
  ENTRY_BYTES: 16,
} as const;

export const EXP = {
  FLAGS: 0x02,
  DEVICE_CAP: 0x04,
  DEVICE_CONTROL: 0x08,
  LINK_CAP: 0x0c,
  LINK_CONTROL: 0x10,
  LINK_STATUS: 0x12,
  SLOT_CONTROL: 0x18,
  ROOT_CONTROL: 0x1c,
  DEVICE_CAP_2: 0x24,
  DEVICE_CONTROL_2: 0x28,
  LINK_CAP_2: 0x2c,
  LINK_CONTROL_2: 0x30,
  FLR_CAPABLE: 0x1000_0000,
  FLR: 0x8000,
  PAYLOAD: 0x00e0,
  READ_REQUEST: 0x7000,
  PHANTOM: 0x0200,
  ARI: 0x0020,
  LINK_ACTIVE_REPORTING: 0x0010_0000,
  LINK_ACTIVE: 0x2000,
  ATOMIC_ROUTE: 0x0040,
  ATOMIC_COMP32: 0x0080,
  ATOMIC_COMP64: 0x0100,
  ATOMIC_COMP128: 0x0200,
  ATOMIC_REQUESTER: 0x0040,
  ATOMIC_EGRESS_BLOCK: 0x0080,
} as const;

export const AF = { CAP: 3, CONTROL: 4, TP: 0x01, FLR: 0x02, START: 0x01, BYTES: 6 } as const;

export const AER = {
  UNCOR_STATUS: 0x04,
  UNCOR_MASK: 0x08,
  UNCOR_SEVERITY: 0x0c,
  COR_STATUS: 0x10,
  COR_MASK: 0x14,
  CONTROL: 0x18,
  ROOT_COMMAND: 0x2c,
} as const;

export const VPD = { ADDRESS: 2, DATA: 4, FLAG: 0x8000, BYTES: 8 } as const;
export const PCIX = { COMMAND: 2, BYTES_V0: 8, BYTES_V2: 24, VERSION: 0x3000 } as const;
