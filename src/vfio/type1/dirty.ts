/**
 * Dirty bitmaps of a container's mappings. Its devices write memory without anybody noting it, so a report says "dirty" for every
 * page that they can reach; only a container of emulated devices knows better, and there is no such device here.
 *
 * What makes this more than a row of ones is how Linux puts the bits of several mappings into one bitmap: a mapping that does not
 * begin at a multiple of 64 pages is shifted in place, in units of 64 bits, and what the client had in the first unit is merged in.
 * The shifted bits stay in the mapping's bitmap behind its own pages, and show up in later reports.
 *
 * Words: unit, 64 bits of a bitmap; tail, the bits of a mapping's bitmap behind those of its pages, in units from the one with the
 * last page on.
 *
 * After update_user_bitmap of drivers/vfio/vfio_iommu_type1.c, and lib/bitmap.c.
 */
import type { UserMemory } from '../../base/task.ts';

const UNIT_BITS = 64;
const UNIT_BYTES = 8;
const ONES = 2n ** 64n - 1n;

/** The bitmap of one mapping while its container tracks dirty pages. */
export class DirtyBitmap {
  readonly #pages: number;
  /** units from the one that holds the bit behind the last page on; the kernel allocates one more than it needs */
  readonly #tail: bigint[];

  constructor(pages: number) {
    this.#pages = pages;
    this.#tail = new Array<bigint>(unitsFor(pages) + 1 - this.#full).fill(0n);
  }

  /** Units in which every bit stands for a page. */
  get #full(): number {
    return Math.floor(this.#pages / UNIT_BITS);
  }

  /** Bits of the first unit of the tail that stand for pages. */
  get #own(): bigint {
    return (1n << BigInt(this.#pages % UNIT_BITS)) - 1n;
  }

  /**
   * Reports all pages of the mapping dirty.
   * @param address of the bitmap that the client gave
   * @param bit number of the mapping's first page in it
   * @throws Errno EFAULT
   */
  report(memory: UserMemory, address: bigint, bit: number): void {
    const tail = [...this.#tail];
    tail[0] = (tail[0] ?? 0n) | this.#own;
    const shift = bit % UNIT_BITS;
    const at = address + BigInt(Math.floor(bit / UNIT_BITS) * UNIT_BYTES);
    const units = unitsFor(this.#pages + shift);
    const bytes = new Uint8Array(units * UNIT_BYTES).fill(0xff);
    const view = new DataView(bytes.buffer);
    const before = (index: number): bigint =>
      index < 0 ? 0n : index < this.#full ? ONES : (tail[index - this.#full] ?? 0n);
    const shifted = (index: number): bigint =>
      BigInt.asUintN(64, before(index) << BigInt(shift)) |
      (shift === 0 ? 0n : before(index - 1) >> BigInt(UNIT_BITS - shift));
    for (let index = Math.max(this.#full, 0); index < units; index++) {
      view.setBigUint64(index * UNIT_BYTES, shifted(index), true);
      this.#tail[index - this.#full] = shifted(index);
    }
    if (shift > 0) {
      const theirs = new Uint8Array(UNIT_BYTES);
      memory.copyIn(at, theirs);
      const merged = shifted(0) | new DataView(theirs.buffer).getBigUint64(0, true);
      view.setBigUint64(0, merged, true);
      if (this.#full === 0) this.#tail[0] = merged;
    }
    memory.copyOut(at, bytes);
    this.#tail[0] = (this.#tail[0] ?? 0n) & ~this.#own;
  }
}

function unitsFor(bits: number): number {
  return Math.ceil(bits / UNIT_BITS);
}

/** Bytes that a bitmap of so many pages takes: whole units. */
export function bitmapBytes(pages: bigint): bigint {
  return ((pages + 63n) / 64n) * 8n;
}

/** Largest bitmap that is taken, in bytes: what an int counts in bits. */
export const LARGEST_BITMAP = bitmapBytes(2n ** 31n - 1n);
