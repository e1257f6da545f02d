/**
 * One PCI function as a piece of hardware: configuration registers, interrupt pin, messages, and the model behind its BARs. What the
 * bus sees of it; what Linux keeps about it is in managed-function.ts.
 *
 * Reset (any kind, as far as the function is concerned): decoding, bus mastering and interrupts off, BARs and the registers that
 * software sets up at boot back to 0, power state D0. Registers beyond those that the specification names keep their values.
 *
 * PCI Local Bus 3.0, sections 6.2 and 6.8; PCI Power Management 1.2, section 5.4; PCI Express Base 6.0, section 6.6.
 */
import { BAR_COUNT } from './bar.ts';
import type { DeviceModel } from '../device-model.ts';
import { InterruptPin, type InterruptSink } from '../interrupt.ts';
import { HEADER_NORMAL, REGISTER, type ConfigSpace } from './config-space.ts';
import { AF, CAP, COMMAND, EXP, HEADER, MSI, MSIX, PM } from './pci-regs.ts';
import { msiBytes } from './capability-length.ts';
import { ConfigRegisters, covers, type ConfigWrite, type RegisterBits } from './registers.ts';

/** Whoever takes the messages of a function, by vector. */
export type MessageHandler = (vector: number) => void;

export type MakeModel = (interrupts: InterruptSink) => DeviceModel;

export class FunctionHardware {
  readonly registers: ConfigRegisters;
  readonly pin: InterruptPin;
  readonly model: DeviceModel;
  /** MSI-X: vectors whose table entry is not masked */
  readonly #unmasked = new Set<number>();
  /** vectors that were to be sent while masked: sent when they are not masked any more */
  readonly #pending = new Set<number>();
  onMessage: MessageHandler | undefined;
  readonly #config: ConfigSpace;
  readonly #offsets: Readonly<Record<'pm' | 'msi' | 'msix' | 'express' | 'af', number>>;
  #powerState: number;

  constructor(config: ConfigSpace, bits: RegisterBits, makeModel: MakeModel) {
    this.#config = config;
    this.#offsets = {
      pm: config.findCapability(CAP.PM),
      msi: config.findCapability(CAP.MSI),
      msix: config.findCapability(CAP.MSIX),
      express: config.findCapability(CAP.EXPRESS),
      af: config.findCapability(CAP.AF),
    };
    this.registers = new ConfigRegisters(config, bits);
    this.pin = new InterruptPin(config);
    this.#powerState = this.#powerBits();
    this.model = makeModel(this.#sink());
    this.registers.onWrite((write) => {
      this.#written(write);
    });
  }

