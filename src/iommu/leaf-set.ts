/**
 * LeafSet: which leaves of an extent are dirty, by where they start. A bit per smallest leaf, in chunks that exist where a
 * bit is set, so that marking all of a terabyte is possible and asking for a part of it costs that part.
 */

/** bits in a chunk; 512 bytes of memory, so that a few writes far apart cost little */
const CHUNK_BITS = 4_096;
const WORD_BITS = 32;

export class LeafSet {
  readonly #unit: number;
  readonly #chunks = new Map<number, Uint32Array>();

  /** @param unit in bytes; every start is a multiple of it */
  constructor(unit: number) {
    this.#unit = unit;
  }

  add(start: number): void {
    const bit = start / this.#unit;
    const key = Math.floor(bit / CHUNK_BITS);
    let chunk = this.#chunks.get(key);
    if (chunk === undefined) {
      chunk = new Uint32Array(CHUNK_BITS / WORD_BITS);
      this.#chunks.set(key, chunk);
    }
    const at = bit % CHUNK_BITS;
    const word = Math.floor(at / WORD_BITS);
    chunk[word] = (chunk[word] ?? 0) | (1 << (at % WORD_BITS));
  }

  /** Forgets what starts in [from, to]. */
  clear(from: number, to: number): void {
    const first = Math.ceil(from / this.#unit);
    const last = Math.floor(to / this.#unit);
    for (const key of this.#keys(Math.floor(first / CHUNK_BITS), Math.floor(last / CHUNK_BITS))) {
      const base = key * CHUNK_BITS;
      if (first <= base && base + CHUNK_BITS - 1 <= last) this.#chunks.delete(key);
      else this.#clearIn(key, Math.max(first - base, 0), Math.min(last - base, CHUNK_BITS - 1));
    }
  }

  /** Starts in [from, to], ascending. */
  *starts(from: number, to: number): Generator<number> {
    const first = Math.ceil(from / this.#unit);
    const last = Math.floor(to / this.#unit);
    for (const key of this.#keys(Math.floor(first / CHUNK_BITS), Math.floor(last / CHUNK_BITS))) {
      const chunk = this.#chunks.get(key);
      if (chunk === undefined) continue;
      const base = key * CHUNK_BITS;
      const end = Math.min(last - base, CHUNK_BITS - 1);
      for (let at = Math.max(first - base, 0); at <= end; at++) {
        const word = chunk[Math.floor(at / WORD_BITS)] ?? 0;
        if (word === 0) at += WORD_BITS - 1 - (at % WORD_BITS);
        else if ((word & (1 << (at % WORD_BITS))) !== 0) yield (base + at) * this.#unit;
      }
    }
  }

  #clearIn(key: number, from: number, to: number): void {
    const chunk = this.#chunks.get(key);
    if (chunk === undefined) return;
    for (let at = from; at <= to;) {
      const bit = at % WORD_BITS;
      const count = Math.min(WORD_BITS - bit, to - at + 1);
      // All ones from `bit` on, `count` of them; a shift by 32 would be one by 0.
      const mask = (0xffff_ffff >>> (WORD_BITS - count)) << bit;
      const word = (at - bit) / WORD_BITS;
      chunk[word] = (chunk[word] ?? 0) & ~mask;
      at += count;
    }
  }

  /** Chunks that exist from `first` to `last`, ascending; however wide the range is. */
  #keys(first: number, last: number): number[] {
    return [...this.#chunks.keys()]
      .filter((key) => first <= key && key <= last)
      .sort((a, b) => a - b);
  }
}
