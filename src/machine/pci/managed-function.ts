/**
 * One PCI function as Linux's PCI core keeps it for a driver: resources, power state, INTx, and the one buffer of saved registers.
 *
 * Invariant: `powerState` is what the core last brought about, which the PM register shows too unless somebody wrote it behind the
 * core's back; resets go through the core, so both agree after each.
 *
 * After drivers/pci/pci.c and drivers/pci/irq.c.
 */
import { BAR_COUNT, RESOURCE, RESOURCE_FLAGS, resourceSize, type Bar } from './bar.ts';
import { HEADER_NORMAL, REGISTER, type ConfigSpace } from './config-space.ts';
import type { PciDevice } from './device.ts';
import type { FunctionHardware } from './hardware.ts';
import { MessageInterrupts } from './message-interrupts.ts';
import { CAP, COMMAND, PM, STATUS } from './pci-regs.ts';
import type { ConfigRegisters } from './registers.ts';
import type { ResetMethod } from './reset.ts';
import { romBytes } from './rom.ts';
import { restoreState, saveState, type SavedState } from './saved-state.ts';

export const D0 = 0;
export const D1 = 1;
export const D2 = 2;
export const D3_HOT = 3;

/** A BAR or the expansion ROM as Linux placed it. */
export type Region = {
  /** 0: it has no place */
  readonly start: bigint;
  /** in bytes; 0: there is none */
  readonly size: bigint;
  readonly kind: Bar['kind'];
  readonly prefetchable: boolean;
};

const NO_REGION: Region = { start: 0n, size: 0n, kind: 'memory32', prefetchable: false };

export type ManagedFunctionParts = {
  readonly pci: PciDevice;
  readonly hardware: FunctionHardware;
  /** found when the device was; which of them work is asked when it is reset */
  readonly resetMethods: readonly ResetMethod[];
  /** contents of the expansion ROM */
  readonly rom?: Uint8Array | undefined;
  /** the pin is wired to an interrupt */
  readonly wired: boolean;
  readonly productData?: ProductData | undefined;
};

/** Vital product data, behind the registers of its capability. */
export type ProductData = {
  /** The four bytes at `address`; zeros beyond the end. */
  read(address: number): Uint8Array;
  /** @returns false if they cannot be written */
  write(address: number, bytes: Uint8Array): boolean;
};

/** Runtime power management by a driver: uses of the function are counted, the last one lets it sleep. */
export type RuntimePower = { wake(): void; idle(): void };

export class ManagedFunction {
  readonly pci: PciDevice;
  readonly hardware: FunctionHardware;
  /** found when the device was, unless an administrator chose; which of them work is asked when it is reset */
  resetMethods: readonly ResetMethod[];
  readonly rom: Uint8Array | undefined;
  readonly productData: ProductData | undefined;
  /** the pin has an interrupt (pdev->irq) */
  readonly hasIrq: boolean;
  readonly pmOffset: number;
  readonly messages: MessageInterrupts;
  /** of the driver that lets the function sleep while it is not used */
  runtimePower: RuntimePower | undefined;
  powerState = D0;
  saved: SavedState | undefined;
  /** everybody who enabled the function, drivers and administrators alike */
  enableCount = 0;
  // What a device that lost its state in D3 gets back before anything else.
  readonly #bars: readonly number[];

  constructor(parts: ManagedFunctionParts) {
    this.pci = parts.pci;
    this.hardware = parts.hardware;
    this.resetMethods = parts.resetMethods;
    this.rom = parts.rom;
    this.productData = parts.productData;
    const { config } = parts.pci;
    const pin = config.u8(REGISTER.INTERRUPT_PIN);
    this.hasIrq = parts.wired && pin !== 0 && !parts.pci.isVirtualFunction;
    this.pmOffset = config.findCapability(CAP.PM);
    this.#bars = Array.from({ length: BAR_COUNT }, (_, i) => config.u32(REGISTER.BAR0 + 4 * i));
    this.messages = new MessageInterrupts(this);
  }

  get config(): ConfigSpace {
    return this.pci.config;
  }

  get registers(): ConfigRegisters {
    return this.hardware.registers;
  }

  /** @param index BAR 0 to 5, or {@link RESOURCE.ROM} */
  region(index: number): Region {
    const resource = this.pci.resources[index];
    if (resource === undefined || resource.flags === 0) return NO_REGION;
    const { IO, MEMORY_64, PREFETCH } = RESOURCE_FLAGS;
    const memory = (resource.flags & MEMORY_64) === 0 ? 'memory32' : 'memory64';
    return {
      start: resource.start,
      size: resourceSize(resource),
      kind: (resource.flags & IO) === 0 ? memory : 'io',
      prefetchable: (resource.flags & PREFETCH) !== 0,
    };
  }

  /** PCI_COMMAND_INTX_DISABLE can be written, so the pin can be masked at the device (broken_intx_masking). */
  get canMaskIntx(): boolean {
    const bits = this.registers.bits.writable[REGISTER.COMMAND + 1] ?? 0;
    return (bits & (COMMAND.INTX_DISABLE >> 8)) !== 0;
  }

