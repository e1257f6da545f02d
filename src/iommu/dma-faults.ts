/**
 * The DMA faults of a machine, as its kernel log would have them: the last ones with their reasons, and how many there were. A
 * device can fault as often as it likes, so the log has a bound.
 */
import type { DmaFault } from './dma.ts';

const KEPT = 256;

export class DmaFaultLog {
  readonly #last: DmaFault[] = [];
  #count = 0;

  report(fault: DmaFault): void {
    this.#count++;
    this.#last.push(fault);
    if (this.#last.length > KEPT) this.#last.shift();
  }

  /** Faults since the machine was booted. */
  get count(): number {
    return this.#count;
  }

  /** The last ones, oldest first. */
  get last(): readonly DmaFault[] {
    return this.#last;
  }
}
