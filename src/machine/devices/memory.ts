/**
 * The model of a device without one: every BAR is memory that reads as zeros and keeps what is written, until power is lost. A
 * reset does not clear it. It has no interrupts and does no DMA.
 */
import { SparseBacking } from '../../base/sparse-backing.ts';
import type { Backing } from '../../base/task.ts';
import type { DeviceModel } from '../device-model.ts';

/** Makes the memory behind a BAR; where nothing else is given, pages come into being when they are written. */
export type MakeBacking = (name: string, bytes: number) => Backing;

export class MemoryModel implements DeviceModel {
  readonly #name: string;
  readonly #sizeOf: (bar: number) => number;
  readonly #make: MakeBacking;
  readonly #bars = new Map<number, Backing>();

  /**
   * @param name of the function, for people
   * @param sizeOf size of a BAR in bytes
   */
  constructor(
    name: string,
    sizeOf: (bar: number) => number,
    make: MakeBacking = (label) => new SparseBacking(label),
  ) {
    this.#name = name;
    this.#sizeOf = sizeOf;
    this.#make = make;
  }

  memory(bar: number): Backing {
    const known = this.#bars.get(bar);
    if (known !== undefined) return known;
    const made = this.#make(`BAR ${bar} of ${this.#name}`, this.#sizeOf(bar));
    this.#bars.set(bar, made);
    return made;
  }

  read(bar: number, offset: number, bytes: number): bigint {
    const into = new Uint8Array(8);
    this.memory(bar).read(offset, into.subarray(0, bytes));
    return new DataView(into.buffer).getBigUint64(0, true);
  }

  write(bar: number, offset: number, bytes: number, value: bigint): void {
    const from = new Uint8Array(8);
    new DataView(from.buffer).setBigUint64(0, value, true);
    this.memory(bar).write(offset, from.subarray(0, bytes));
  }

  reset(): void {
    // memory keeps its contents
  }
}
