/**
 * The DMA engine of QEMU's teaching device: copies between memory and a buffer of 4 KiB in the device. A program gives source,
 * destination and count, one of the two in the buffer, and starts it by the command register.
 *
 * The device cuts bus addresses to 28 bits. A transfer that would leave the buffer is not made; what a transfer cannot reach in
 * memory reads as zeros or is dropped. It is over when the write of the command returns: QEMU takes 100 ms, which programs see
 * only by polling the run bit.
 *
 * Invariant: while the run bit is set, no register changes. (It never is, between two accesses.)
 *
 * QEMU's docs/specs/edu.rst, "DMA controller"; hw/misc/edu.c for what it leaves open.
 */
import type { DmaPort } from '../../dma.ts';

/** Offsets in BAR 0; 8 bytes each, written whole by an access of 4 or 8 bytes. */
export const EDU_DMA = { SOURCE: 0x80, DESTINATION: 0x88, COUNT: 0x90, COMMAND: 0x98 } as const;

const RUN = 1n;
const TO_MEMORY = 2n;
const INTERRUPT = 4n;

/** Where the buffer lies among the device's own addresses. */
const BUFFER_START = 0x4_0000n;
const BUFFER_BYTES = 4096n;
const ADDRESS_BITS = 28;

export class EduDmaEngine {
  readonly #port: DmaPort;
  readonly #done: () => void;
  readonly #buffer = new Uint8Array(Number(BUFFER_BYTES));
  #source = 0n;
  #destination = 0n;
  #count = 0n;
  #command = 0n;

  /** @param done called after a transfer whose command asked for an interrupt */
  constructor(port: DmaPort, done: () => void) {
    this.#port = port;
    this.#done = done;
  }

  /** Value of a register; undefined if there is none at `offset`. */
  read(offset: number): bigint | undefined {
    switch (offset) {
      case EDU_DMA.SOURCE:
        return this.#source;
      case EDU_DMA.DESTINATION:
        return this.#destination;
      case EDU_DMA.COUNT:
        return this.#count;
      case EDU_DMA.COMMAND:
        return this.#command;
      default:
        return undefined;
    }
  }

  write(offset: number, value: bigint): void {
    switch (offset) {
      case EDU_DMA.SOURCE:
        this.#source = value;
        return;
      case EDU_DMA.DESTINATION:
        this.#destination = value;
        return;
      case EDU_DMA.COUNT:
        this.#count = value;
        return;
      case EDU_DMA.COMMAND:
        if ((value & RUN) === 0n) return;
        this.#transfer((value & TO_MEMORY) !== 0n);
        this.#command = value & ~RUN;
        if ((value & INTERRUPT) !== 0n) this.#done();
    }
  }

  #transfer(toMemory: boolean): void {
    const part = this.#inBuffer(toMemory ? this.#source : this.#destination);
    if (part === undefined) return;
    const address = BigInt.asUintN(ADDRESS_BITS, toMemory ? this.#destination : this.#source);
    if (toMemory) this.#port.write(address, part);
    else this.#port.read(address, part);
  }

  /** The bytes of the buffer that a transfer uses; undefined where it would leave the buffer. */
  #inBuffer(start: bigint): Uint8Array | undefined {
    const first = start - BUFFER_START;
    if (first < 0n || this.#count > BUFFER_BYTES || first + this.#count > BUFFER_BYTES) {
      return undefined;
    }
    return this.#buffer.subarray(Number(first), Number(first + this.#count));
  }
}
