/**
 * The registers that Linux saves before a function loses them (a reset, D3) and writes back afterwards.
 *
 * Order on the way back: capabilities, then BARs before the command register, so that nothing decodes a wrong address; interrupts
 * last. Left out: PTM, TPH, DPC, virtual channels, resizable BARs, ATS, PRI and PASID, whose registers keep their values here.
 *
 * After drivers/pci/pci.c (pci_save_state, pci_restore_state) and drivers/pci/pcie/aer.c.
 */
import { PORT_TYPES } from './capabilities.ts';
import type { ManagedFunction } from './managed-function.ts';
import { AER, CAP, EXP, EXT, HEADER, PCIX } from './pci-regs.ts';

export type SavedState = {
  /** by offset: registers of 16 bits */
  readonly words: ReadonlyMap<number, number>;
  /** by offset: registers of 32 bits */
  readonly dwords: ReadonlyMap<number, number>;
  /** the header's 16 */
  readonly header: readonly number[];
};

const WITHOUT_LINK: readonly (number | undefined)[] = [
  PORT_TYPES['rc-endpoint'],
  PORT_TYPES['rc-event-collector'],
];

/** Offsets of the PCI Express registers of an endpoint that are saved. After pcie_capability_reg_implemented. */
function expressRegisters({ pci, config }: ManagedFunction): number[] {
  const { expressOffset } = pci;
  if (expressOffset === 0) return [];
  const link = !WITHOUT_LINK.includes(pci.portType);
  const second = (config.u16(expressOffset + EXP.FLAGS) & 0xf) > 1;
  return [
    EXP.DEVICE_CONTROL,
    ...(link ? [EXP.LINK_CONTROL] : []),
    ...(second ? [EXP.DEVICE_CONTROL_2] : []),
    ...(link && second ? [EXP.LINK_CONTROL_2] : []),
  ].map((register) => expressOffset + register);
}

/** Reads what would be lost. */
export function saveState(managed: ManagedFunction): SavedState {
  const { config } = managed;
  const pcix = config.findCapability(CAP.PCIX);
  const words = [...expressRegisters(managed), ...(pcix === 0 ? [] : [pcix + PCIX.COMMAND])];
  const aer = config.findExtendedCapability(EXT.AER);
  const masks = [AER.UNCOR_MASK, AER.UNCOR_SEVERITY, AER.COR_MASK, AER.CONTROL];
  const dwords = aer === 0 ? [] : masks.map((register) => aer + register);
  return {
    words: new Map(words.map((offset) => [offset, config.u16(offset)])),
    dwords: new Map(dwords.map((offset) => [offset, config.u32(offset)])),
    header: Array.from({ length: HEADER.BYTES / 4 }, (_, i) => config.u32(4 * i)),
  };
}

/** Writes it back. */
export function restoreState(managed: ManagedFunction, saved: SavedState): void {
  const { registers, config } = managed;
  for (const [offset, value] of saved.words) registers.write(offset, 2, value);
  clearErrors(managed);
  for (const [offset, value] of saved.dwords) registers.write(offset, 4, value);
  // Each range from its end: BARs (4 to 9) before the command register (1).
  for (const index of [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]) {
    const value = saved.header[index] ?? 0;
    if (config.u32(4 * index) !== value) registers.write(4 * index, 4, value);
  }
  managed.messages.restore();
}

/** pci_aer_clear_status: what is pending is written back, which clears it. */
function clearErrors({ config, registers }: ManagedFunction): void {
  const aer = config.findExtendedCapability(EXT.AER);
  if (aer === 0) return;
  for (const register of [AER.COR_STATUS, AER.UNCOR_STATUS]) {
    const pending = config.u32(aer + register);
    if (pending !== 0) registers.write(aer + register, 4, pending);
  }
}
