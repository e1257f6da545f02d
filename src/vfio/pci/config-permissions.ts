/**
 * What a user may do with each register of a capability: which bits are virtual (vfio-pci keeps them, the hardware's do not show), and
 * which can be written. A capability without a table is read from the hardware, its list header excepted, and not written.
 *
 * After the tables of drivers/vfio/pci/vfio_pci_config.c.
 */
import { BAR_COUNT } from '../../machine/pci/bar.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import {
  AER,
  AF,
  CAP,
  COMMAND,
  EXP,
  EXT,
  HEADER,
  MSI,
  PCIX,
  PM,
  STATUS,
  VPD,
} from '../../machine/pci/pci-regs.ts';
import { BASIC } from './config-layout.ts';

/** One bit for each bit of a capability, from its first byte on; beyond the end nothing is virtual or writable. */
export class Permissions {
  readonly virtual: Uint8Array;
  readonly writable: Uint8Array;

  constructor(bytes: number) {
    const rounded = (bytes + 3) & ~3;
    this.virtual = new Uint8Array(rounded);
    this.writable = new Uint8Array(rounded);
  }

  set(offset: number, count: number, virtual: number, writable: number): this {
    put(this.virtual, offset, count, virtual);
    put(this.writable, offset, count, writable);
    return this;
  }
}

function put(bytes: Uint8Array, offset: number, count: number, value: number): void {
  for (let i = 0; i < count; i++) bytes[offset + i] = (value >>> (8 * i)) & 0xff;
}

const ALL = 0xffff_ffff;
const NEXT = 1;

/** Users find the next capability here, as vfio-pci may have hidden the real one. */
function capability(bytes: number): Permissions {
  return new Permissions(bytes).set(NEXT, 1, ALL, 0);
}

function extended(bytes: number): Permissions {
  return new Permissions(bytes).set(0, 4, ALL, 0);
}

function basic(): Permissions {
  const header = new Permissions(HEADER.BYTES)
    .set(REGISTER.VENDOR, 2, ALL, 0)
    .set(REGISTER.DEVICE, 2, ALL, 0)
    .set(REGISTER.COMMAND, 2, COMMAND.INTX_DISABLE, ALL)
    .set(REGISTER.STATUS, 2, STATUS.CAPABILITY_LIST, 0)
    .set(HEADER.CACHE_LINE, 1, 0, ALL)
    .set(HEADER.LATENCY_TIMER, 1, 0, ALL)
    .set(HEADER.BIST, 1, 0, ALL)
    .set(HEADER.ROM, 4, ALL, ALL)
    .set(REGISTER.CAPABILITIES, 1, ALL, 0)
    .set(HEADER.INTERRUPT_LINE, 1, ALL, ALL)
    .set(REGISTER.INTERRUPT_PIN, 1, ALL, 0);
  for (let i = 0; i < BAR_COUNT; i++) header.set(REGISTER.BAR0 + 4 * i, 4, ALL, ALL);
  return header;
}

const EXPRESS_BYTES = 0x34;
const PME = PM.PME_ENABLE | PM.PME_STATUS;
const ECC_CONTROL = 8;

/** Of standard capabilities, by id. */
export const STANDARD_PERMISSIONS: ReadonlyMap<number, Permissions> = new Map([
  [BASIC, basic()],
  [
    CAP.PM,
    capability(PM.BYTES)
      .set(PM.CAPABILITIES, 2, PM.CAP_PME, 0)
      .set(PM.CONTROL, 4, PME, ~(PME | PM.STATE)),
  ],
  [CAP.VPD, capability(VPD.BYTES).set(VPD.ADDRESS, 2, ALL, ALL).set(VPD.DATA, 4, ALL, ALL)],
  [CAP.PCIX, capability(PCIX.BYTES_V2).set(PCIX.COMMAND, 2, 0, ALL).set(ECC_CONTROL, 4, 0, ALL)],
  [
    CAP.EXPRESS,
    capability(EXPRESS_BYTES)
      .set(EXP.DEVICE_CONTROL, 2, EXP.FLR | EXP.PAYLOAD | EXP.READ_REQUEST, ~EXP.PHANTOM)
      .set(EXP.DEVICE_CONTROL_2, 2, 0, ~EXP.ARI),
  ],
  [CAP.AF, capability(AF.BYTES).set(AF.CONTROL, 1, AF.START, AF.START)],
]);

const UNCORRECTABLE = 0x03ff_f031;
const CORRECTABLE = 0xf1c1;
const ECRC = 0x0140;
const AER_BYTES = 0x2c;
const POWER_BUDGET_BYTES = 0x10;
const POWER_BUDGET_DATA = 8;

/** Of extended capabilities, by id. */
export const EXTENDED_PERMISSIONS: ReadonlyMap<number, Permissions> = new Map([
  [
    EXT.AER,
    extended(AER_BYTES)
      .set(AER.UNCOR_STATUS, 4, 0, UNCORRECTABLE)
      .set(AER.UNCOR_MASK, 4, 0, UNCORRECTABLE)
      .set(AER.UNCOR_SEVERITY, 4, 0, UNCORRECTABLE)
      .set(AER.COR_STATUS, 4, 0, CORRECTABLE)
      .set(AER.COR_MASK, 4, 0, CORRECTABLE)
      .set(AER.CONTROL, 4, 0, ECRC),
  ],
  [EXT.POWER_BUDGET, extended(POWER_BUDGET_BYTES).set(POWER_BUDGET_DATA, 1, 0, ALL)],
]);

/**
 * Of the MSI capability, whose registers depend on its flags.
 * @param flags message control
 * @param bytes of the capability
 */
export function msiPermissions(flags: number, bytes: number): Permissions {
  const wide = (flags & MSI.SIXTY_FOUR) !== 0;
  const bits = capability(bytes).set(MSI.FLAGS, 1, ALL, ALL).set(MSI.ADDRESS_LO, 4, ALL, ALL);
  if (wide) bits.set(MSI.ADDRESS_HI, 4, ALL, ALL);
  bits.set(wide ? MSI.DATA_64 : MSI.DATA_32, 2, ALL, ALL);
  if ((flags & MSI.MASKABLE) === 0) return bits;
  return bits
    .set(wide ? MSI.MASK_64 : MSI.MASK_32, 4, 0, ALL)
    .set(wide ? MSI.PENDING_64 : MSI.PENDING_32, 4, 0, ALL);
}
