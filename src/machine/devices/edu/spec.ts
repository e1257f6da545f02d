/** Registers of QEMU's edu device (docs/specs/edu.rst, "MMIO area spec"): offsets in BAR 0, 4 bytes each below 0x80. */
export const EDU_ID = { vendor: 0x1234, device: 0x11e8 } as const;

export const EDU = {
  IDENTIFICATION: 0x00,
  LIVENESS: 0x04,
  FACTORIAL: 0x08,
  STATUS: 0x20,
  INTERRUPT_STATUS: 0x24,
  INTERRUPT_RAISE: 0x60,
  INTERRUPT_ACKNOWLEDGE: 0x64,
} as const;

/** major 1, minor 0, "ed" */
export const EDU_IDENTIFICATION = 0x0100_00ed;
export const EDU_STATUS_INTERRUPT = 0x80;