  #sink(): InterruptSink {
    const enabled = (): boolean => this.#msiEnabled() || this.#msixEnabled();
    return {
      setLevel: (high) => {
        this.pin.set(high);
      },
      get messages() {
        return enabled();
      },
      message: (vector) => {
        this.#send(vector);
      },
    };
  }

  #msiEnabled(): boolean {
    const { msi } = this.#offsets;
    return msi !== 0 && (this.#config.u16(msi + MSI.FLAGS) & MSI.ENABLE) !== 0;
  }

  #msixEnabled(): boolean {
    const { msix } = this.#offsets;
    return msix !== 0 && (this.#config.u16(msix + MSIX.FLAGS) & MSIX.ENABLE) !== 0;
  }

  #send(vector: number): void {
    if (this.#masked(vector)) this.#setPending(vector, true);
    else if ((this.#config.u16(REGISTER.COMMAND) & COMMAND.MASTER) !== 0) this.onMessage?.(vector);
  }

  #setPending(vector: number, pending: boolean): void {
    if (pending) this.#pending.add(vector);
    else this.#pending.delete(vector);
    const { msi } = this.#offsets;
    const flags = msi === 0 ? 0 : this.#config.u16(msi + MSI.FLAGS);
    if (!this.#msiEnabled() || (flags & MSI.MASKABLE) === 0) return;
    const at = msi + ((flags & MSI.SIXTY_FOUR) !== 0 ? MSI.PENDING_64 : MSI.PENDING_32);
    const bit = 1 << vector;
    const bits = this.#config.u32(at);
    this.#config.setU32(at, (pending ? bits | bit : bits & ~bit) >>> 0);
  }

  #sendPending(): void {
    for (const vector of [...this.#pending]) {
      if (this.#masked(vector)) continue;
      this.#setPending(vector, false);
      this.#send(vector);
    }
  }

  /** Writes the mask bit of an entry of the MSI-X table. */
  maskVector(vector: number, masked: boolean): void {
    if (masked) this.#unmasked.delete(vector);
    else this.#unmasked.add(vector);
    this.#sendPending();
  }

  #masked(vector: number): boolean {
    const { msi, msix } = this.#offsets;
    if (this.#msixEnabled()) {
      const all = (this.#config.u16(msix + MSIX.FLAGS) & MSIX.MASK_ALL) !== 0;
      return all || !this.#unmasked.has(vector);
    }
    const flags = this.#config.u16(msi + MSI.FLAGS);
    if ((flags & MSI.MASKABLE) === 0) return false;
    const mask = (flags & MSI.SIXTY_FOUR) !== 0 ? MSI.MASK_64 : MSI.MASK_32;
    return ((this.#config.u32(msi + mask) >>> vector) & 1) !== 0;
  }

  #powerBits(): number {
    const { pm } = this.#offsets;
    return pm === 0 ? 0 : this.#config.u16(pm + PM.CONTROL) & PM.STATE;
  }

  #written(write: ConfigWrite): void {
    const { pm, express, af, msi, msix } = this.#offsets;
    if (covers(write, REGISTER.COMMAND, 2)) this.pin.update();
    if (pm !== 0 && covers(write, pm + PM.CONTROL, 2)) this.#powerChanged(pm);
    const messages = msi !== 0 && covers(write, msi, MSI.PENDING_64);
    if (messages || (msix !== 0 && covers(write, msix + MSIX.FLAGS, 2))) this.#sendPending();
    const startsFlr =
      express !== 0 && this.#carries(write, express + EXP.DEVICE_CONTROL + 1, EXP.FLR >> 8);
    const flrCapable =
      startsFlr && (this.#config.u32(express + EXP.DEVICE_CAP) & EXP.FLR_CAPABLE) !== 0;
    if (flrCapable) this.reset();
    if (af !== 0 && this.#carries(write, af + AF.CONTROL, AF.START)) this.reset();
  }

  // A bit that starts something and reads as 0 is found in what the bus carried.
  #carries({ first, last, value }: ConfigWrite, byte: number, bit: number): boolean {
    return byte >= first && byte <= last && ((value >>> (8 * (byte - first))) & bit) !== 0;
  }

  #powerChanged(pm: number): void {
    const before = this.#powerState;
    this.#powerState = this.#powerBits();
    const wakes = before === 3 && this.#powerState === 0;
    const keepsState = (this.#config.u16(pm + PM.CONTROL) & PM.NO_SOFT_RESET) !== 0;
    if (wakes && !keepsState) this.reset();
  }

  /** Whatever kind of reset, the function starts anew. */
  reset(): void {
    const config = this.#config;
    this.pin.set(false);
    this.#clear(REGISTER.COMMAND, 2);
    this.#clear(HEADER.CACHE_LINE, 2);
    this.#clear(HEADER.INTERRUPT_LINE, 1);
    if (config.headerType === HEADER_NORMAL) {
      this.#clear(REGISTER.BAR0, 4 * BAR_COUNT);
      this.#clear(HEADER.ROM, 4);
    }
    const { pm, msi, msix } = this.#offsets;
    if (pm !== 0) this.#clear(pm + PM.CONTROL, 1);
    if (msi !== 0) this.#clear(msi + MSI.FLAGS, msiBytes(config.u16(msi + MSI.FLAGS)) - MSI.FLAGS);
    if (msix !== 0) this.#clear(msix + MSIX.FLAGS, 2);
    this.#powerState = 0;
    this.#unmasked.clear();
    this.#pending.clear();
    this.model.reset();
  }

  #clear(offset: number, count: number): void {
    const { writable } = this.registers.bits;
    for (let i = offset; i < offset + count; i++) {
      this.#config.setU8(i, this.#config.u8(i) & ~(writable[i] ?? 0));
    }
  }
}
