/**
 * The model of QEMU's teaching device: identification, liveness, factorial, interrupts by message or pin, and DMA (dma-engine.ts).
 * A reset leaves its registers as they are.
 *
 * Registers: spec.ts. Accesses of other sizes than 4 bytes below 0x80, and than 4 or 8 from there on, read as ones and change
 * nothing.
 */
import type { DeviceModel } from '../../device-model.ts';
import type { DmaPort } from '../../dma.ts';
import type { InterruptSink } from '../../interrupt.ts';
import { EduDmaEngine } from './dma-engine.ts';
import { EDU, EDU_IDENTIFICATION, EDU_STATUS_INTERRUPT } from './spec.ts';

const DMA_REGISTERS = 0x80;
/** in the interrupt status: a transfer that asked for it is over */
const DMA_INTERRUPT = 0x100;

function isTaken(offset: number, bytes: number): boolean {
  return bytes === 4 || (bytes === 8 && offset >= DMA_REGISTERS);
}

export class EduModel implements DeviceModel {
  readonly #interrupts: InterruptSink;
  readonly #dma: EduDmaEngine;
  #liveness = 0;
  #factorial = 0;
  #status = 0;
  #pending = 0;

  constructor(interrupts: InterruptSink, dma: DmaPort) {
    this.#interrupts = interrupts;
    this.#dma = new EduDmaEngine(dma, () => {
      this.#raise(DMA_INTERRUPT);
    });
  }

  memory(): undefined {
    return undefined;
  }

  read(bar: number, offset: number, bytes: number): bigint {
    const ones = 2n ** BigInt(8 * bytes) - 1n;
    if (bar !== 0 || !isTaken(offset, bytes)) return ones;
    if (offset >= DMA_REGISTERS) return (this.#dma.read(offset) ?? ones) & ones;
    switch (offset) {
      case EDU.IDENTIFICATION:
        return BigInt(EDU_IDENTIFICATION);
      case EDU.LIVENESS:
        return BigInt(this.#liveness);
      case EDU.FACTORIAL:
        return BigInt(this.#factorial);
      case EDU.STATUS:
        return BigInt(this.#status);
      case EDU.INTERRUPT_STATUS:
        return BigInt(this.#pending);
      default:
        return ones;
    }
  }

  write(bar: number, offset: number, bytes: number, value: bigint): void {
    if (bar !== 0 || !isTaken(offset, bytes)) return;
    if (offset >= DMA_REGISTERS) {
      this.#dma.write(offset, value);
      return;
    }
    const word = Number(value & 0xffff_ffffn);
    switch (offset) {
      case EDU.LIVENESS:
        this.#liveness = ~word >>> 0;
        return;
      case EDU.FACTORIAL:
        this.#factorial = factorial(word);
        if ((this.#status & EDU_STATUS_INTERRUPT) !== 0) this.#raise(1);
        return;
      case EDU.STATUS:
        this.#status = word & EDU_STATUS_INTERRUPT;
        return;
      case EDU.INTERRUPT_RAISE:
        this.#raise(word);
        return;
      case EDU.INTERRUPT_ACKNOWLEDGE:
        this.#pending = (this.#pending & ~word) >>> 0;
        if (this.#pending === 0 && !this.#interrupts.messages) this.#interrupts.setLevel(false);
    }
  }

  #raise(bits: number): void {
    this.#pending = (this.#pending | bits) >>> 0;
    if (this.#pending === 0) return;
    if (this.#interrupts.messages) this.#interrupts.message(0);
    else this.#interrupts.setLevel(true);
  }

  reset(): void {
    // registers survive
  }
}

/** Of 32 bits, wrapping as the device's does. */
function factorial(n: number): number {
  let result = 1;
  for (let i = n; i > 1 && result !== 0; i--) result = Math.imul(result, i) >>> 0;
  return result;
}