  /** Does something with registers of a function that may sleep while nobody uses it. After pci_config_pm_runtime_get. */
  whileAwake<T>(work: () => T): T {
    this.runtimePower?.wake();
    try {
      return work();
    } finally {
      this.runtimePower?.idle();
    }
  }

  /** pci_enable_device: decoding on, INTx not disabled, once for all who ask. */
  enable(): void {
    this.setPowerState(D0);
    if (this.enableCount++ > 0) return;
    let command = this.config.u16(REGISTER.COMMAND);
    for (let i = 0; i < RESOURCE.ROM; i++) {
      const { size, kind } = this.region(i);
      if (size !== 0n) command |= kind === 'io' ? COMMAND.IO : COMMAND.MEMORY;
    }
    if (command !== this.config.u16(REGISTER.COMMAND)) this.#writeCommand(command);
    if (this.messages.enabled || this.config.u8(REGISTER.INTERRUPT_PIN) === 0) return;
    this.setIntx(true);
  }

  /** pci_disable_device: bus mastering off; decoding stays. */
  disable(): void {
    if (--this.enableCount === 0) this.clearMaster();
  }

  /** Does something that needs memory decoding, and puts the command register back. */
  withMemory(work: () => void): void {
    const command = this.config.u16(REGISTER.COMMAND);
    this.registers.update16(REGISTER.COMMAND, COMMAND.MEMORY, COMMAND.MEMORY);
    work();
    this.#writeCommand(command);
  }

  clearMaster(): void {
    this.registers.update16(REGISTER.COMMAND, COMMAND.MASTER, 0);
  }

  #writeCommand(value: number): void {
    this.registers.write(REGISTER.COMMAND, 2, value);
  }

  /** Decoding, bus mastering and interrupts off, before a reset. */
  quiesce(): void {
    this.#writeCommand(COMMAND.INTX_DISABLE);
  }

  /** pci_intx */
  setIntx(enabled: boolean): void {
    this.registers.update16(
      REGISTER.COMMAND,
      COMMAND.INTX_DISABLE,
      enabled ? 0 : COMMAND.INTX_DISABLE,
    );
  }

  /**
   * Masks INTx if it is pending, or unmasks it if it is not.
   * @returns false if nothing was done
   */
  checkAndMaskIntx(mask: boolean): boolean {
    const pending = (this.config.u16(REGISTER.STATUS) & STATUS.INTERRUPT) !== 0;
    if (mask !== pending) return false;
    this.setIntx(!mask);
    return true;
  }

  /**
   * pci_set_power_state. States that the function does not have, and deeper to shallower ones, are refused.
   * @returns whether the function is where it should be
   */
  setPowerState(state: number): boolean {
    if (this.powerState === state) return true;
    if (state === D0) return this.#powerUp();
    if (this.pmOffset === 0 || this.powerState > state) return false;
    const capabilities = this.config.u16(this.pmOffset + PM.CAPABILITIES);
    if (state === D1 && (capabilities & PM.CAP_D1) === 0) return false;
    if (state === D2 && (capabilities & PM.CAP_D2) === 0) return false;
    const at = this.pmOffset + PM.CONTROL;
    this.registers.write(at, 2, (this.config.u16(at) & ~PM.STATE) | state);
    this.powerState = this.config.u16(at) & PM.STATE;
    return true;
  }

  #powerUp(): boolean {
    if (this.pmOffset === 0) {
      this.powerState = D0;
      return true;
    }
    const at = this.pmOffset + PM.CONTROL;
    const control = this.config.u16(at);
    const was = control & PM.STATE;
    const lostState =
      (was === D3_HOT || this.powerState >= D3_HOT) && (control & PM.NO_SOFT_RESET) === 0;
    if (was !== D0) this.registers.write(at, 2, 0);
    this.powerState = this.config.u16(at) & PM.STATE;
    if (lostState) this.#restoreBars();
    return this.powerState === D0;
  }

  #restoreBars(): void {
    if (this.config.headerType !== HEADER_NORMAL) return;
    this.#bars.forEach((value, i) => {
      this.registers.write(REGISTER.BAR0 + 4 * i, 4, value);
    });
  }

  /** pci_save_state */
  save(): SavedState {
    this.saved = saveState(this);
    return this.saved;
  }

  /** pci_restore_state, from what was saved last. */
  restore(): void {
    if (this.saved !== undefined) restoreState(this, this.saved);
  }

  /** The contents of the expansion ROM that Linux finds valid; undefined if there is no valid image. After pci_map_rom. */
  validRom(): Uint8Array | undefined {
    const { size } = this.region(RESOURCE.ROM);
    if (size === 0n || this.rom === undefined) return undefined;
    const bytes = romBytes(this.rom, Number(size));
    return bytes === 0 ? undefined : this.rom.subarray(0, bytes);
  }
}
