/**
 * Arena: memory with a constant address, mapped once and never unmapped, in which every block lives that the kernel reads
 * or writes. (V8 moves and collects its own buffers; an address taken from one dangles.)
 */
import { sys6, viewMemory } from './libc.ts';
import { NR } from './numbers.ts';

const PAGE = 4096;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** Bytes with an address. */
export type Block = {
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
};

export class Arena {
  readonly #buffer: ArrayBuffer;
  readonly #address: number;
  #used = 0;

  /** @param length in bytes, rounded up to pages */
  constructor(length: number) {
    const size = Math.ceil(length / PAGE) * PAGE;
    const address = sys6(NR.mmap, 0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
    if (address < 0) throw new Error(`no memory for an arena of ${size} bytes: errno ${-address}`);
    this.#address = address;
    this.#buffer = viewMemory(address, size);
  }

  /** The next `length` bytes, zeroed, aligned to 8. */
  take(length: number): Block {
    const start = this.#used;
    this.#used = start + Math.ceil(length / 8) * 8;
    if (this.#used > this.#buffer.byteLength) throw new RangeError('arena is full');
    return {
      address: this.#address + start,
      bytes: new Uint8Array(this.#buffer, start, length),
      view: new DataView(this.#buffer, start, length),
    };
  }
}

/** Zeroed bytes in an arena of their own, for the life of the process. */
export function allocate(length: number): Block {
  return new Arena(length).take(length);
}
